"""What a subject is, what it is given, and what it is made into."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

__all__ = ["AbsentError", "Job", "Score", "Subject", "images"]

# Two uint8 [N, H, W, 3] -> float [N].
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Job:
    """net: name in LPIPS. model: our float32 artifact of it. side: width of the images, pixels. batch: pairs at once.
    threads: that compute. folder: for files that the subjects of a run share; without one each makes its own. height:
    of the images, 0 if they are square."""

    net: str
    model: str
    side: int
    batch: int
    threads: int
    folder: str = ""
    height: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.height or self.side, self.side


def images(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [batch, H, W, 3] twice: smooth fields with noise, and the same with more of it."""
    rng, (height, width) = np.random.default_rng(2018), job.shape
    y, x = np.mgrid[:height, :width] / job.side
    phase = rng.uniform(0, 6, (job.batch, 1, 1, 3))
    field = 128 + 60 * np.sin(6 * x[None, :, :, None] + phase) + 40 * np.cos(9 * y[None, :, :, None] - phase)
    reference = field + rng.normal(0, 8, field.shape)
    distorted = reference + rng.normal(0, 20, field.shape)
    a, b = (image.clip(0, 255).astype(np.uint8) for image in (reference, distorted))
    return a, b


class AbsentError(Exception):
    """A subject is not to be had here, or not for this net. The message is the reason."""


_Files = Callable[[Job], tuple[Path, ...]]


def _no_files(_: Job) -> tuple[Path, ...]:
    return ()


# Distributions that bring PyTorch with them.
_TORCH = {"lpips", "torchmetrics", "piq"}


def _pairs(batch: int) -> tuple[int, int]:
    """Of pairs that have no image in common."""
    return batch, 2 * batch


@dataclass(frozen=True)
class Subject:
    """title: for the tables. make: what makes it ready. needs: distributions, extras in brackets. device: where it
    computes. files: needed besides. warm_up: calls before any is timed. exact: whether its distances must be those of
    float32. calls: that count, in a turn. on_stream: whether it computes on the CUDA stream that torch is told to
    use. sent: bytes of each value that goes to a GPU. counts: of the images given as a batch, the pairs that a call
    compares and the images that it encodes. compiled: whether torch.compile makes it ready."""

    title: str
    make: Callable[[Job], Score]
    needs: tuple[str, ...]
    device: Literal["cpu", "cuda"] = "cpu"
    files: _Files = _no_files
    warm_up: int = 3
    exact: bool = True
    calls: int = 4
    on_stream: bool = True
    sent: int = 1
    counts: Callable[[int], tuple[int, int]] = _pairs
    compiled: bool = False

    @property
    def in_torch(self) -> bool:
        return bool(_TORCH & {name.partition("[")[0] for name in self.needs})
