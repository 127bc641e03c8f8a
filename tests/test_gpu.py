"""Engines built and run by the real TensorRT on a real GPU: the same figures as everywhere else. `pytest -m gpu`."""

import importlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_tensorrt
from on_gpu import INT8_LIMIT, LIMITS, assert_same, pairs

from lpips_runtime import Scorer
from lpips_runtime.engine import LIBRARIES
from lpips_runtime.errors import LpipsError, ShapeError
from lpips_runtime.plan import Profile

pytestmark = pytest.mark.gpu

Build = Callable[..., tuple[Path, Path]]

PROFILES = [Profile((1, 31, 31), (1, 64, 64), (4, 128, 128)), Profile((1, 64, 64), (2, 256, 256), (8, 320, 320))]


@pytest.fixture(scope="module", params=list(LIBRARIES))
def flavour(request: pytest.FixtureRequest) -> str:
    gpu = real_tensorrt.gpu()
    if isinstance(gpu, LpipsError):
        pytest.skip(str(gpu))
    if request.param not in real_tensorrt.flavours():
        pytest.skip(f"{LIBRARIES[request.param].module} is not installed")
    return request.param


@pytest.fixture(scope="module")
def build(flavour: str, exported: Callable[..., list[Path]]) -> Build:
    """ExportSpec fields -> the engine of such an export, and the float32 graph that it must agree with."""
    made: dict[Path, Path] = {}

    def make(precision: str, **fields: Any) -> tuple[Path, Path]:
        graph, truth = (exported(precision=kind, quick=True, **fields)[0] for kind in (precision, "fp32"))
        if graph not in made:
            made[graph] = real_tensorrt.build(flavour, graph, PROFILES)
        return made[graph], truth

    return make


@pytest.mark.parametrize("image_input", ["float32", "uint8"])
@pytest.mark.parametrize("precision", list(LIMITS))
@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_an_engine_agrees_with_the_float32_graph(build: Build, net: str, precision: str, image_input: str) -> None:
    path, graph = build(precision, net=net, input=image_input)
    with Scorer(path) as engine, Scorer(graph, provider="cpu") as truth:
        # Both profiles, to and fro; odd sides; more pairs than a profile takes.
        for shape in ((1, 31, 31), (3, 200, 131), (4, 64, 97), (2, 31, 128), (1, 320, 320), (9, 40, 40)):
            assert_same(engine, truth, precision, *pairs(*shape))


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_an_int8_engine_agrees_with_its_graph_on_the_cpu(
    flavour: str, net: str, random_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from int8_graph import Int8Net

    from lpips_export.tracing import serialized

    graph = tmp_path / f"lpips_{net}_int8_tensorrt.onnx"
    graph.write_bytes(serialized(Int8Net(net, random_backbone(net)).graph("tensorrt")))
    with Scorer(real_tensorrt.build(flavour, graph, PROFILES)) as engine, Scorer(graph, provider="cpu") as truth:
        for shape in ((1, 31, 31), (3, 200, 131), (9, 40, 40)):
            found, expected = (scorer.detail(*pairs(*shape)) for scorer in (engine, truth))
            np.testing.assert_allclose(found.distance, expected.distance, rtol=INT8_LIMIT, atol=1e-6)
            # A share of a depth is an average over fewer values, and a position is no average at all.
            scale = expected.distance[:, None]
            assert (np.abs(found.layers - expected.layers) <= INT8_LIMIT * scale + 1e-6).all()
            assert np.abs(found.map - expected.map).mean() <= INT8_LIMIT * expected.map.mean()
            assert (found.distance[1:2] == 0).all(), "of equal images"


@pytest.mark.parametrize("precision", list(LIMITS))
def test_the_golden_images(build: Build, precision: str, golden_dir: Path, real_weights: Callable[[str], Path]) -> None:
    golden = json.loads((golden_dir / "golden.json").read_text())["alex"]
    path, _ = build(precision, net="alex", backbone=real_weights("alex"))
    with Scorer(path) as scorer:
        for name in ("p0", "p1"):
            detail = scorer.detail(golden_dir / "ex_ref.png", golden_dir / f"ex_{name}.png")
            expected = golden["float64"][f"ref_{name}"]
            assert detail.distance[0] == pytest.approx(expected, abs=LIMITS[precision][0])
            assert detail.map.mean() == pytest.approx(golden["map_mean"][f"ref_{name}"], abs=LIMITS[precision][1])
        assert scorer.score(golden_dir / "ex_ref.png", golden_dir / "ex_ref.png") == 0


@pytest.mark.parametrize("precision", list(LIMITS))
@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_the_seeded_tensors(
    build: Build, net: str, precision: str, golden_dir: Path, real_weights: Callable[[str], Path]
) -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(42)
    pair = [(torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1).numpy() for _ in range(2)]
    path, _ = build(precision, net=net, backbone=real_weights(net))
    with Scorer(path) as scorer:
        found = scorer.score(*pair, value_range=(-1, 1))
    expected = json.loads((golden_dir / "golden.json").read_text())["seeded"][net]
    np.testing.assert_allclose(found, expected, atol=LIMITS[precision][0])


def test_many_threads_share_one_engine(build: Build) -> None:
    path, _ = build("fp32", net="alex")
    work = [pairs(1 + k % 3, 70 + 23 * (k % 9), 70 + 17 * (k % 7)) for k in range(60)]
    with Scorer(path) as scorer:
        expected = [scorer.score(*pair) for pair in work]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda pair: scorer.score(*pair), work))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_images_outside_every_profile_are_refused(build: Build) -> None:
    path, _ = build("fp32", net="alex")
    with Scorer(path) as scorer:
        for shape in ((1, 321, 320), (1, 40, 200)):
            with pytest.raises(ShapeError, match="1x31x31 to 4x128x128 or 1x64x64 to 8x320x320"):
                scorer.score(*pairs(*shape))


def test_memory_goes_back(build: Build) -> None:
    path, _ = build("fp32", net="alex")
    cuda: Any = importlib.import_module("cuda.bindings.runtime")
    free = []
    for _ in range(6):
        with Scorer(path) as scorer:
            scorer.score(*pairs(8, 320, 320))
        code, left, _ = cuda.cudaMemGetInfo()
        assert not int(code)
        free.append(left)
    assert free[1] - free[-1] < 32 * 2**20
