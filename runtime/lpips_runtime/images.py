"""Image file -> checked RGB.

Pillow decodes. This module decides which file may reach it, and checks what it hands back: several kinds of
file come out of Pillow as wrong pixels without a word. Hostile and broken files end in an ImageFileError or
ImageFormatError, never in another exception, a Python warning or a hang. (libtiff writes a line of its own to
stderr for a damaged compressed TIFF; Pillow 13 has no switch for that.)

Thread-safe: each call opens its own file, and nothing is shared but the warning filter of `_mute_pillow`.
"""

import importlib
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as PILImage
from PIL import ImageColor, UnidentifiedImageError

from .errors import ImageFileError, ImageFormatError, InputError, UsageError

__all__ = ["EXTENSIONS", "MAX_BYTES", "MAX_PIXELS", "Image", "Note", "load_image", "parse_color"]

# Pillow's own limit for an error. It warns from half of that on; such images are legitimate here.
MAX_PIXELS = 178_956_970
# MAX_PIXELS of four 16-bit channels, uncompressed, stay below this; a sparse file need not.
MAX_BYTES = 2**31

EXTENSIONS = frozenset((".apng", ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"))


@dataclass(frozen=True)
class Note:
    """Something that the user of a file should know although it could be read.

    kind: stable key, one of gray16, rgb16, icc, mpo, exif. text: the same for every file of a kind, without
    the file's name, so that a command can say it once with a count.
    """

    kind: str
    text: str


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded file. pixels: uint8 [H, W, 3], RGB 0..255, C-contiguous, read-only. notes: one per kind."""

    pixels: np.ndarray
    notes: tuple[Note, ...]


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

_GRAY16 = frozenset(("I;16", "I;16B", "I;16L", "I;16N"))
_WITH_ALPHA = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))
_MODES = _GRAY16 | _WITH_ALPHA | {"1", "L", "P", "RGB", "YCbCr"}
_REFUSED_MODES = {
    "CMYK": "CMYK inks",
    "F": "32-bit float values",
    "I": "32-bit or signed integers",
    "LAB": "CIELAB values",
}

# x / 257 to the nearest integer; 257 is odd, so there are no ties.
_GRAY16_TO_8 = ((np.arange(65536) + 128) // 257).astype(np.uint8)
# Pillow 13 scales gray of 2 and 4 bits to 0..255 but leaves the transparent value in the file's units, and so
# finds no transparent pixel (test_transparent_gray_of_every_depth).
_KEY_SCALE = {"L;2": 85, "L;4": 17}

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

# The markers that begin a segment, a scan or the end; within a scan FF is followed by the others.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
# Each scan costs time for every pixel but may be some bytes long; cameras write one, encoders about ten.
_MOST_SCANS = 100
# Pillow walks the pages of a TIFF in quadratic time.
_MOST_PAGES = 1000

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
    transparent pixels, or CMYK, CIELAB, float, 32-bit, 12-bit or signed values; UsageError for a background
    that is no colour.
    """
    name = os.fsdecode(path)
    if background is not None:
        _check_color(background, background)
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
            with _mute_pillow():
                return _decode(file, kind, name, background)
        except InputError:
            raise
        except Exception as error:
            # As broad as this: besides OSError, Pillow lets through whatever its Python runs into on a
            # hostile file (SyntaxError, ValueError, struct.error, zlib.error, EOFError, OverflowError, ...).
            reason = " ".join(str(error).split())[:120]
            said = next(said for failure, said in _FAILURES if isinstance(error, failure))
            raise ImageFileError(f"{name}: {said.format(kind=kind, reason=reason)}") from error


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
    return _check_color(color, text)


def _check_color(color: Sequence[int], said: object) -> tuple[int, int, int]:
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
        _check_header(im, kind, name)
        _check_stream(file, kind)
        raw_mode = _raw_mode(im, kind)
        im.load()
        if ";16" in raw_mode:
            notes.add("gray16" if im.mode in _GRAY16 else "rgb16")
        if im.info.get("icc_profile"):
            notes.add("icc")
        if im.format == "MPO":
            notes.add("mpo")
        key = _transparent_value(im, raw_mode, name)
        pixels, alpha = _rgb_and_alpha(_upright(im, notes), key)
    if alpha is not None and alpha.min() < 255:
        pixels = _composite(pixels, alpha, background, name)
    pixels = np.ascontiguousarray(pixels)
    pixels.flags.writeable = False
    return Image(pixels, tuple(Note(key, text) for key, text in _NOTES.items() if key in notes))


def _check_header(im: PILImage.Image, kind: str, name: str) -> None:
    if im.width * im.height > MAX_PIXELS:
        raise ImageFileError(
            f"{name}: {im.width}x{im.height} exceeds {MAX_PIXELS:,} pixels; scale it down or cut it first"
        )
    if frames := _frames(im, kind):
        raise ImageFormatError(f"{name}: holds {frames} frames or pages; save the one to be scored as a file")
    held = _misread_tiff(im) if kind == "TIFF" else None
    if im.mode not in _MODES:
        held = f"{_REFUSED_MODES.get(im.mode, 'unknown values')} (Pillow mode {im.mode})"
    if held:
        raise ImageFormatError(f"{name}: holds {held}; convert it to 8-bit RGB first")
    if im.mode == "P" and im.palette is None:
        raise ValueError("no palette")  # Pillow 13 makes every pixel black


def _frames(im: PILImage.Image, kind: str) -> str | None:
    """How many frames or pages, None if there is one; the other pictures of an MPO do not count."""
    if im.format == "MPO" or not getattr(im, "is_animated", False):
        return None
    if kind != "TIFF":
        return str(getattr(im, "n_frames", "several"))
    pages = 1
    try:
        while pages < _MOST_PAGES:
            im.seek(pages)
            pages += 1
    except EOFError:
        return str(pages)
    except Exception:  # noqa: BLE001 - a page that Pillow cannot read; as broad as in load_image
        pages += 1
    return f"at least {pages}"


def _misread_tiff(im: PILImage.Image) -> str | None:
    """What Pillow 13 turns into wrong pixels in silence; test_tiff_that_pillow_misreads shows each."""
    tags: Any = vars(im)["tag_v2"]
    bits, photometric, uncompressed = tags.get(258, (1,)), tags.get(262, 0), tags.get(259, 1) == 1
    misread = {
        "signed samples": 2 in tags.get(339, (1,)),
        "12-bit samples": 12 in bits,
        "16-bit gray with 0 as white": 16 in bits and photometric == 0,
        "uncompressed 16-bit colour in separate planes": uncompressed and 16 in bits and tags.get(284, 1) == 2,
        "uncompressed subsampled YCbCr": uncompressed and photometric == 6 and tags.get(530, (2, 2)) != (1, 1),
    }
    return next((what for what, found in misread.items() if found), None)


def _check_stream(file: BinaryIO, kind: str) -> None:
    """Check what Pillow does not when it decodes. It may leave the file anywhere: decoding starts with a seek."""
    if kind == "PNG":
        # Decoding looks at no checksum of the pixel data and does not miss the end of the file.
        with PILImage.open(file, formats=(kind,)) as twin:
            twin.verify()
    elif kind == "JPEG":
        file.seek(0)
        data = file.read()
        if data.count(b"\xff\xda") > _MOST_SCANS and _count_scans(data) > _MOST_SCANS:
            raise ValueError(f"more than {_MOST_SCANS} scans")


def _count_scans(data: bytes) -> int:
    """Scans of a JPEG's primary picture, not of pictures within its segments or behind its end."""
    scans, at = 0, 2
    while marker := _JPEG_MARKER.search(data, at):
        if marker[0] == b"\xff\xd9":
            break
        scans += marker[0] == b"\xff\xda"
        length = data[marker.end() : marker.end() + 2]
        at = marker.end() + int.from_bytes(length, "big")
    return scans


def _raw_mode(im: PILImage.Image, kind: str) -> str:
    """How a PNG or TIFF stores its samples, in Pillow's words ("RGB;16B"); forgotten once it is loaded."""
    tiles: Any = vars(im).get("tile") if kind in ("PNG", "TIFF") else None
    if not tiles:
        return ""
    _codec, _extents, _offset, args = tiles[0]
    return args if isinstance(args, str) else args[0]


def _transparent_value(im: PILImage.Image, raw_mode: str, name: str) -> Any:
    """What a PNG's tRNS says, in units of `im`: gray, RGB, palette index, alpha values; None without."""
    # A text chunk of one of these names overwrites what Pillow 13 decodes by.
    if any(isinstance(im.info.get(word), str) for word in ("bbox", "interlace", "transparency")):
        raise ValueError("a text chunk with a reserved name")
    if im.mode == "P" and im.palette:
        colors = len(im.palette.palette) // len(im.palette.mode)
        if np.asarray(im).max() >= colors:
            raise ValueError("a pixel beyond the palette")  # black in Pillow 13
    key = im.info.get("transparency")
    if key is not None and ";16" in raw_mode and im.mode == "RGB":
        # All 16 bits of a pixel count, of which Pillow hands out 8.
        raise ImageFormatError(f"{name}: holds a 16-bit transparent colour; convert it to 8-bit RGBA first")
    return key * _KEY_SCALE[raw_mode] if raw_mode in _KEY_SCALE and key is not None else key


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
    if im.mode in _GRAY16:
        values = np.asarray(im)
        pixels = np.repeat(_GRAY16_TO_8[values][..., np.newaxis], 3, axis=2)
        return pixels, None if key is None else _alpha(values != key)
    if im.mode in _WITH_ALPHA or (im.mode == "P" and key is not None):
        straight = im.convert("LA") if im.mode == "La" else im
        rgba = np.asarray(straight if straight.mode == "RGBA" else straight.convert("RGBA"))
        return rgba[..., :3], rgba[..., 3]
    pixels = np.asarray(im if im.mode == "RGB" else im.convert("RGB"))
    return pixels, None if key is None else _alpha((pixels != key).any(axis=2))


def _alpha(opaque: np.ndarray) -> np.ndarray:
    return np.where(opaque, np.uint8(255), np.uint8(0))


def _composite(pixels: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int] | None, name: str) -> np.ndarray:
    if background is None:
        raise ImageFormatError(
            f"{name}: {np.count_nonzero(alpha < 255):,} of {alpha.size:,} pixels are transparent, "
            "and LPIPS is defined on opaque ones; give a background colour (--background white)"
        )
    weight = alpha[..., np.newaxis].astype(np.uint16)
    # At most 255 * 255 + 127, which uint16 holds; the 127 rounds to the nearest.
    mixed = pixels * weight + np.array(background, np.uint16) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


_thread = threading.local()
_filter_lock = threading.Lock()


class _WhileDecoding:
    """Stands where a warning filter has its pattern; matches in threads that are inside `_mute_pillow`."""

    def match(self, _message: str) -> bool:
        return getattr(_thread, "decoding", False)


@contextmanager
def _mute_pillow() -> Iterator[None]:
    """Ignore warnings that this thread gives rise to.

    Pillow warns of large images and odd metadata; what matters of it, this module says itself. Filters belong
    to the process, and `warnings.catch_warnings` swaps them under the feet of other threads (up to Python
    3.13). So one filter stays in front for good that matches nothing outside of this context manager.
    """
    filters: Any = warnings.filters
    if not (filters and isinstance(filters[0][1], _WhileDecoding)):
        with _filter_lock:
            # The new one goes in before those go that have fallen behind: there is never none.
            old = [entry for entry in filters if isinstance(entry[1], _WhileDecoding)]
            filters.insert(0, ("ignore", _WhileDecoding(), Warning, None, 0))
            for entry in old:
                with suppress(ValueError):
                    filters.remove(entry)
    _thread.decoding = True
    try:
        yield
    finally:
        _thread.decoding = False
