"""The picture: where two images differ, drawn over the distorted one, with a scale to read values off.

Import this module only where a picture is drawn: it is the one that needs Pillow's fonts.
"""

import math
import os
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .errors import OutputError, ShapeError, UsageError
from .output import replacing

__all__ = ["HEATMAP_FORMATS", "render", "save_heatmap"]

# Pillow's name of the format and its options, by suffix.
HEATMAP_FORMATS: dict[str, tuple[str, dict[str, int]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".bmp": ("BMP", {}),
}

# Colours by share of the scale. Their CIE lightness rises evenly, so that lighter is always more, and it
# starts about as high as the dimmed image lies, so that colour does not darken what it covers.
_ANCHORS = (
    (0.00, (62, 44, 144)),
    (0.16, (130, 50, 162)),
    (0.32, (206, 54, 120)),
    (0.55, (246, 122, 64)),
    (0.80, (255, 196, 84)),
    (1.00, (255, 250, 214)),
)
_DIMMED = 0.42  # of the luminance of the image below
_OPAQUE = 0.92  # share of colour at the top of the scale; the image shines through a little
_FADE = 0.5  # exponent: how fast colour comes in from the bottom of the scale

_PAPER = (22, 22, 26)
_INK = (232, 232, 236)
_CAPTION = "LPIPS per pixel"

# Pixels. Images with a short side below _SHORT are enlarged, as long as their long side stays below _LONG.
_SHORT, _LONG = 384, 1024
_SMALLEST_TEXT = 15
_FINER = 4  # text is drawn so many times larger and reduced: letters then keep their distances at small sizes


def render(
    spatial_map: NDArray[np.float32],
    distorted: NDArray[np.uint8],
    *,
    title: str,
    vmax: float | None = None,
) -> Image.Image:
    """Draw a spatial map over its distorted image, beside it the colour scale, above it the title.

    `spatial_map` is float32 [H,W], finite and not negative; `distorted` uint8 [H,W,3], RGB. The scale runs
    from 0 to `vmax`, by default the map's maximum; larger values take the top colour, and a + says so. An
    image below some 384 pixels is enlarged by a whole factor, without smoothing, so that the writing fits; a
    larger one keeps its pixels. A title that is too long for the picture is wrapped.

    Returns an RGB image. Raises ShapeError if sizes or dtypes do not fit or a value of the map is out of
    range, UsageError if `vmax` is not a positive number.
    """
    _check(spatial_map, distorted, vmax)
    peak = spatial_map.max()
    top = peak if vmax is None else np.float32(vmax)
    height, width = spatial_map.shape
    factor = max(1, min(_SHORT // min(height, width), _LONG // max(height, width)))
    picture = _overlay(spatial_map, distorted, top)
    picture = picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    size = max(_SMALLEST_TEXT, round(math.sqrt(picture.width * picture.height) / 50))
    bar = _colour_bar(top, max(picture.height, 11 * size), size, exceeded=bool(peak > top))
    return _page(picture, bar, title, size)


def save_heatmap(path: str | os.PathLike[str], image: Image.Image) -> None:
    """Write the picture in the format that the suffix names, one of HEATMAP_FORMATS, in one step.

    Raises OutputError if the suffix is another one or the file cannot be written; then `path` is unchanged.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in HEATMAP_FORMATS:
        raise OutputError(
            f"{os.fspath(path)}: no picture format goes by the suffix {suffix!r}; "
            f"use one of {', '.join(HEATMAP_FORMATS)}"
        )
    name, options = HEATMAP_FORMATS[suffix]
    with replacing(path) as file:
        try:
            image.save(file, name, **options)
        except (OSError, ValueError) as error:  # ValueError: larger than the format can hold
            raise OutputError(f"{os.fspath(path)}: cannot be written as {name}: {error}") from error


def _check(values: NDArray[np.float32], distorted: NDArray[np.uint8], vmax: float | None) -> None:
    if values.dtype != np.float32 or values.ndim != 2 or not values.size:
        raise ShapeError(f"the map is {values.dtype} {list(values.shape)}; it must be float32 [H,W]")
    if distorted.dtype != np.uint8 or distorted.shape != (*values.shape, 3):
        raise ShapeError(
            f"the distorted image is {distorted.dtype} {list(distorted.shape)}; "
            f"for this map it must be uint8 {[*values.shape, 3]}"
        )
    if not (values.min() >= 0 and values.max() < np.inf):
        raise ShapeError(f"the map runs from {values.min()} to {values.max()}; values must be finite and not negative")
    if vmax is not None and not 0 < np.float32(vmax) < np.inf:
        raise UsageError(f"the top of the scale is {vmax}; it must be a positive number")


@cache
def _colours() -> NDArray[np.uint8]:
    """RGB of 256 steps of the scale, uint8 [256,3]."""
    places, anchors = zip(*_ANCHORS, strict=True)
    steps = np.linspace(0, 1, 256)
    channels = [np.interp(steps, places, channel) for channel in zip(*anchors, strict=True)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


@cache
def _opacities() -> NDArray[np.uint8]:
    return np.rint(255 * _OPAQUE * np.linspace(0, 1, 256) ** _FADE).astype(np.uint8)


def _coloured(steps: NDArray[np.uint8], below: Image.Image) -> Image.Image:
    """Colour of each step of the scale, uint8 [H,W], over the gray image `below`."""
    colour = Image.fromarray(_colours()[steps])
    return Image.composite(colour, below.convert("RGB"), Image.fromarray(_opacities()[steps]))


def _overlay(values: NDArray[np.float32], distorted: NDArray[np.uint8], top: np.float32) -> Image.Image:
    # An all-zero map has no scale: everything is at its bottom.
    share = np.minimum(values, top) / (top if top > 0 else np.float32(1))
    steps = np.rint(255 * share).astype(np.uint8)
    dimmed = Image.fromarray(distorted).convert("L").point([round(_DIMMED * level) for level in range(256)])
    return _coloured(steps, dimmed)


@dataclass(frozen=True)
class _Bar:
    """The scale as a picture of its own. The bar itself lies `overhang` below its upper edge."""

    image: Image.Image
    overhang: int


def _colour_bar(top: np.float32, height: int, size: int, exceeded: bool) -> _Bar:
    width, tick, gap = round(1.2 * size), round(0.35 * size), round(0.3 * size)
    steps = np.rint(np.linspace(255, 0, height)).astype(np.uint8)[:, None].repeat(width, axis=1)
    bar = _coloured(steps, Image.new("L", (width, height), round(_DIMMED * 128)))

    marks = [(0.0, "0")]
    if top > 0:
        marks += _ticks(float(top), height / (1.6 * size))
        marks.append((float(top), _plain(f"{top:.3g}") + "+" * exceeded))
    labels = [
        (round((height - 1) * (1 - (value / float(top) if top > 0 else 0))), _text(text, size)) for value, text in marks
    ]
    caption = _text(_CAPTION, size).rotate(90, expand=True)

    overhang = labels[0][1].height
    column = width + tick + gap + max(label.width for _, label in labels)
    image = Image.new("RGB", (column + 2 * gap + caption.width, height + 2 * overhang), _PAPER)
    image.paste(bar, (0, overhang))
    draw = ImageDraw.Draw(image)
    thickness = max(1, size // 14)
    for y, label in labels:
        line = min(max(y - thickness // 2, 0), height - thickness) + overhang
        draw.rectangle((width, line, width + tick, line + thickness - 1), fill=_INK)
        image.paste(_INK, (width + tick + gap, y + overhang - label.height // 2), label)
    image.paste(_INK, (column + 2 * gap, overhang + (height - caption.height) // 2), caption)
    return _Bar(image, overhang)


def _ticks(top: float, room: float) -> list[tuple[float, str]]:
    """Round values between 0 and `top`, with their labels; `room` is how many labels fit on the bar."""
    magnitude = math.floor(math.log10(top)) - 1
    # At most half of the room is used, and the last tick must leave room for the label at the top.
    exponent, step = next(
        (exponent, digit * 10.0**exponent)
        for exponent in (magnitude, magnitude + 1, magnitude + 2)
        for digit in (1, 2, 5)
        if top / (digit * 10.0**exponent) <= max(1.0, min(room / 2, 8))
    )
    count = math.ceil(top * (1 - 1 / room) / step)
    return [(k * step, _written(k * step, exponent)) for k in range(1, count)]


def _written(value: float, exponent: int) -> str:
    """`value` with its last digit at 10**exponent."""
    if -4 <= exponent <= 4:
        return f"{value:.{max(0, -exponent)}f}"
    first = int(f"{value:.9e}".partition("e")[2])
    return _plain(f"{value:.{first - exponent}e}")


def _plain(number: str) -> str:
    return number.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _page(picture: Image.Image, bar: _Bar, title: str, size: int) -> Image.Image:
    margin = size
    large = round(1.15 * size)
    body = picture.width + margin + bar.image.width
    lines = [_text(line, large) for line in _wrapped(title, large, max(body, 16 * size))]
    bar_height = bar.image.height - 2 * bar.overhang

    width = max(body, *(line.width for line in lines)) + 2 * margin
    top = margin + sum(line.height for line in lines) + bar.overhang
    page = Image.new("RGB", (width, top + bar_height + max(margin, bar.overhang)), _PAPER)
    y = margin
    for line in lines:
        page.paste(_INK, (margin, y), line)
        y += line.height
    page.paste(bar.image, (margin + picture.width + margin, top - bar.overhang))
    page.paste(picture, (margin, top + (bar_height - picture.height) // 2))
    return page


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels; a word that is longer loses its middle."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _width(joined, size) <= width:
            lines[-1] = joined
        else:
            lines.append(_shortened(word, size, width))
    return lines or [""]


def _shortened(word: str, size: int, width: int) -> str:
    if _width(word, size) <= width:
        return word

    def keep(count: int) -> str:
        return f"{word[: (count + 1) // 2]}...{word[len(word) - count // 2 :]}"

    return keep(bisect_right(range(len(word)), width, key=lambda count: _width(keep(count), size)) - 1)


def _width(text: str, size: int) -> int:
    return _text(text, size).width


def _text(text: str, size: int) -> Image.Image:
    """`text` in one line as a mask, height the same for all texts of this size."""
    font = _font(_FINER * size)
    if isinstance(font, ImageFont.FreeTypeFont):
        height = sum(font.getmetrics())
    else:  # Pillow without FreeType has one small bitmap font, of Latin-1 alone
        text = text.encode("latin-1", "replace").decode("latin-1")
        height = 11
    mask = Image.new("L", (max(1, math.ceil(font.getbbox(text)[2])), height), 0)
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    if isinstance(font, ImageFont.FreeTypeFont):
        return mask.reduce(_FINER)
    factor = max(1, round(size / height))
    return mask.resize((mask.width * factor, mask.height * factor), Image.Resampling.NEAREST)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except ImportError:
        return ImageFont.load_default()
