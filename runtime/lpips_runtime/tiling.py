"""Large images, exactly: in tiles, each with the pixels around it that its part of the result depends on.

A position of a depth map depends on no pixel further away than the net's halo, and tiles begin on the grid of the
net's stride, where every depth has a position. So the positions that a tile owns have the values that they have in the
whole image: the padding that a convolution puts around a tile stays within the halo, and at the image's border a tile
ends where the image ends. Distances come from sums over owned positions, taken in float64 and divided once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from . import contract
from .arrays import Batch, to_tensor
from .checks import NETS
from .contract import ModelInfo

__all__ = ["Outputs", "Part", "Span", "cut", "parts", "run_parts"]

# Distance float32 [N], layers float32 [N, L], and the depths, L arrays float32 [N, h_k, w_k]; of tiles possibly none.
Outputs = list[np.ndarray]


class Runner(Protocol):
    """What runs a graph: a Session, or an Engine."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def depths(self) -> int: ...
    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]: ...


class Span(NamedTuple):
    """One side of a tile, in pixels of the image: computed from `start` to `stop`, owned from `first` to `last`."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def length(self) -> int:
        """Computed pixels."""
        return self.stop - self.start

    def positions(self, stride: int) -> slice:
        """The owned positions among those that the tile gives at a depth of this stride."""
        # Where the image ends there may be one position more than whole strides, or one less.
        end = None if self.last == self.stop else (self.last - self.start) // stride
        return slice((self.first - self.start) // stride, end)


class Part(NamedTuple):
    """What is run at once: so many pairs (None: all there are), or one pair's tile of `rows` x `columns` tiles."""

    pairs: int | None
    rows: int = 1
    columns: int = 1

    @property
    def tiles(self) -> int:
        """Tiles of an image; 1 is the image as it is."""
        return self.rows * self.columns

    def largest(self, height: int, width: int, info: ModelInfo) -> int:
        """Pixels of the largest tile of an image of this size, its halo included."""
        return _longest(height, self.rows, info) * _longest(width, self.columns, info)

    def computed(self, height: int, width: int, info: ModelInfo) -> int:
        """Pixels of all its tiles together; a few too many for an image that is hardly larger than the halo."""
        return (height + 2 * info.halo * (self.rows - 1)) * (width + 2 * info.halo * (self.columns - 1))


def parts(height: int, width: int, info: ModelInfo) -> Iterator[Part]:
    """The ways to cut one image, from the image as it is to tiles that own twice the halo each way.

    Smaller ones would have more halo than image: more than four pixels would be computed for each.
    """
    for rows, columns in itertools.product(
        *(range(1, max(1, side // (2 * info.halo)) + 1) for side in (height, width))
    ):
        yield Part(1, rows, columns)


def _longest(side: int, count: int, info: ModelInfo) -> int:
    owned = -(-_cells(side, info) // count) * info.stride
    return min(side, owned + min(count - 1, 2) * info.halo)


def _cells(side: int, info: ModelInfo) -> int:
    return -(-side // info.stride)


def cut(side: int, count: int, info: ModelInfo) -> list[Span]:
    """`count` spans, as equal as the net's stride allows, that together own `side` pixels once each."""
    cells = _cells(side, info)
    ends = [*(cells * k // count * info.stride for k in range(count)), side]
    return [
        Span(max(0, first - info.halo), min(side, last + info.halo), first, last)
        for first, last in itertools.pairwise(ends)
    ]


def run_parts(runner: Runner, reference: Batch, distorted: Batch, part: Part, *, depths: bool) -> Outputs:
    """Run checked batches of one count and size in such parts; without `depths` the outputs of tiles have none.

    Raises what the runner raises.
    """
    run = _run_whole if part.tiles == 1 else _run_tiles
    pairs = part.pairs or reference.count
    slices = [slice(n, n + pairs) for n in range(0, reference.count, pairs)]
    found = [run(runner, _crop(reference, these), _crop(distorted, these), part, depths) for these in slices]
    if len(found) == 1:
        return found[0]
    return [np.concatenate(output) for output in zip(*found, strict=True)]


def _run_whole(runner: Runner, reference: Batch, distorted: Batch, part: Part, depths: bool) -> Outputs:
    return runner.run(_tensors(runner, reference, distorted), contract.results(runner.depths))


def _run_tiles(runner: Runner, reference: Batch, distorted: Batch, part: Part, depths: bool) -> Outputs:
    """The outputs for one pair."""
    strides = NETS[runner.info.net].strides
    sums, counts = np.zeros((2, len(strides)))
    rows = cut(reference.height, part.rows, runner.info)
    columns = cut(reference.width, part.columns, runner.info)
    kept: dict[tuple[Span, Span], list[np.ndarray]] = {}
    # One size after the other: where the size changes, a session makes its memory anew.
    for row, column in sorted(itertools.product(rows, columns), key=lambda tile: [span.length for span in tile]):
        tile = _tensors(runner, _crop(reference, slice(None), row, column), _crop(distorted, slice(None), row, column))
        found = [
            depth[:, row.positions(stride), column.positions(stride)]
            for depth, stride in zip(runner.run(tile, _depths(runner)), strides, strict=True)
        ]
        sums += [owned.sum(dtype=np.float64) for owned in found]
        counts += [owned.size for owned in found]
        if depths:
            kept[row, column] = [owned.copy() for owned in found]  # views would keep the halo too
    layers = sums / counts
    maps = (
        [np.block([[kept[row, column][k] for column in columns] for row in rows]) for k in range(len(strides))]
        if depths
        else []
    )
    return [np.array([layers.sum()], np.float32), layers[np.newaxis].astype(np.float32), *maps]


def _depths(runner: Runner) -> list[str]:
    return [contract.depth(k) for k in range(runner.depths)]


def _tensors(runner: Runner, reference: Batch, distorted: Batch) -> dict[str, np.ndarray]:
    return {
        contract.REFERENCE: to_tensor(reference, runner.info.input),
        contract.DISTORTED: to_tensor(distorted, runner.info.input),
    }


def _crop(batch: Batch, images: slice, row: Span | None = None, column: Span | None = None) -> Batch:
    rows, columns = (slice(None) if span is None else slice(span.start, span.stop) for span in (row, column))
    at = (images, rows, columns) if batch.pixels.dtype == np.uint8 else (images, slice(None), rows, columns)
    return Batch(batch.pixels[at], batch.single)
