"""Arrays -> the tensor that a graph takes.

`as_batch` checks one array and settles its layout and range, `check_pair` checks two against each other
and the model, `to_tensor` makes what the graph's input wants. Nothing is guessed: an array whose layout or
range is in doubt is a ShapeError that says how to state it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ShapeError

__all__ = ["ONE_SIZE", "Batch", "as_batch", "check_pair", "check_size", "to_tensor"]

ONE_SIZE = "LPIPS compares images of one size, resize or crop one of them"


@dataclass(frozen=True)
class _Layout:
    """How arrays of a dtype hold one image, and the layout that they are most often confused with."""

    axes: str
    channel_axis: int
    other_axes: str
    other_channel_axis: int
    to_this: tuple[int, ...]  # transposes one image from the other layout

    def transpose(self, ndim: int) -> str:
        """The call that brings an array of the other layout, with or without a batch axis, into this one."""
        axes = self.to_this if ndim == 3 else (0, *(axis + 1 for axis in self.to_this))
        return f"transpose({', '.join(map(str, axes))})"


_HWC = _Layout("HWC", -1, "CHW", -3, (1, 2, 0))
_CHW = _Layout("CHW", -3, "HWC", -1, (2, 0, 1))
_LAYOUTS = {"uint8": _HWC, "float16": _CHW, "float32": _CHW, "float64": _CHW}

# What is done to values of each range to bring them to [-1, 1]: value * factor + offset.
_TO_SYMMETRIC = {(0.0, 1.0): (2, -1), (-1.0, 1.0): (1, 0)}
_RANGES = "value_range=(0, 1) or value_range=(-1, 1)"

_CHANNEL_ADVICE = {
    1: "repeat the gray channel three times",
    2: "drop the alpha channel and repeat the gray one three times",
    4: "drop the alpha channel or composite it over a background",
}


@dataclass(frozen=True, eq=False)
class Batch:
    """Checked images of one size.

    pixels: uint8 [N, H, W, 3], RGB 0..255, or float32 [N, 3, H, W], RGB in [-1, 1]; it may share memory with
    the caller's array and need not be contiguous. single: the caller gave one image without a batch axis, so
    N is 1.
    """

    pixels: np.ndarray
    single: bool

    @property
    def count(self) -> int:
        """Number of images N."""
        return self.pixels.shape[0]

    @property
    def height(self) -> int:
        """Height of each image in pixels."""
        return self.pixels.shape[1 if self.pixels.dtype == np.uint8 else 2]

    @property
    def width(self) -> int:
        """Width of each image in pixels."""
        return self.pixels.shape[2 if self.pixels.dtype == np.uint8 else 3]


def as_batch(array: Any, name: str, *, value_range: Sequence[float] | None = None) -> Batch:
    """Check one array of images.

    array: uint8 [H, W, 3] or [N, H, W, 3], RGB 0..255; or float16, float32 or float64 [3, H, W] or
    [N, 3, H, W], RGB in `value_range`. Any strides and byte order; besides numpy arrays whatever converts
    itself to one (PIL images, torch tensors on the CPU). name: what errors call it ("reference",
    "distorted"). value_range: (0, 1) or (-1, 1), required for float arrays, not allowed for uint8.

    Float values x of (0, 1) become 2 x - 1, in float32 as the reference's `normalize=True` does it; float64
    is scaled first and then rounded to float32.

    Raises ShapeError for every other dtype, rank, number or place of channels, for empty batches and sides,
    for a missing or unknown range, and for values that are not finite or not in the range.
    """
    array = _as_array(array, name)
    layout = _LAYOUTS.get(array.dtype.name)
    if layout is None:
        raise ShapeError(
            f"{name}: dtype {array.dtype} is not an image's; give uint8 (0..255, [H, W, 3] or [N, H, W, 3]) "
            f"or float16, float32 or float64 ([3, H, W] or [N, 3, H, W], with {_RANGES})"
        )
    _check_shape(array.shape, layout, f"{name}: {array.dtype.name} array of shape {array.shape}")
    pixels = array if array.ndim == 4 else array[np.newaxis]
    if array.dtype == np.uint8:
        if value_range is not None:
            raise ShapeError(f"{name}: uint8 arrays are 0..255; leave out value_range={value_range!r}")
    else:
        pixels = _symmetric(pixels, array, name, value_range)
    return Batch(pixels, single=array.ndim == 3)


def to_tensor(batch: Batch, input_type: str) -> np.ndarray:
    """Make the graph's input of a batch, C-contiguous; it may share memory with the batch.

    input_type: `ModelInfo.input`. "float32" gives float32 [N, 3, H, W] in [-1, 1], uint8 values v becoming
    v / 127.5 - 1 rounded once to float32; "uint8" gives uint8 [N, H, W, 3].

    Raises ShapeError if the model takes uint8 and the batch is float: quantizing it would be a silent change.
    """
    if input_type not in ("float32", "uint8"):
        raise ValueError(f"input_type is {input_type!r}, not 'float32' or 'uint8'")
    if batch.pixels.dtype == input_type:
        return np.ascontiguousarray(batch.pixels)
    if input_type == "uint8":
        raise ShapeError("this model takes uint8 images (exported with --input uint8); give uint8 arrays")
    # v - 127.5 is exact in float32 and the division rounds once, so this is float32(v / 127.5 - 1) to the
    # bit, in half the time of a table of 256 entries (numpy widens the indices of a lookup to 64 bits).
    tensor = np.empty((batch.count, 3, batch.height, batch.width), np.float32)
    tensor[...] = batch.pixels.transpose(0, 3, 1, 2)
    tensor -= np.float32(127.5)
    tensor /= np.float32(127.5)
    return tensor


def check_pair(reference: Batch, distorted: Batch, min_size: int, net: str) -> None:
    """Check two batches against each other and against the model's smallest side.

    min_size: `ModelInfo.min_size` in pixels, net: `ModelInfo.net`; below min_size the reference raises, and
    ONNX Runtime returns numbers or dies. Raises ShapeError for counts or sizes that differ and for images too
    small.
    """
    if reference.count != distorted.count:
        raise ShapeError(
            f"reference holds {_images(reference.count)}, distorted {_images(distorted.count)}; "
            "pairs need as many of each, repeat or leave out some"
        )
    if (reference.height, reference.width) != (distorted.height, distorted.width):
        raise ShapeError(
            f"reference is {_size(reference)}, distorted is {_size(distorted)} (width x height); {ONE_SIZE}"
        )
    check_size(reference, min_size, net)


def check_size(batch: Batch, min_size: int, net: str) -> None:
    """Raise ShapeError for images below the model's smallest side, `ModelInfo.min_size` in pixels."""
    if min(batch.height, batch.width) < min_size:
        raise ShapeError(
            f"images are {_size(batch)} (width x height); {net} needs at least {min_size}x{min_size}, give larger ones"
        )


