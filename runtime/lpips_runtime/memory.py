"""What a run takes in memory, and how a job is cut to stay within a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .arrays import Batch
from .contract import ModelInfo
from .errors import ShapeError, UsageError
from .sizes import format_size, parse_size
from .tiling import Part, parts

__all__ = ["COSTS", "Cost", "Memory"]


class Cost(NamedTuple):
    """fixed: bytes of lpips-score with the model open. per_pixel: bytes that a run takes, at its peak and for each
    pixel of a pair, input tensors and depth maps included. default: the limit in bytes where none is asked for."""

    fixed: int
    per_pixel: int
    default: int


# By net and precision, rounded up: the larger of both inputs and, for INT8, of both targets. Measured on the CPU
# provider, x86-64, ONNX Runtime 1.31 without memory patterns, by `python -m benchmarks.memory --costs MODEL ...`.
# What a pixel takes depends on how well a size falls into the arena's blocks: the table holds the worst that was seen.
# The defaults hold a 4K pair on alex in one piece, and compute a third more pixels than it has on vgg (docs/memory.md).
COSTS = {
    ("alex", "fp32"): Cost(fixed=130_000_000, per_pixel=150, default=1_450_000_000),
    ("alex", "fp16"): Cost(fixed=130_000_000, per_pixel=170, default=1_450_000_000),
    ("alex", "int8"): Cost(fixed=130_000_000, per_pixel=150, default=1_450_000_000),
    ("squeeze", "fp32"): Cost(fixed=130_000_000, per_pixel=570, default=1_450_000_000),
    ("squeeze", "fp16"): Cost(fixed=130_000_000, per_pixel=650, default=1_450_000_000),
    ("squeeze", "int8"): Cost(fixed=130_000_000, per_pixel=570, default=1_450_000_000),
    ("vgg", "fp32"): Cost(fixed=340_000_000, per_pixel=2300, default=2_900_000_000),
    ("vgg", "fp16"): Cost(fixed=340_000_000, per_pixel=2600, default=2_900_000_000),
    ("vgg", "int8"): Cost(fixed=160_000_000, per_pixel=2400, default=2_900_000_000),
}

# Bytes per pixel of a pair that its maps take after the run, while lpips-score draws them.
_DRAWN = 32


@dataclass(frozen=True)
class Memory:
    """The limit of a Scorer. limit: bytes that one call may take at its peak, ONNX Runtime, the open model and the
    call's images included. strict: refuse what does not fit; else run it in the smallest parts that are sensible."""

    info: ModelInfo
    limit: int
    strict: bool

    @classmethod
    def of(cls, info: ModelInfo, max_memory: int | str | None) -> Memory:
        """The limit that `max_memory` says: bytes, a size such as "1400MB", or None for the net's default.

        Raises UsageError if it says nothing of the kind, or too little for a single tile.
        """
        cost = _cost(info)
        if max_memory is None:
            return cls(info, cost.default, strict=False)
        limit = parse_size(max_memory) if isinstance(max_memory, str) else max_memory
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise UsageError(f"max_memory is {max_memory!r}; give bytes, or a size such as '1400MB'")
        least = cost.fixed + cost.per_pixel * (4 * info.halo) ** 2
        if limit < least:
            raise UsageError(
                f"max_memory (--max-memory) is {format_size(limit)}, too small for a tile of {info.net} "
                f"{info.precision}; give at least {format_size(least)}"
            )
        return cls(info, limit, strict=True)

    def part(self, reference: Batch, distorted: Batch, *, depths: bool) -> Part:
        """What to run at once of a checked pair of batches, so that the fewest pixels are computed.

        depths: whether their maps are kept. Raises ShapeError if they cannot be scored within the limit.
        """
        count, height, width = reference.count, reference.height, reference.width
        cost = _cost(self.info)
        held = cost.fixed + reference.pixels.nbytes + distorted.pixels.nbytes
        held += count * height * width * _DRAWN * depths
        room = self.limit - held if self.strict else max(self.limit - held, self.limit // 2)
        most = max(0, room) // cost.per_pixel
        if most >= height * width:
            return Part(min(count, most // (height * width)))
        sizes = {part: part.largest(height, width, self.info) for part in parts(height, width, self.info)}
        least = min(sizes.values())
        if self.strict and least > most:
            raise ShapeError(
                f"{count} pair{'s' * (count > 1)} of {width}x{height} cannot be scored in {format_size(self.limit)} of "
                f"memory; raise max_memory (--max-memory) to {format_size(held + least * cost.per_pixel)}, or cut them"
            )
        fitting = [part for part, size in sizes.items() if size <= max(most, least)]
        return min(fitting, key=lambda part: (part.computed(height, width, self.info), part.tiles))


def _cost(info: ModelInfo) -> Cost:
    return COSTS[info.net, info.precision]
