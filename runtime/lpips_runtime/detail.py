"""What one run says of a batch of pairs: distance, shares of the depths, maps; and what no intact model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .errors import DamagedModelError
from .fast_math import FAST_MATH, doubts
from .images import Note
from .upsample import spatial_map

if TYPE_CHECKING:
    from .arrays import Batch
    from .engine import Engine
    from .features import Features
    from .session import Session

__all__ = ["Detail", "mean_shares"]


@dataclass(frozen=True, eq=False)
class Detail:
    """All that one run says of a batch of pairs.

    distance: float32 [N]. layers: float32 [N, L], each depth's share; they sum to the distance. depths: L arrays
    float32 [N, h_k, w_k], the weighted squared difference at each depth's own resolution. height, width: of the
    images, pixels. notes: what should be known of how the numbers came about, of any
    of the pairs. tiles: into how many tiles each image
    was cut, 1 for none; the numbers are equal up to rounding.
    """

    distance: np.ndarray
    layers: np.ndarray
    depths: tuple[np.ndarray, ...] = field(repr=False)
    height: int
    width: int
    notes: tuple[Note, ...] = ()
    tiles: int = 1

    @classmethod
    def of(
        cls, outputs: Sequence[np.ndarray], pairs: Batch | Features, graph: Session | Engine, *, depths: bool
    ) -> Detail:
        """That of a graph's outputs, distance, layers and maps if any, for as many pairs; `depths`: keep the maps.

        Raises DamagedModelError for numbers that no intact model gives.
        """
        distance, layers, *maps = outputs
        if fault := _fault(pairs.count, graph.depths, distance, layers, maps):
            raise DamagedModelError(f"{graph.path}: gives {fault}, as no intact model does; export the model again")
        if maps:  # not of tiles, whose sums are taken in float64 already
            shares = mean_shares(maps)
            distance, layers = shares.sum(axis=1).astype(np.float32), shares.astype(np.float32)
        notes = doubts(distance) if graph.fast_math else ()
        return cls(distance, layers, tuple(maps) if depths else (), pairs.height, pairs.width, notes)

    @cached_property
    def map(self) -> np.ndarray:
        """The reference's spatial map, float32 [N, H, W]: the sum of the depths, each upsampled bilinearly.

        Its mean is near the distance, not equal to it.
        """
        return spatial_map(self.depths, self.height, self.width)

    def pair(self, k: int) -> Detail:
        """That of pair k alone, N = 1; it shares the memory of this one."""
        return replace(
            self,
            distance=self.distance[k : k + 1],
            layers=self.layers[k : k + 1],
            depths=tuple(depth[k : k + 1] for depth in self.depths),
            notes=tuple(note for note in self.notes if note.kind != FAST_MATH or doubts(self.distance[k])),
        )


def mean_shares(depths: Sequence[np.ndarray]) -> np.ndarray:
    """Each depth's share of the distance, float64 [N, L]: the means of the depths, float32 [N, h_k, w_k].

    The graph's own `distance` and `layers` are these, but ONNX Runtime's CPU provider sums in an order that depends on
    the size of the batch: their last digit changed with the pairs that were scored beside one.
    """
    # Widened first: numpy widens piece by piece in a sum, and where the pieces end depends on the batch too.
    return np.stack([depth.reshape(len(depth), -1).astype(np.float64).mean(axis=1) for depth in depths], axis=1)


def _fault(count: int, depths: int, distance: np.ndarray, layers: np.ndarray, maps: Sequence[np.ndarray]) -> str | None:
    """What is wrong with a run's outputs; None for those of an intact model."""
    if distance.shape != (count,) or layers.shape != (count, depths):
        return f"distances of shape {list(distance.shape)}, layers of shape {list(layers.shape)} for {count} pairs"
    if any(len(depth) != count for depth in maps):
        return f"maps of {', '.join(str(len(depth)) for depth in maps)} images for {count} pairs"
    if not all(np.isfinite(part).all() for part in (distance, layers, *maps)):
        return "values that are not finite"
    if distance.min() < 0:
        return f"a distance of {distance.min()}"
    return None
