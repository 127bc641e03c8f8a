"""Plans by the real TensorRT or TensorRT-RTX, whichever is installed, and whether this machine can run them."""

import importlib
from pathlib import Path
from typing import Any

from fake_trt_runtime import write_manifest

from lpips_runtime.engine import LIBRARIES
from lpips_runtime.errors import LpipsError
from lpips_runtime.gpu import Gpu, find_gpu
from lpips_runtime.plan import Profile
from lpips_runtime.session import Session


def gpu() -> Gpu | LpipsError:
    """This machine's first GPU, or why it has none that can be used."""
    try:
        return find_gpu(0)
    except LpipsError as error:
        return error


def flavours() -> list[str]:
    """The flavours that are installed."""
    found = []
    for flavour, library in LIBRARIES.items():
        try:
            importlib.import_module(library.module)
        except (ImportError, OSError):
            continue
        found.append(flavour)
    return found


def build(flavour: str, onnx: Path, to: Path, profiles: list[Profile], on: Gpu | None = None) -> Path:
    """Build a plan of a graph and write its manifest; `on` is the GPU that it is built on."""
    library: Any = importlib.import_module(LIBRARIES[flavour].module)
    info = Session(onnx, provider="cpu").info
    logger = library.Logger(library.Logger.ERROR)
    builder = library.Builder(logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    assert parser.parse_from_file(str(onnx)), [parser.get_error(k) for k in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.clear_flag(library.BuilderFlag.TF32)
    for profile in profiles:
        made = builder.create_optimization_profile()
        for name in ("reference", "distorted"):
            made.set_shape(name, *(_whole(sides, info.input) for sides in (profile.min, profile.opt, profile.max)))
        assert config.add_optimization_profile(made) >= 0
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    to.write_bytes(plan)
    write_manifest(
        to,
        onnx,
        info=info,
        flavour=flavour,
        tensorrt=library.__version__,
        gpu=None if on is None else on.name,
        compute_capability=None if on is None else on.compute_capability,
        profiles=tuple(profiles),
    )
    return to


def _whole(sides: tuple[int, int, int], kind: str) -> tuple[int, int, int, int]:
    pairs, height, width = sides
    return (pairs, 3, height, width) if kind == "float32" else (pairs, height, width, 3)
