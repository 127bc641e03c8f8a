"""Plans by the real TensorRT or TensorRT-RTX, whichever is installed, and whether this machine can run them."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import pytest

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


def build(flavour: str, graph: Path, profiles: Sequence[Profile]) -> Path:
    """The engine that lpips-export builds from a graph, beside it; skips where the exporter is not installed."""
    pytest.importorskip("lpips_export.engine", exc_type=ImportError)
    from lpips_export import trt_library
    from lpips_export.engine import build_engine, plan_engine
    from lpips_export.profiles import EngineSpec

    info = Session(graph, provider="cpu").info
    spec = EngineSpec(
        min=tuple(profile.min for profile in profiles),
        opt=tuple(profile.opt for profile in profiles),
        max=tuple(profile.max for profile in profiles),
    )
    with pytest.MonkeyPatch.context() as patch:  # else the first flavour that is installed would build
        patch.setattr(trt_library, "_FLAVOURS", {flavour: trt_library._FLAVOURS[flavour]})
        job = plan_engine(spec, info.net, info.min_size)
    return build_engine(graph, info, job).path
