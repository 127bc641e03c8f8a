"""Images of a set that are compared more than once: the jobs, and the two ways of doing one, as subjects of `turns`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from lpips_runtime.images import Image

    from .job import Job, Score

__all__ = ["SETS", "by_lpips", "one_by_one", "reusing", "sampled"]

T = TypeVar("T")

# Pairs at once, as a stream of such images has them.
_BATCH = 8
# Pairs whose time, pair by pair, stands for that of all.
_SAMPLE = 12

SETS: Mapping[str, Callable[[Sequence], list[tuple]]] = {
    "all pairs": lambda images: list(itertools.combinations(images, 2)),
    "one against the others": lambda images: [(images[0], image) for image in images[1:]],
}


def sampled(pairs: Sequence[T]) -> Sequence[T]:
    """A dozen of them at most, evenly spread."""
    return pairs[:: -(-len(pairs) // _SAMPLE)]


def by_lpips(which: str) -> Callable[[Job], Score]:
    """The reference for every pair, as many at once as a stream has them: both images anew each time."""

    def make(job: Job) -> Score:
        from .peers import in_torch, lpips_metric

        call = in_torch(lpips_metric)(job)

        def score(images: np.ndarray, _: np.ndarray) -> np.ndarray:
            pairs = SETS[which](list(images))
            batches = [pairs[start : start + _BATCH] for start in range(0, len(pairs), _BATCH)]
            return np.concatenate([call(*map(np.stack, zip(*batch, strict=True))) for batch in batches])

        return score

    return make


def one_by_one(which: str) -> Callable[[Job], Score]:
    """The pair graph for each of a sample of the pairs. Of the images the first of the two arrays is the set."""

    def make(job: Job) -> Score:
        from lpips_runtime import Scorer

        scorer = Scorer(job.model, provider="cpu", threads=job.threads)
        return lambda images, _: np.array([float(scorer.score(a, b)) for a, b in sampled(SETS[which](list(images)))])

    return make


def reusing(which: str) -> Callable[[Job], Score]:
    """All pairs as a stream has them, with a new cache each time."""

    def unread(path: Path) -> Image:
        raise AssertionError(f"{path}: these images are decoded already")

    def make(job: Job) -> Score:
        from lpips_runtime import Scorer
        from lpips_runtime.images import Image
        from lpips_runtime.reuse import Reuse

        scorer = Scorer(job.model, provider="cpu", threads=job.threads)

        def score(images: np.ndarray, _: np.ndarray) -> np.ndarray:
            pairs = SETS[which]([Image(pixels, (), key=number) for number, pixels in enumerate(images)])
            reuse = Reuse(scorer, unread)
            batches = [pairs[start : start + _BATCH] for start in range(0, len(pairs), _BATCH)]
            details = [detail for batch in batches for detail in reuse.run(batch, depths=False)]
            return np.concatenate([detail.distance for detail in details])

        return score

    return make
