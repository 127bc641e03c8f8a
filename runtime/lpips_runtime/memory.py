"""What a run takes in memory, and how a job is cut to stay within a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .arrays import Batch
from .contract import ModelInfo
from .errors import ShapeError, UsageError
from .sizes import format_size, parse_size
from .tiling import Part, parts

__all__ = ["COSTS", "SPLIT_COSTS", "Cost", "Memory", "SplitCost", "costs"]


class Cost(NamedTuple):
    """fixed: bytes of lpips-score with the model open. per_pixel: bytes that a run takes, at its peak and for each
    pixel of a pair, input tensors and depth maps included. default: the limit in bytes where none is asked for."""

    fixed: int
    per_pixel: int
    default: int


class SplitCost(NamedTuple):
    """What the --split graphs take. fixed: bytes, beside the pair graph. encoded: bytes per pixel of encoding an image,
    its features included. compared: of comparing two, their features and what encoding them leaves included.
    kept: of the features alone."""

    fixed: int
    encoded: int
    compared: int
    kept: int


# By net and precision, rounded up: the larger of both inputs and, for INT8, of both targets. Measured on the CPU
# provider, x86-64, ONNX Runtime 1.31 without memory patterns, by `python -m benchmarks memory --costs MODEL ...`.
# What a pixel takes depends on how well a size falls into the arena's blocks: the table holds the worst that was seen.
# The defaults hold a 4K pair on alex in one piece, and compute a third more pixels than it has on vgg (docs/memory.md).
COSTS = {
    ("alex", "fp32"): Cost(fixed=130_000_000, per_pixel=150, default=1_450_000_000),
    ("alex", "fp16"): Cost(fixed=130_000_000, per_pixel=170, default=1_450_000_000),
    ("alex", "int8"): Cost(fixed=130_000_000, per_pixel=150, default=1_450_000_000),
    ("squeeze", "fp32"): Cost(fixed=130_000_000, per_pixel=570, default=1_450_000_000),
    ("squeeze", "fp16"): Cost(fixed=130_000_000, per_pixel=650, default=1_450_000_000),
    ("squeeze", "int8"): Cost(fixed=130_000_000, per_pixel=570, default=1_450_000_000),
    ("vgg", "fp32"): Cost(fixed=350_000_000, per_pixel=2300, default=2_900_000_000),
    ("vgg", "fp16"): Cost(fixed=350_000_000, per_pixel=2600, default=2_900_000_000),
    ("vgg", "int8"): Cost(fixed=160_000_000, per_pixel=2400, default=2_900_000_000),
}

# By net, in float32, rounded up: as above, by `python -m benchmarks memory --costs`.
SPLIT_COSTS = {
    "alex": SplitCost(fixed=40_000_000, encoded=120, compared=210, kept=42),
    "squeeze": SplitCost(fixed=15_000_000, encoded=320, compared=700, kept=140),
    "vgg": SplitCost(fixed=180_000_000, encoded=1300, compared=2400, kept=488),
}

# By net, where OpenVINO takes more than the tables say: bytes per pixel of a run, and its own row of SPLIT_COSTS, by
# `python -m benchmarks memory --costs --provider openvino`. It was measured in float32, in which it takes most.
_OPENVINO = {
    "alex": (180, SplitCost(fixed=40_000_000, encoded=165, compared=275, kept=42)),
    "squeeze": (530, SplitCost(fixed=30_000_000, encoded=525, compared=915, kept=140)),
    "vgg": (1960, SplitCost(fixed=190_000_000, encoded=1920, compared=3160, kept=488)),
}
# What its library takes beside a model that is open.
_OPENVINO_FIXED = 50_000_000

# Bytes per pixel of a pair, decoded.
_PIXELS = 6
# What decoding the next pair takes, where no tensors of whole images have left room for it: Pillow's own four bytes per
# pixel of each image and the pixels of the pair before.
_DECODING = 14

# Pixels of pairs that wait, decoded ahead: this share of what the limit leaves beside the model, these bytes at most.
_AHEAD_SHARE = 64
_AHEAD_BYTES = 64 * 2**20

# Bytes per pixel of a pair that its maps take after the run, while lpips-score draws them.
_DRAWN = 32


@dataclass(frozen=True)
class Memory:
    """The limit of a Scorer. limit: bytes that one call may take at its peak, ONNX Runtime, the open model and the
    call's images included. strict: refuse what does not fit; else run it in the smallest parts that are sensible.
    cost, split: what a run of this model takes with its provider."""

    info: ModelInfo
    limit: int
    strict: bool
    cost: Cost
    split: SplitCost

    @classmethod
    def of(cls, info: ModelInfo, max_memory: int | str | None, provider: str = "cpu") -> Memory:
        """The limit that `max_memory` says: bytes, a size such as "1400MB", or None for the net's default.

        provider: that computes. On a GPU no more is taken than on the CPU, but of the GPU's memory.

        Raises UsageError if it says nothing of the kind, or too little for a single tile.
        """
        cost, split = costs(info, provider)
        if max_memory is None:
            return cls(info, cost.default, False, cost, split)
        limit = parse_size(max_memory) if isinstance(max_memory, str) else max_memory
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise UsageError(f"max_memory is {max_memory!r}; give bytes, or a size such as '1400MB'")
        tile = cost.per_pixel * (4 * info.halo) ** 2
        least = cost.fixed + _with_ahead(tile)
        if limit < least:
            raise UsageError(
                f"max_memory (--max-memory) is {format_size(limit)}, too small for a tile of {info.net} "
                f"{info.precision}; give at least {format_size(least)}, more for large images"
            )
        return cls(info, limit, True, cost, split)

    def part(self, reference: Batch, distorted: Batch, *, depths: bool) -> Part:
        """What to run at once of a checked pair of batches, so that the fewest pixels are computed.

        depths: whether their maps are kept. Raises ShapeError if they cannot be scored within the limit.
        """
        count, height, width = reference.count, reference.height, reference.width
        cost = self.cost
        held = cost.fixed + self.ahead + reference.pixels.nbytes + distorted.pixels.nbytes
        held += count * height * width * _DRAWN * depths
        most = self._room(held) // cost.per_pixel
        if most >= height * width:
            return Part(min(count, most // (height * width)))
        held += height * width * _DECODING
        most = self._room(held) // cost.per_pixel
        sizes = {part: part.largest(height, width, self.info) for part in parts(height, width, self.info)}
        least = min(sizes.values())
        if self.strict and least > most:
            needed = cost.fixed + _with_ahead(held - cost.fixed - self.ahead + least * cost.per_pixel)
            raise ShapeError(
                f"{count} pair{'s' * (count > 1)} of {width}x{height} cannot be scored in {format_size(self.limit)} of "
                f"memory; raise max_memory (--max-memory) to {format_size(needed)}, or cut them"
            )
        fitting = [part for part, size in sizes.items() if size <= max(most, least)]
        return min(fitting, key=lambda part: (part.computed(height, width, self.info), part.tiles))

    def _room(self, held: int) -> int:
        return max(0, self.limit - held, 0 if self.strict else self.limit // 2)

    @property
    def ahead(self) -> int:
        """Bytes that pairs which wait may take."""
        return min(_AHEAD_BYTES, max(0, self.limit - self.cost.fixed) // _AHEAD_SHARE)

    def together(self, height: int, width: int, *, depths: bool) -> int:
        """How many pairs of this size may be given to `part` so that their number does not decide whether they are cut
        into tiles; 1 at least."""
        cost, pixels = self.cost, height * width
        free = self.limit - cost.fixed - self.ahead - pixels * cost.per_pixel
        return max(1, free // (pixels * (_PIXELS + _DRAWN * depths)))

    def reused(self, height: int, width: int, *, depths: bool) -> int:
        """Bytes that encoding and comparing a pair leaves for the features of other images; below 0 it is too large."""
        cost, split = self.cost, self.split
        taken = height * width * (split.compared + _PIXELS + _DRAWN * depths)
        return self.limit - self.ahead - cost.fixed - split.fixed - taken

    def spare(self, height: int, width: int, *, depths: bool) -> int:
        """Bytes that a pair which is run as a whole leaves; below 0 it is too large."""
        cost, pixels = self.cost, height * width
        return self.limit - self.ahead - cost.fixed - pixels * (cost.per_pixel + _PIXELS + _DRAWN * depths)

    def check_encoded(self, count: int, height: int, width: int) -> None:
        """Raise ShapeError if encoding such images takes more than was asked for."""
        split = self.split
        self._check(
            f"{count} image{'s' * (count > 1)}", "encoded", height, width, split.encoded + split.kept * (count - 1)
        )

    def check_compared(self, height: int, width: int) -> None:
        """Raise ShapeError if comparing the features of such images takes more than was asked for."""
        self._check("features of images", "compared", height, width, self.split.compared)

    def _check(self, what: str, done: str, height: int, width: int, per_pixel: int) -> None:
        needed = self.cost.fixed + self.split.fixed + height * width * per_pixel
        if self.strict and needed > self.limit:
            raise ShapeError(
                f"{what} of {width}x{height} cannot be {done} in {format_size(self.limit)} of memory; raise max_memory "
                f"(--max-memory) to {format_size(needed)}, or score the images in pairs, which can be cut into tiles"
            )


def _with_ahead(taken: int) -> int:
    """What the limit must leave beside the model for so many bytes and the pairs that wait."""
    return taken + min(_AHEAD_BYTES, taken // (_AHEAD_SHARE - 1) + 1)


def costs(info: ModelInfo, provider: str) -> tuple[Cost, SplitCost]:
    """What runs of such a model take, and those of its --split graphs."""
    cost, split = COSTS[info.net, info.precision], SPLIT_COSTS[info.net]
    if provider != "openvino":
        return cost, split
    per_pixel, split = _OPENVINO[info.net]
    more = cost._replace(fixed=cost.fixed + _OPENVINO_FIXED, per_pixel=max(cost.per_pixel, per_pixel))
    return more, split
