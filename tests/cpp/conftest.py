"""What the tests of runtime/cpp share."""

from collections.abc import Callable
from pathlib import Path

import int8_graph
import native
import numpy as np
import pytest
from c_abi import Library, Native

from lpips_runtime import Scorer


@pytest.fixture(scope="session")
def c_library() -> Library:
    return Library(native.build("gcc") / "liblpips_c.so")


@pytest.fixture
def opened(c_library: Library) -> Callable[..., Native]:
    """A model's path -> it, opened through the C ABI with the installed ONNX Runtime."""
    return lambda path, **options: Native(c_library, path, native.library(), **options)


@pytest.fixture(scope="session")
def graph(
    exported: Callable[..., list[Path]],
    random_backbone: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str, str], Path]:
    """net, precision, input -> a pair graph of random weights; in float32, and of alex in half, with its siblings."""

    def make(net: str, precision: str, image_input: str) -> Path:
        if precision != "int8":
            # The siblings take most of the time: those of float32 are enough, and of half for the smallest net.
            split = (precision, image_input) == ("fp32", "float32") or (net, precision) == ("alex", "fp16")
            return exported(net=net, precision=precision, input=image_input, split=split, quick=True)[0]
        from lpips_export.tracing import serialized

        path = tmp_path_factory.mktemp("int8") / f"{net}.onnx"
        path.write_bytes(serialized(int8_graph.Int8Net(net, random_backbone(net)).graph("cpu")))
        return path

    return make


@pytest.fixture
def in_python() -> Callable[[Path], Scorer]:
    """A model, opened by the Python runtime for the same provider."""
    return lambda path: Scorer(path, provider="cpu")


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """seed, height, width -> uint8 [H,W,3]."""
    return lambda seed, height=47, width=61: np.random.default_rng(seed).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
