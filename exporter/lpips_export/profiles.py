"""The engine that is asked for: the shapes it takes, what it may use, what it must be compatible with.

Knows neither torch nor TensorRT, so that a wrong call is told before either is loaded.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpips_runtime.errors import UsageError
from lpips_runtime.plan import Profile, Shape, parse_shape
from lpips_runtime.sizes import parse_size

from .errors import SpecError

__all__ = ["EngineSpec", "engine_spec"]

# The shape that most LPIPS figures in papers are of, one pair at a time.
_OPT: Shape = (1, 256, 256)
# Whoever runs a plan reserves device memory for its largest shape, however small the images are: for this one 0.4 GB
# (alex), 1.3 GB (squeeze) or 6.2 GB (vgg) in float32, as much as one pair of 2048x2048. Small batches fit, and most
# test images; larger ones are asked for with --max.
_MAX: Shape = (4, 1024, 1024)

# The images alone would take 1.5 TB, and TensorRT builds an engine for them all the same.
_MOST_PIXELS = 1 << 36

_DIMENSIONS = ("pairs", "height", "width")


@dataclass(frozen=True)
class EngineSpec:
    """A TensorRT engine to be built. Shapes are pairs of images x height x width in pixels.

    min, opt, max: of each optimisation profile, or empty for the defaults; those that are given are equally many.
    workspace: most bytes of device memory that the engine may work in, None for all there is. timing_cache: file that
    remembers what earlier builds measured. version_compatible: later TensorRT versions can read the plan.
    hardware_compatible: GPUs from Ampere on can.

    Raises SpecError for shapes that no profile can have, and for different numbers of them.
    """

    min: tuple[Shape, ...] = ()
    opt: tuple[Shape, ...] = ()
    max: tuple[Shape, ...] = ()
    workspace: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        counts = {option: len(shapes) for option, shapes in self._given().items()}
        if len(set(counts.values())) > 1:
            numbers = ", ".join(f"{option} {count}" for option, count in counts.items())
            raise SpecError(f"different numbers of shapes ({numbers}); give each option once per profile, in order")
        for option, shapes in self._given().items():
            for shape in shapes:
                if shape[0] < 1:
                    raise SpecError(f"{option} {_text(shape)}: a batch holds at least one pair; give 1x... or more")
                if math.prod(shape) > _MOST_PIXELS:
                    raise SpecError(f"{option} {_text(shape)}: no GPU has the memory for such images; give less")
        options = list(self._given().items())
        for k, (lower_option, lowers) in enumerate(options):
            for upper_option, uppers in options[k + 1 :]:
                for lower, upper in zip(lowers, uppers, strict=True):
                    _check_order(f"{lower_option} {_text(lower)}", lower, f"{upper_option} {_text(upper)}", upper)

    def _given(self) -> dict[str, tuple[Shape, ...]]:
        every = {"--min": self.min, "--opt": self.opt, "--max": self.max}
        return {option: shapes for option, shapes in every.items() if shapes}

    def profiles(self, net: str, min_size: int) -> tuple[Profile, ...]:
        """The optimisation profiles for a net whose smallest side is `min_size` pixels, at least one.

        What was not given: min is one pair of the smallest size; max is 4x1024x1024, or opt where that is larger; opt
        is 1x256x256, moved into what min and max leave. Raises SpecError for a side below the smallest.
        """
        for option, shapes in self._given().items():
            for shape in shapes:
                if min(shape[1:]) < min_size:
                    least = (shape[0], *(max(side, min_size) for side in shape[1:]))
                    raise SpecError(
                        f"{option} {_text(shape)}: {net} takes no side below {min_size} pixels; "
                        f"give at least {_text(least)}"
                    )
        count = max((len(shapes) for shapes in self._given().values()), default=1)
        found = []
        for k in range(count):
            low = self.min[k] if self.min else (1, min_size, min_size)
            opt = self.opt[k] if self.opt else None
            high = self.max[k] if self.max else _each(max, _MAX, _each(max, low, opt or low))
            found.append(Profile(low, opt or _each(max, low, _each(min, _OPT, high)), high))
        return tuple(found)


def engine_spec(
    min_shapes: Sequence[str] | None,
    opt_shapes: Sequence[str] | None,
    max_shapes: Sequence[str] | None,
    workspace: str | None,
    timing_cache: str | None,
    version_compatible: bool,
    hardware_compatible: bool,
) -> EngineSpec:
    """The specification that the options of the command line make. Raises SpecError, naming the option."""
    shapes = {"--min": min_shapes, "--opt": opt_shapes, "--max": max_shapes}
    parsed: dict[str, tuple[Shape, ...]] = {}
    for option, texts in shapes.items():
        try:
            parsed[option] = tuple(parse_shape(text) for text in texts or ())
        except UsageError as error:
            raise SpecError(f"{option}: {error}") from error
    try:
        size = None if workspace is None else parse_size(workspace)
    except UsageError as error:
        raise SpecError(f"--workspace: {error}") from error
    return EngineSpec(
        *(parsed["--min"], parsed["--opt"], parsed["--max"]),
        *(size, None if timing_cache is None else Path(timing_cache), version_compatible, hardware_compatible),
    )


def _check_order(lower_name: str, lower: Shape, upper_name: str, upper: Shape) -> None:
    for dimension, low, high in zip(_DIMENSIONS, lower, upper, strict=True):
        if low > high:
            raise SpecError(
                f"{lower_name} is above {upper_name} in {dimension} ({low} > {high}); lower the one or raise the other"
            )


def _each(choose: Callable[[int, int], int], one: Shape, other: Shape) -> Shape:
    return choose(one[0], other[0]), choose(one[1], other[1]), choose(one[2], other[2])


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
