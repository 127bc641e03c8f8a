"""--precision auto: every precision that this machine could use, timed where it will run; the fastest is kept."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lpips_runtime import Scorer
from lpips_runtime.errors import LpipsError, ProviderError
from lpips_runtime.gpu import find_gpu
from lpips_runtime.plan import Shape

from .backbones import BACKBONES
from .engine import executed
from .errors import EngineError, StructureError, ValidationError
from .export import check_output, engine_of, export_sources, open_sources
from .limits import LIMITS
from .manifest import Artifact, publish, staging
from .profiles import EngineSpec
from .progress import Progress
from .spec import CHOICES, ExportSpec

__all__ = ["Trial", "export_auto"]

# Runs of each candidate before and while it is timed, in turns, so that a machine that slows down slows all alike.
_WARM_UP, _ROUNDS = 3, 20


@dataclass
class Trial:
    """What became of one precision.

    size: bytes of what would be run. p50: median seconds of one run, conversion from 8-bit images included. error: of
    its proof, in words. outcome: kept, slower, or why it was not tried or was discarded.
    """

    precision: str
    size: int | None = None
    p50: float | None = None
    error: str = ""
    outcome: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def export_auto(
    spec: ExportSpec,
    output_dir: Path,
    *,
    shapes: EngineSpec,
    engine: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[list[Artifact], list[Trial]]:
    """Export in every precision, time each at shapes' --opt, publish the fastest; its artifacts, and all trials.

    spec: its precision does not matter; without a calibration folder INT8 is not tried. engine: time and publish
    TensorRT engines instead of graphs in ONNX Runtime. Raises what `export` raises, a precision's failed proof apart,
    and ProviderError if nothing can be run here.
    """
    progress = progress or Progress()
    shape = shapes.profiles(spec.net, BACKBONES[spec.net].min_size)[0].opt
    candidates = {
        precision: replace(spec, precision=precision)
        for precision in CHOICES["precision"]
        if precision != "int8" or spec.calibration is not None
    }
    trials = [Trial(precision) for precision in CHOICES["precision"]]
    by_precision = {trial.precision: trial for trial in trials}
    for trial in trials:
        if trial.precision not in candidates:
            trial.outcome = "not tried: needs --calibration DIR"
    wanted = shapes if engine else None
    if engine:
        _need_gpu()
    sources = open_sources(spec, wanted, progress)
    jobs = {
        precision: check_output(candidate, sources, output_dir, engine=wanted, overwrite=overwrite)[1]
        for precision, candidate in candidates.items()
    }
    with staging(output_dir) as folder:
        made: dict[str, list[Artifact]] = {}
        for precision, candidate in candidates.items():
            trial, job = by_precision[precision], jobs[precision]
            try:
                artifacts = export_sources(candidate, sources, folder / precision, progress=progress)
                if job is not None:
                    # Where it would have been: the folder that it is tried in is gone when this is read.
                    kept = f"not published: {job.path(output_dir / artifacts[0].path.name)}"
                    artifacts.append(engine_of(artifacts[0].path, job, kept=kept, progress=progress))
                made[precision] = artifacts
                trial.size, trial.error = _running(made[precision]).size, _error(made[precision][0])
            except (StructureError, ValidationError, EngineError) as error:
                trial.outcome = f"discarded: {error}"
        # Engines one by one: each reserves the device memory of its largest shape for as long as it is open.
        for together in ({precision: made[precision]} for precision in list(made)) if engine else (made,):
            _time(together, by_precision, shape, progress)
        timed = [trial for trial in trials if trial.p50 is not None]
        if not timed:
            raise ProviderError("; ".join(f"{trial.precision}: {trial.outcome}" for trial in trials))
        fastest = min(timed, key=lambda trial: trial.p50 or 0)
        for trial in timed:
            trial.outcome = "kept" if trial is fastest else "slower"
        chosen = made[fastest.precision]
        return publish([(artifact.path, artifact.manifest) for artifact in chosen], output_dir), trials


def _need_gpu() -> None:
    try:
        find_gpu(0)
    except ProviderError as error:
        raise ProviderError(
            f"--precision auto --engine times engines where they run: {error}; leave out --engine, or name a precision"
        ) from error


def _running(artifacts: Sequence[Artifact]) -> Artifact:
    """What will be run: the engine where there is one, else the pair graph."""
    return artifacts[-1] if artifacts[-1].path.suffix == ".engine" else artifacts[0]


def _error(graph: Artifact) -> str:
    if "quantisation" in graph.manifest:
        agreement = graph.manifest["quantisation"]["agreement"]
        return f"{agreement['error']:.2%} mean, held-out pairs"
    return f"{graph.manifest['validation']['worst']['distance']:.1e} worst, {graph.manifest['validation']['against']}"


def _refusal(error: LpipsError, artifacts: Sequence[Artifact]) -> str:
    path = _running(artifacts).path
    what = "fails its proof here" if isinstance(error, ValidationError) else "cannot run here"
    return f"discarded: {what}: {str(error).replace(str(path), path.name)}"


def _images(shape: Shape) -> list[np.ndarray]:
    """Three batches of `shape`, uint8 NHWC: noise, other noise, and the first one a little changed."""
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    near = (one + rng.normal(0, 12, one.shape)).clip(0, 255).round().astype(np.uint8)
    return [one, other, near]


def _compared(scorer: Scorer, graph: Path, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """How far what runs here is from the proven graph on the CPU provider. Raises ValidationError beyond the limits."""
    reference, *distorted = images
    with Scorer(graph, provider="cpu") as proven:
        expected, found = (
            np.concatenate([np.atleast_1d(of.score(reference, image)) for image in distorted])
            for of in (proven, scorer)
        )
    error = np.abs(found - expected)
    if not (error <= LIMITS[scorer.info.precision]["distance"](expected)).all():
        at = int(error.argmax())
        raise ValidationError(f"gives {found[at]:.6g} here, where its graph gives {expected[at]:.6g} on the CPU")
    shape = "x".join(map(str, reference.shape[:3]))
    return {"against": f"its graph on the CPU provider, {shape}", "pairs": len(found), "worst": float(error.max())}


def _time(made: dict[str, list[Artifact]], trials: dict[str, Trial], shape: Shape, progress: Progress) -> None:
    """Fill in the p50 of those that run here and give the numbers that were proven; what became of the others."""
    images = _images(shape)
    scorers: dict[str, Scorer] = {}
    seconds: dict[str, list[float]] = {precision: [] for precision in made}

    def attempt(precision: str, work: Callable[[], Any]) -> None:
        try:
            work()
        except LpipsError as error:
            trials[precision].outcome = _refusal(error, made[precision])
            if (failed := scorers.pop(precision, None)) is not None:
                failed.close()

    def start(precision: str) -> None:
        artifact = _running(made[precision])
        scorers[precision] = scorer = Scorer(artifact.path)
        if scorer.provenance["runtime"]["provider"] != "cpu":
            found = _compared(scorer, made[precision][0].path, images)
            if artifact.path.suffix == ".engine":
                made[precision][-1] = replace(artifact, manifest=executed(artifact.manifest, found))

    def score(precision: str) -> None:
        begin = time.perf_counter()
        scorers[precision].score(*images[:2])
        seconds[precision].append(time.perf_counter() - begin)

    for precision in made:
        attempt(precision, partial(start, precision))
    title = f"timing {', '.join(scorers)} at {'x'.join(map(str, shape))}"
    with progress.stage(title, _WARM_UP + _ROUNDS) as advance:
        for _ in range(_WARM_UP + _ROUNDS):
            for precision in list(scorers):
                attempt(precision, partial(score, precision))
            advance()
    for precision, scorer in scorers.items():
        trials[precision].p50 = float(np.median(seconds[precision][_WARM_UP:]))
        scorer.close()
