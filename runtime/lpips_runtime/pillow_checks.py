"""What a file must not hold, and what Pillow misreads in silence: checked between opening and decoding.

Each row names the version of Pillow it was seen in; a test of tests/runtime/test_images.py tells when it can go.
"""

import re
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as PILImage

from .errors import ImageFileError, ImageFormatError

__all__ = ["GRAY16", "MAX_PIXELS", "WITH_ALPHA", "check_header", "check_stream", "raw_mode", "transparent_value"]

# Pillow's own limit for an error. It warns from half of that on; such images are legitimate here.
MAX_PIXELS = 178_956_970

GRAY16 = frozenset(("I;16", "I;16B", "I;16L", "I;16N"))
WITH_ALPHA = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))
_MODES = GRAY16 | WITH_ALPHA | {"1", "L", "P", "RGB", "YCbCr"}
_REFUSED_MODES = {
    "CMYK": "CMYK inks",
    "F": "32-bit float values",
    "I": "32-bit or signed integers",
    "LAB": "CIELAB values",
}

# Pillow 13 scales gray of 2 and 4 bits to 0..255 but leaves the transparent value in the file's units, and so
# finds no transparent pixel (test_transparent_gray_of_every_depth).
_KEY_SCALE = {"L;2": 85, "L;4": 17}

# The markers that begin a segment, a scan or the end; within a scan FF is followed by the others.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
# Each scan costs time for every pixel but may be some bytes long; cameras write one, encoders about ten.
_MOST_SCANS = 100
# Pillow walks the pages of a TIFF in quadratic time.
_MOST_PAGES = 1000


def check_header(im: PILImage.Image, kind: str, name: str) -> None:
    """Refuse by what the header says: size, frames, modes. Raises ImageFileError, ImageFormatError, ValueError."""
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


def check_stream(file: BinaryIO, kind: str) -> None:
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


def raw_mode(im: PILImage.Image, kind: str) -> str:
    """How a PNG or TIFF stores its samples, in Pillow's words ("RGB;16B"); forgotten once it is loaded."""
    tiles: Any = vars(im).get("tile") if kind in ("PNG", "TIFF") else None
    if not tiles:
        return ""
    _codec, _extents, _offset, args = tiles[0]
    return args if isinstance(args, str) else args[0]


def transparent_value(im: PILImage.Image, stored: str, name: str) -> Any:
    """What a PNG's tRNS says, in units of `im`: gray, RGB, palette index, alpha values; None without."""
    # A text chunk of one of these names overwrites what Pillow 13 decodes by.
    if any(isinstance(im.info.get(word), str) for word in ("bbox", "interlace", "transparency")):
        raise ValueError("a text chunk with a reserved name")
    if im.mode == "P" and im.palette:
        colors = len(im.palette.palette) // len(im.palette.mode)
        if np.asarray(im).max() >= colors:
            raise ValueError("a pixel beyond the palette")  # black in Pillow 13
    key = im.info.get("transparency")
    if key is not None and ";16" in stored and im.mode == "RGB":
        # All 16 bits of a pixel count, of which Pillow hands out 8.
        raise ImageFormatError(f"{name}: holds a 16-bit transparent colour; convert it to 8-bit RGBA first")
    return key * _KEY_SCALE[stored] if stored in _KEY_SCALE and key is not None else key
