"""The full-size spatial map from the depths' own maps: bilinear, as the reference draws it.

The arithmetic is that of `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`: position i
of the output lies at max((i + 0.5) h / H - 0.5, 0) of the source, and rows are interpolated before columns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import ShapeError

__all__ = ["spatial_map", "upsample"]

# Output values made at a time: the temporaries of a block stay in the processor's cache, which is what makes
# this fast, and memory beyond the result stays small.
_BLOCK_VALUES = 1 << 17

_Map = NDArray[np.float32]


def upsample(depth: _Map, height: int, width: int) -> _Map:
    """Resize `depth`, float32 [N,h,w], to float32 [N,height,width] (bilinear, align_corners=False).

    Either side may grow or shrink; as in torch, shrinking does not average over the pixels that it skips.
    Every value lies between the smallest and the largest of its image, up to rounding. Raises ShapeError if
    `depth` is not float32 of three axes with at least one pixel, or a side is below 1.
    """
    return spatial_map([depth], height, width)


def spatial_map(depths: Sequence[_Map], height: int, width: int) -> _Map:
    """The reference's spatial map, float32 [N,height,width]: the sum, in order, of all depths resized to it.

    `depths` are float32 [N,h_k,w_k], the outputs `depth_k` of a graph. Raises ShapeError as `upsample` does,
    and if there is no depth or the depths differ in N.
    """
    _check(depths, height, width)
    total = np.empty((len(depths[0]), height, width), np.float32)
    for k, depth in enumerate(depths):
        for image, source in zip(total, depth, strict=True):
            _resize_into(image, source, add=k > 0)
    return total


def _check(depths: Sequence[_Map], height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ShapeError(f"cannot resize a map to {height}x{width}; both sides must be at least 1")
    if not depths:
        raise ShapeError("no depth to make a spatial map of; ask the model for its depth outputs")
    for k, depth in enumerate(depths):
        if depth.ndim != 3 or depth.dtype != np.float32 or 0 in depth.shape[1:]:
            raise ShapeError(
                f"depth {k} is {depth.dtype} {list(depth.shape)}; it must be float32 [N,h,w] with h, w >= 1"
            )
        if len(depth) != len(depths[0]):
            raise ShapeError(f"depth {k} holds {len(depth)} images, depth 0 holds {len(depths[0])}")


def _resize_into(image: _Map, source: _Map, add: bool) -> None:
    """Write, or add, `source` [h,w] resized to `image` [H,W]."""
    height, width = image.shape
    left, right, share = _taps(source.shape[1], width)
    rows = np.take(source, left, axis=1) * (np.float32(1) - share)
    rows += np.take(source, right, axis=1) * share

    above, below, share = _taps(source.shape[0], height)
    rest = np.float32(1) - share
    step = max(1, _BLOCK_VALUES // width)
    for start in range(0, height, step):
        block = slice(start, start + step)
        made = rows[above[block]]
        made *= rest[block, None]
        lower = rows[below[block]]
        lower *= share[block, None]
        made += lower
        if add:
            image[block] += made
        else:
            image[block] = made


def _taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], _Map]:
    """Per position of `target`: its two neighbours among `source` positions, and the second one's weight."""
    # torch rounds the scale to float32 and then computes centre * scale - 0.5 with one rounding (a fused
    # multiply-add), which float64 gives as well. Rounding twice moves the weights by 6e-5 at 4K.
    scale = np.float64(np.float32(source) / np.float32(target))
    centre = np.arange(target) + 0.5
    position = np.maximum(centre * scale - 0.5, 0).astype(np.float32)
    first = np.minimum(position.astype(np.intp), source - 1)
    return first, np.minimum(first + 1, source - 1), position - first.astype(np.float32)
