"""--precision auto: every precision that this machine could use, timed where it will run; the fastest is kept."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lpips_runtime import Scorer
from lpips_runtime.errors import LpipsError, ProviderError
from lpips_runtime.gpu import find_gpu
from lpips_runtime.plan import Shape

from .backbones import BACKBONES
from .errors import EngineError, StructureError, ValidationError
from .export import check_output, engine_of, export_sources, open_sources
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
        find_gpu(0)  # engines are timed where they run
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
        _time(made, by_precision, shape, progress)
        timed = [trial for trial in trials if trial.p50 is not None]
        if not timed:
            raise ProviderError("; ".join(f"{trial.precision}: {trial.outcome}" for trial in trials))
        fastest = min(timed, key=lambda trial: trial.p50 or 0)
        for trial in timed:
            trial.outcome = "kept" if trial is fastest else "slower"
        chosen = made[fastest.precision]
        return publish([(artifact.path, artifact.manifest) for artifact in chosen], output_dir), trials


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
    return f"discarded: cannot run here: {str(error).replace(str(path), path.name)}"


def _time(made: dict[str, list[Artifact]], trials: dict[str, Trial], shape: Shape, progress: Progress) -> None:
    pairs, height, width = shape
    images = np.random.default_rng(0).integers(0, 256, (2, pairs, height, width, 3), dtype=np.uint8)
    scorers: dict[str, Scorer] = {}
    for precision, artifacts in made.items():
        try:
            scorers[precision] = Scorer(_running(artifacts).path)
        except LpipsError as error:
            trials[precision].outcome = _refusal(error, artifacts)
    seconds: dict[str, list[float]] = {precision: [] for precision in scorers}
    with progress.stage(f"timing {len(scorers)} precisions at {pairs}x{height}x{width}", _WARM_UP + _ROUNDS) as advance:
        for number in range(_WARM_UP + _ROUNDS):
            for precision, scorer in list(scorers.items()):
                start = time.perf_counter()
                try:
                    scorer.score(*images)
                except LpipsError as error:
                    trials[precision].outcome = _refusal(error, made[precision])
                    del scorers[precision]
                    continue
                if number >= _WARM_UP:
                    seconds[precision].append(time.perf_counter() - start)
            advance()
    for precision, scorer in scorers.items():
        trials[precision].p50 = float(np.median(seconds[precision]))
        scorer.close()
