"""A published graph -> the TensorRT engine beside it, and its manifest.

What is built here has not been run: a plan can be executed on the GPU it is for only, and building needs none with
TensorRT-RTX. The manifest says so.
"""

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lpips_runtime import contract
from lpips_runtime.contract import ModelInfo
from lpips_runtime.gpu import Gpu
from lpips_runtime.plan import FLAVOURS, PlanInfo, Profile

from .errors import EngineError, SpecError
from .layout import IMAGE_DIMENSIONS
from .manifest import Artifact, check_replaceable, publish, specification, staging, tools
from .profiles import EngineSpec
from .progress import Progress
from .trt import Bounds, Log, build_plan
from .trt_library import Library, find_library, gpu

__all__ = ["EngineJob", "build_engine", "executed", "plan_engine"]


@dataclass(frozen=True)
class EngineJob:
    """An engine that can be built as far as is known before there is a graph.

    library: what builds it. profiles: the shapes it will admit. device: the GPU it is built for, None for
    plans that are tied to none.
    """

    spec: EngineSpec
    library: Library
    profiles: tuple[Profile, ...]
    device: Gpu | None

    def check(self, graph: Path, info: ModelInfo, overwrite: bool) -> None:
        """Raise SpecError if TensorRT takes no such graph, PublishError if what is in the engine's place must stay."""
        if info.precision == "int8" and info.target == "cpu":
            raise SpecError(
                f"{graph.name}: TensorRT takes no INT8 graph made for CPUs; export it with --target tensorrt"
            )
        check_replaceable(self.path(graph), self.specification(info), overwrite)

    def path(self, graph: Path) -> Path:
        """Where the engine of a graph lies: beside it, its suffix changed."""
        return graph.with_name(graph.stem + FLAVOURS[self.library.flavour])

    def specification(self, info: ModelInfo) -> dict[str, Any]:
        """What must be equal for one engine to replace another: the graph's, and what is admitted where."""
        return specification(info) | {
            "flavour": self.library.flavour,
            "profiles": [{name: list(shape) for name, shape in asdict(profile).items()} for profile in self.profiles],
            "version_compatible": self.spec.version_compatible,
            "hardware_compatible": self.hardware_compatible,
        }

    @property
    def hardware_compatible(self) -> bool:
        """Whether other GPUs can run the plan."""
        return self.spec.hardware_compatible or not self.library.tied_to_gpu


def plan_engine(spec: EngineSpec, net: str, min_size: int) -> EngineJob:
    """Find out whether this engine can be built here for a net whose smallest side is `min_size` pixels.

    Raises SpecError if it cannot be meant, EngineError if TensorRT, its GPU or the timing cache cannot be used.
    """
    profiles = spec.profiles(net, min_size)
    library = find_library()
    library.check(spec)
    _read_timings(spec.timing_cache)
    return EngineJob(spec, library, profiles, gpu() if library.tied_to_gpu else None)


def build_engine(
    graph: Path,
    info: ModelInfo,
    job: EngineJob,
    *,
    overwrite: bool = False,
    kept: str = "",
    progress: Progress | None = None,
) -> Artifact:
    """Build the engine of a pair graph and publish it beside the graph, its manifest with it.

    info: the graph's metadata. kept: what errors say of graph and engine; without it, that what is there is published
    all the same. Raises what job.check raises; EngineError if TensorRT cannot build it, or if the timing cache cannot
    be written, when the engine is there all the same; PublishError.
    """
    progress = progress or Progress()
    job.check(graph, info, overwrite)
    target = job.path(graph)
    kept_graph = kept or f"the graph is published all the same: {graph}"
    data = graph.read_bytes()
    start = time.perf_counter()
    with progress.stage(f"building {target.name}", 100) as advance:
        bounds = [_bounds(info, profile) for profile in job.profiles]
        timings = _read_timings(job.spec.timing_cache)  # as the build before this one left them
        try:
            plan = build_plan(job.library, data, bounds, job.spec, Log(progress.detail), advance, timings)
        except EngineError as error:
            raise EngineError(f"{error}; {kept_graph}") from error
    seconds = time.perf_counter() - start
    if plan.forgotten is not None:
        progress.note(f"{job.spec.timing_cache}: timings of another TensorRT or GPU, made anew ({plan.forgotten})")

    with staging(target.parent, kept_graph) as folder:
        staged = folder / target.name
        staged.write_bytes(plan.data)
        manifest = _manifest(staged.name, plan.data, graph.name, data, info, job, seconds)
        (artifact,) = publish([(staged, manifest)], target.parent)
    if plan.timings is not None and job.spec.timing_cache is not None:
        _write_timings(job.spec.timing_cache, plan.timings, kept or f"the engine is published all the same: {target}")
    return artifact


def _bounds(info: ModelInfo, profile: Profile) -> Bounds:
    def dimensions(shape: tuple[int, int, int]) -> tuple[int, ...]:
        named = dict(zip(("batch", "height", "width"), shape, strict=True))
        return tuple(named[name] if name in named else int(name) for name in IMAGE_DIMENSIONS[info.input])

    limits = (dimensions(profile.min), dimensions(profile.opt), dimensions(profile.max))
    return {contract.REFERENCE: limits, contract.DISTORTED: limits}


def _manifest(
    file: str, plan: bytes, onnx: str, graph: bytes, info: ModelInfo, job: EngineJob, seconds: float
) -> Mapping[str, Any]:
    described = PlanInfo(
        sha256=hashlib.sha256(plan).hexdigest(),
        onnx=onnx,
        onnx_sha256=hashlib.sha256(graph).hexdigest(),
        info=info,
        flavour=job.library.flavour,
        tensorrt=job.library.version,
        gpu=job.device and job.device.name,
        compute_capability=job.device and job.device.compute_capability,
        profiles=job.profiles,
        version_compatible=job.spec.version_compatible,
        hardware_compatible=job.hardware_compatible,
    )
    return {
        "file": file,
        "size": len(plan),
        **described.to_manifest(),
        "precision": info.precision,
        "workspace": job.spec.workspace,
        "spec": job.specification(info),
        "executed": False,
        "validated": "built, not executed: no number of this plan has been compared with the reference's",
        "tools": tools() | {job.library.flavour: job.library.version},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
    }


def executed(manifest: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest of an engine that was run: `found` says against what, on how many pairs, and its worst error."""
    return {**manifest, "executed": True, "validated": dict(found)}


def _read_timings(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        if not path.parent.is_dir():
            raise EngineError(f"--timing-cache {path}: its folder does not exist; make it or choose another file")
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise EngineError(
            f"--timing-cache {path}: cannot be read: {error.strerror}; choose another file or leave the option out"
        ) from error


def _write_timings(path: Path, timings: bytes, kept: str) -> None:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(timings)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise EngineError(f"--timing-cache {path}: cannot be written: {error.strerror}; {kept}") from error
