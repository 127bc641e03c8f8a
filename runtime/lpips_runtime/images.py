"""Image file -> checked RGB.

Pillow decodes. This module decides which file may reach it, and checks what it hands back: several kinds of
file come out of Pillow as wrong pixels without a word. Hostile and broken files end in an ImageFileError or
ImageFormatError, never in another exception, a Python warning or a hang. (libtiff writes a line of its own to
stderr for a damaged compressed TIFF; Pillow 13 has no switch for that.)

Thread-safe: each call opens its own file, and nothing is shared but the warning filter of `mute_warnings`.
"""

import importlib
import logging
import os
import re
import stat
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as PILImage
from PIL import ImageColor, UnidentifiedImageError

from .errors import ImageFileError, InputError, TransparencyError, UsageError
from .pillow_checks import GRAY16, MAX_PIXELS, WITH_ALPHA, check_header, check_stream, raw_mode, transparent_value
from .quiet import mute_warnings

__all__ = [
    "EXTENSIONS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Image",
    "Note",
    "check_color",
    "file_state",
    "load_image",
    "parse_color",
]

# MAX_PIXELS of four 16-bit channels, uncompressed, stay below this; a sparse file need not.
MAX_BYTES = 2**31

EXTENSIONS = frozenset((".apng", ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"))


@dataclass(frozen=True)
class Note:
    """Something that the user of a file should know although it could be read.

    kind: stable key, one of gray16, rgb16, icc, mpo, exif; of a result, fast-math. text: the same for every file of
    a kind, without the file's name, so that a command can say it once with a count. about: what it is about where that
    is neither the image nor the same for all: a file of the store, and what is wrong with it.
    """

    kind: str
    text: str
    about: str = ""


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded file. pixels: uint8 [H, W, 3], RGB 0..255, C-contiguous, read-only. notes: one per kind. key: what
    a job knows the file by (see `reuse`).
    """

    pixels: np.ndarray
    notes: tuple[Note, ...]
    key: Hashable = None


_NOTES = {
    "gray16": "16-bit gray is rounded to 8 bits",
    "rgb16": "16-bit colour is cut to its high 8 bits",
    "icc": "the ICC colour profile is ignored, values are taken as sRGB",
    "mpo": "of a multi-picture JPEG the primary picture is used",
    "exif": "unreadable EXIF data is ignored, and with it any rotation",
}

# Pillow's name of the format, its plugin, the signature. Only the plugin of its own signature is let near a
# file. Importing that one by name keeps Image.open from importing every plugin there is for WebP and TIFF.
_FORMATS = (
    ("PNG", "PIL.PngImagePlugin", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("JPEG", "PIL.JpegImagePlugin", re.compile(rb"\xff\xd8\xff")),
    ("WEBP", "PIL.WebPImagePlugin", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("TIFF", "PIL.TiffImagePlugin", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("BMP", "PIL.BmpImagePlugin", re.compile(rb"BM")),
)

# x / 257 to the nearest integer; 257 is odd, so there are no ties.
_GRAY16_TO_8 = ((np.arange(65536) + 128) // 257).astype(np.uint8)
# EXIF orientation -> what makes the picture upright.
_UPRIGHT = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}

# Nanoseconds; file systems stamp the times of files with a clock that ticks every few milliseconds.
_TICK = 50_000_000

# What to say of an exception out of Pillow: the first row that fits.
_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (PILImage.DecompressionBombError, "too large ({reason}); scale it down or cut it first"),
    (UnidentifiedImageError, "a damaged {kind}, or a kind that Pillow cannot read; save it as 8-bit RGB"),
    (MemoryError, "does not fit into memory when decoded; scale it down or cut it first"),
    (Exception, "a damaged or truncated {kind} ({reason}); write it again"),
)

# Pillow logs one kind of damaged TIFF as an error, which logging's last resort would print.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load_image(path: str | os.PathLike[str], *, background: tuple[int, int, int] | None = None) -> Image:
    """Read a PNG, JPEG (MPO too), WebP, TIFF or BMP file as 8-bit RGB, upright.

    Gray and palettes become RGB; 16-bit gray is rounded to 8 bits, 16-bit colour cut to the high byte; EXIF
    orientation is applied; an ICC profile is ignored; of a multi-picture JPEG the primary picture is taken.
    background: RGB 0..255, put behind transparent pixels. Without it these are an error; an alpha channel
    that is opaque throughout is not.

    Raises ImageFileError if the file is missing, not a regular file, empty, of another format, damaged,
    truncated, or larger than MAX_PIXELS or MAX_BYTES; ImageFormatError if it has several frames or pages,
    or CMYK, CIELAB, float, 32-bit, 12-bit or signed values; TransparencyError, one of these, for transparent
    pixels; UsageError for a background that is no colour.
    """
    name = os.fsdecode(path)
    if background is not None:
        check_color(background, background)
    with _open_regular(Path(name), name) as file:
        try:
            head = file.read(16)
        except OSError as error:
            raise _unreadable(error, name) from error
        kind, plugin = next(((kind, plugin) for kind, plugin, mark in _FORMATS if mark.match(head)), ("", ""))
        if not kind:
            raise ImageFileError(f"{name}: not a PNG, JPEG, WebP, TIFF or BMP image; convert it to one of them")
        importlib.import_module(plugin)
        try:
            with mute_warnings():
                return _decode(file, kind, name, background)
        except InputError:
            raise
        except Exception as error:
            # As broad as this: besides OSError, Pillow lets through whatever its Python runs into on a
            # hostile file (SyntaxError, ValueError, struct.error, zlib.error, EOFError, OverflowError, ...).
            reason = " ".join(str(error).split())[:120]
            said = next(said for failure, said in _FAILURES if isinstance(error, failure))
            raise ImageFileError(f"{name}: {said.format(kind=kind, reason=reason)}") from error


def file_state(path: Path) -> Hashable:
    """What a file's content is known by, its path, size and times, for whoever keeps what was read from it.

    Something that equals nothing else if the file is missing, or was written so lately that it could be written again
    within the same tick of the clock.
    """
    try:
        state = path.stat()
    except (OSError, ValueError):  # it will be reported when it is read
        return object()
    if abs(time.time_ns() - state.st_mtime_ns) < _TICK:
        return object()
    return os.fspath(path), state.st_mtime_ns, state.st_size, state.st_dev, state.st_ino


def parse_color(text: str) -> tuple[int, int, int]:
    """Read a colour as `--background` takes it, a CSS name or #rrggbb -> RGB 0..255.

    Raises UsageError for anything else, and for a colour with an alpha value.
    """
    try:
        color = ImageColor.getrgb(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a colour; give a name such as white, or #rrggbb") from None
    if len(color) != 3:
        raise UsageError(f"the colour {text!r} has an alpha value; a background is opaque, give #rrggbb")
    return check_color(color, text)


def check_color(color: Sequence[int], said: object) -> tuple[int, int, int]:
    """The colour, RGB 0..255, or a UsageError that names it as it was `said`."""
    if len(color) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in color):
        raise UsageError(f"{said!r} is not a colour; give red, green and blue from 0 to 255")
    red, green, blue = color
    return red, green, blue


def _open_regular(path: Path, name: str) -> BinaryIO:
    try:
        # Before opening it: opening a FIFO waits for its writer.
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(error, name) from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageFileError(f"{name}: is a folder, an image file is needed")
    if not stat.S_ISREG(status.st_mode):
        raise ImageFileError(f"{name}: is a pipe, socket or device; save the image as a file first")
    if status.st_size == 0:
        raise ImageFileError(f"{name}: is empty (0 bytes); write it again")
    if status.st_size > MAX_BYTES:
        raise ImageFileError(f"{name}: is {status.st_size:,} bytes large, the limit is {MAX_BYTES:,}; cut it first")
    try:
        return open(path, "rb")
    except OSError as error:
        raise _unreadable(error, name) from error


def _unreadable(error: OSError | ValueError, name: str) -> ImageFileError:
    if isinstance(error, FileNotFoundError):
        return ImageFileError(f"{name}: no such file; check the path")
    if isinstance(error, PermissionError):
        return ImageFileError(f"{name}: permission denied; make the file readable")
    return ImageFileError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})")


def _decode(file: BinaryIO, kind: str, name: str, background: tuple[int, int, int] | None) -> Image:
    notes = set()
    with PILImage.open(file, formats=(kind,)) as im:
        check_header(im, kind, name)
        check_stream(file, kind)
        stored = raw_mode(im, kind)
        im.load()
        if ";16" in stored:
            notes.add("gray16" if im.mode in GRAY16 else "rgb16")
        if im.info.get("icc_profile"):
            notes.add("icc")
        if im.format == "MPO":
            notes.add("mpo")
        key = transparent_value(im, stored, name)
        pixels, alpha = _rgb_and_alpha(_upright(im, notes), key)
    if alpha is not None and alpha.min() < 255:
        pixels = _composite(pixels, alpha, background, name)
    pixels = np.ascontiguousarray(pixels)
    pixels.flags.writeable = False
    return Image(pixels, tuple(Note(key, text) for key, text in _NOTES.items() if key in notes))


def _upright(im: PILImage.Image, notes: set[str]) -> PILImage.Image:
    """Apply the EXIF orientation. A TIFF is upright once loaded, and says so."""
    try:
        method = _UPRIGHT.get(im.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - the EXIF parser raises as broadly as the decoders; the pixels are fine
        notes.add("exif")
        return im
    return im if method is None else im.transpose(method)


def _rgb_and_alpha(im: PILImage.Image, key: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB uint8 [H, W, 3] and, where the file has a notion of it, alpha uint8 [H, W]."""
    if im.mode in GRAY16:
        values = np.asarray(im)
        pixels = np.repeat(_GRAY16_TO_8[values][..., np.newaxis], 3, axis=2)
        return pixels, None if key is None else _alpha(values != key)
    if im.mode in WITH_ALPHA or (im.mode == "P" and key is not None):
        straight = im.convert("LA") if im.mode == "La" else im
        rgba = np.asarray(straight if straight.mode == "RGBA" else straight.convert("RGBA"))
        return rgba[..., :3], rgba[..., 3]
    pixels = np.asarray(im if im.mode == "RGB" else im.convert("RGB"))
    return pixels, None if key is None else _alpha((pixels != key).any(axis=2))


def _alpha(opaque: np.ndarray) -> np.ndarray:
    return np.where(opaque, np.uint8(255), np.uint8(0))


def _composite(pixels: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int] | None, name: str) -> np.ndarray:
    if background is None:
        raise TransparencyError(
            f"{name}: {np.count_nonzero(alpha < 255):,} of {alpha.size:,} pixels are transparent, "
            "and LPIPS is defined on opaque ones; give a background colour (--background white)"
        )
    weight = alpha[..., np.newaxis].astype(np.uint16)
    # At most 255 * 255 + 127, which uint16 holds; the 127 rounds to the nearest.
    mixed = pixels * weight + np.array(background, np.uint16) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)
