"""This project as subjects: a scorer with a provider or an engine, and the artifact of a precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .job import AbsentError, Job, Score, Subject

if TYPE_CHECKING:
    from lpips_runtime import Scorer

__all__ = ["engine", "ours", "split_files"]


def _artifact(job: Job, precision: str = "fp32") -> Path:
    """precision: with the suffixes of an artifact's name; the file lies beside job.model. Raises AbsentError if that is
    not called as the exporter calls it."""
    model, (kind, *suffixes) = Path(job.model), precision.split("_")
    if precision == "fp32":
        return model
    start = f"lpips_{job.net}_fp32"
    if not model.stem.startswith(start):
        raise AbsentError(f"{model.name} is not called {start}.onnx, so what lies beside it is not known")
    # Which weights it has stands between the two.
    return model.with_name("_".join([f"lpips_{job.net}_{kind}{model.stem.removeprefix(start)}", *suffixes]) + ".onnx")


def split_files(job: Job) -> tuple[Path, ...]:
    """The pair graph, and those of --split beside it."""
    return tuple(_artifact(job, precision) for precision in ("fp32", "fp32_features", "fp32_compare"))


def ours(
    title: str, provider: str, precision: str = "fp32", *, exact: bool = True, sent: int = 1, **options: Any
) -> Subject:
    """This project, with a provider and the artifact of a precision; options: Scorer's."""

    def make(job: Job) -> Score:
        from lpips_runtime import Scorer

        scorer = _checked(
            Scorer(_artifact(job, precision), provider=provider, threads=job.threads, **options), job, precision
        )
        return lambda a, b: np.asarray(scorer.score(a, b))

    needs, device = _PROVIDERS[provider]
    return Subject(title, make, (needs,), device, lambda job: (_artifact(job, precision),), exact=exact, sent=sent)


def _checked(scorer: Scorer, job: Job, precision: str) -> Scorer:
    """Raises AbsentError if it is not of the net, precision, target and input that its row says."""
    info, words = scorer.info, precision.split("_")
    said = (info.net, info.precision, info.input)
    wanted = (job.net, words[0], "uint8" if "uint8" in words else "float32")
    if said != wanted or (info.target == "openvino") != ("openvino" in words):
        raise AbsentError(f"{scorer.path.name} holds {' '.join(filter(None, (*said, info.target)))}")
    return scorer


def engine(title: str, precision: str, *, exact: bool = True) -> Subject:
    """This project, with what `lpips-export --input uint8 --engine` built of the artifact of a precision."""

    def path(job: Job) -> Path:
        return _artifact(job, precision).with_suffix(".engine")

    def make(job: Job) -> Score:
        from lpips_runtime import Scorer

        scorer = _checked(Scorer(path(job)), job, precision)
        return lambda a, b: np.asarray(scorer.score(a, b))

    needs = ("lpips-runtime[tensorrt-rtx]" if precision.endswith("_rtx") else "lpips-runtime[tensorrt]",)
    return Subject(title, make, needs, "cuda", lambda job: (path(job),), exact=exact, on_stream=False)


# What is installed for it, and where it computes.
_PROVIDERS: Mapping[str, tuple[str, Literal["cpu", "cuda"]]] = {
    "cpu": ("lpips-runtime[cpu]", "cpu"),
    "openvino": ("lpips-runtime[openvino]", "cpu"),
    "cuda": ("lpips-runtime[gpu]", "cuda"),
}