def _as_array(array: Any, name: str) -> np.ndarray:
    # np.asarray of a masked array hands out the values under the mask.
    if hasattr(array, "mask") and isinstance(array, np.ndarray):
        raise ShapeError(f"{name}: a masked array; LPIPS needs every pixel, fill it with .filled(value)")
    if isinstance(array, np.ndarray):
        return np.asarray(array)
    kind = f"{type(array).__module__}.{type(array).__qualname__}".removeprefix("builtins.")
    # PIL images have the interface, torch tensors the method; lists have neither, numpy would guess a dtype.
    if isinstance(array, type) or not (hasattr(array, "__array__") or hasattr(array, "__array_interface__")):
        raise ShapeError(f"{name}: {kind} is not an array; give a numpy array")
    try:
        return np.asarray(array)
    except Exception as error:  # whatever foreign code raises: torch alone knows TypeError, RuntimeError
        reason = " ".join(str(error).split())[:200]
        raise ShapeError(
            f"{name}: {kind} does not convert to a numpy array ({reason}); "
            "for a torch tensor give tensor.detach().cpu().float().numpy()"
        ) from error


def _check_shape(shape: tuple[int, ...], layout: _Layout, found: str) -> None:
    axes = ", ".join(layout.axes).replace("C", "3")
    needed = f"[{axes}] or [N, {axes}]"
    if len(shape) == 2:
        channel_axis = layout.axes.index("C")
        raise ShapeError(
            f"{found} has no channel axis, {needed} is needed; for gray images give "
            f"np.stack([x, x, x], axis={channel_axis})"
        )
    if len(shape) not in (3, 4):
        raise ShapeError(f"{found} has {len(shape)} axes; {needed} is needed")
    channels = shape[layout.channel_axis]
    if channels != 3:
        if shape[layout.other_channel_axis] == 3:
            raise ShapeError(
                f"{found} looks like {layout.other_axes}, {needed} is needed; give array.{layout.transpose(len(shape))}"
            )
        advice = _CHANNEL_ADVICE.get(channels, "give RGB")
        raise ShapeError(f"{found} has {channels} channels, {needed} is needed; {advice}")
    if len(shape) == 4 and shape[0] == 0:
        raise ShapeError(f"{found} holds no image; give at least one")
    if 0 in shape:
        raise ShapeError(f"{found} has a side of 0 pixels; give images with pixels")


def _symmetric(pixels: np.ndarray, array: np.ndarray, name: str, value_range: Sequence[float] | None) -> np.ndarray:
    """Float [N, 3, H, W] in value_range -> float32 in [-1, 1]; errors give indices of the caller's array."""
    (low, high), (factor, offset) = _scaling(name, value_range)
    found_low, found_high = array.min(), array.max()
    # NaN and infinity show in the extremes, so that good arrays are read only twice.
    if not (np.isfinite(found_low) and np.isfinite(found_high)):
        bad = ~np.isfinite(array)
        first = tuple(map(int, np.argwhere(bad)[0]))
        count = int(np.count_nonzero(bad))
        raise ShapeError(
            f"{name}: {count} of {array.size} values {'is' if count == 1 else 'are'} not finite, the first "
            f"({array[first]}) at index {first}; LPIPS needs finite values, repair whatever made them"
        )
    if found_low < low or found_high > high:
        raise ShapeError(
            f"{name}: values from {found_low} to {found_high} do not fit value_range=({low:g}, {high:g}); "
            f"state the true range, or clip them with np.clip(x, {low:g}, {high:g})"
        )
    # Float16 has too few digits to scale in; float64 is rounded once, after the scaling.
    wide = pixels.astype(np.float64 if array.dtype.itemsize == 8 else np.float32, copy=False)
    if factor != 1:
        wide = wide * factor
        wide += offset
    return np.ascontiguousarray(wide, dtype=np.float32)


def _scaling(name: str, value_range: Sequence[float] | None) -> tuple[tuple[float, float], tuple[int, int]]:
    if value_range is None:
        raise ShapeError(f"{name}: float arrays must state their range; give {_RANGES}")
    try:
        low, high = (float(end) for end in value_range)
        return (low, high), _TO_SYMMETRIC[low, high]
    except (TypeError, ValueError, KeyError):
        raise ShapeError(
            f"{name}: value_range={value_range!r} is not known; rescale the values and give {_RANGES}"
        ) from None


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _size(batch: Batch) -> str:
    return f"{batch.width}x{batch.height}"
