"""Image files that the native reader must read as Python does, or refuse: name -> pixels [36, 40, 3] -> bytes."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image as PILImage

__all__ = [
    "PIXELS",
    "header",
    "jpegs",
    "misleading",
    "orientations",
    "png",
    "rare_orientations",
    "read_exactly",
    "refused",
    "rows",
]

Chunk = tuple[bytes, bytes]
Kinds = dict[str, Callable[[], bytes]]

PIXELS = np.random.default_rng(0).integers(0, 256, (36, 40, 3), dtype=np.uint8)
_Y, _X = np.mgrid[0:36, 0:40]
_SMOOTH = np.stack([_X * 6, _Y * 7, (_X + _Y) * 3], -1).astype(np.uint8)
_XMP = b"<x:xmpmeta><rdf tiff:Orientation='3' tiff:Orientation=\"6\"/></x>"
_XMP_WORD = b"XML:com.adobe.xmp\0"


def png(*chunks: Chunk, end: bool = True) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in (*chunks, *([(b"IEND", b"")] if end else [])):
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data


def header(width: int, height: int, depth: int, colour: int) -> Chunk:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def rows(values: np.ndarray) -> Chunk:
    """IDAT of rows [H, bytes]."""
    return b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))


def _saved(image: PILImage.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (PILImage.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def _jpeg(**options: Any) -> bytes:
    return _saved(_SMOOTH, "JPEG", **options)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _with(*segments: bytes) -> bytes:
    """A JPEG with these behind its start."""
    data = _jpeg(quality=90)
    return data[:2] + b"".join(segments) + data[2:]


def _rgb(*before: Chunk, after: Iterable[Chunk] = ()) -> bytes:
    return png(header(40, 36, 8, 2), *before, rows(PIXELS.reshape(36, 120)), *after)


def _tiff(
    kind: int = 3,
    value: bytes = b"\0\6\0\0",
    count: int = 1,
    mark: bytes = b"MM\0*",
    order: str = ">",
    entries: int = 1,
) -> bytes:
    """EXIF data with an orientation, whose value is in its 4 bytes as they are."""
    entry = struct.pack(order + "HHI", 0x0112, kind, count) + value
    return mark + struct.pack(order + "IH", 8, entries) + entry + struct.pack(order + "I", 0)


def _exif(tiff: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff)


def _xmp(xmp: bytes) -> bytes:
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)


_BESIDE = (  # an orientation behind another entry: one with its data beyond the end, one of no type
    b"MM\0*" + struct.pack(">IH", 8, 2) + struct.pack(">HHII", 0x010E, 2, 20, 9999) + _tiff()[10:],
    b"MM\0*" + struct.pack(">IH", 8, 2) + struct.pack(">HHII", 0x010E, 99, 20, 9999) + _tiff()[10:],
    b"MM\0*" + struct.pack(">IH", 8, 2) + struct.pack(">HHII", 0x010E, 2, 999_999, 0) + _tiff()[10:],
)


def read_exactly() -> Kinds:
    """PNG files that Pillow reads as something else than the 8-bit RGB that they seem to be."""

    def turned(orientation: int) -> bytes:
        image = PILImage.fromarray(PIXELS if orientation < 5 else np.ascontiguousarray(PIXELS.transpose(1, 0, 2)))
        exif = PILImage.Exif()
        exif[0x0112] = orientation
        return _saved(image, exif=exif)

    opaque = np.full((36, 40), 255, np.uint8)
    gray16 = np.arange(36 * 40, dtype=">u2").reshape(36, 40) * 45
    palette = (b"PLTE", bytes(range(48)))
    image = PILImage.fromarray(PIXELS)
    frame = struct.pack(">IIIIIHHBB", 0, 40, 36, 0, 0, 1, 10, 0, 0)
    return {
        "gray": lambda: _saved(PIXELS[..., 0]),
        "one bit": lambda: _saved(PILImage.fromarray(PIXELS[..., 0]).convert("1")),
        "palette": lambda: _saved(image.quantize(200)),
        "small palette": lambda: _saved(image.quantize(5)),
        "opaque alpha": lambda: _saved(np.dstack([PIXELS, opaque])),
        "gray with opaque alpha": lambda: _saved(PILImage.fromarray(PIXELS[..., 0]).convert("LA")),
        "16-bit gray": lambda: png(header(40, 36, 16, 0), rows(gray16)),
        "16-bit gray and alpha": lambda: png(
            header(40, 36, 16, 4), rows(np.stack([gray16, np.full_like(gray16, 65535)], -1))
        ),
        "16-bit colour": lambda: png(
            header(40, 36, 16, 2), rows(np.stack([gray16, gray16[::-1], gray16[:, ::-1]], -1))
        ),
        "icc": lambda: _saved(image, icc_profile=b"profile"),
        "4-bit palette": lambda: png(
            header(40, 36, 4, 3), palette, rows(np.tile((np.arange(20) * 13 % 256).astype("u1"), (36, 1)))
        ),
        **{f"turned {n}": (lambda n=n: turned(n)) for n in range(1, 9)},
        "exif that is none": lambda: _saved(image, exif=b"Exif\0\0no exif at all"),
        "exif that is none, and XMP": lambda: _rgb((b"eXIf", b"none"), (b"iTXt", _XMP_WORD + b"\0\0\0\0" + _XMP)),
        "exif with a mark": lambda: _rgb((b"eXIf", b"Exif\0\0" + _tiff())),
        "exif behind the pixels": lambda: _rgb(after=[(b"eXIf", _tiff())]),
        "XMP as iTXt": lambda: _rgb((b"iTXt", _XMP_WORD + b"\0\0en\0\0" + _XMP)),
        "XMP as tEXt": lambda: _rgb((b"tEXt", _XMP_WORD + _XMP)),
        "empty chunks of pixels": lambda: _rgb((b"IDAT", b""), after=[(b"IDAT", b"")]),
        "an animation of one frame": lambda: _rgb((b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", frame)),
    }


def orientations() -> Kinds:
    """JPEG files that another reader of EXIF and XMP may turn in another way, or not at all."""
    little = {"mark": b"II*\0", "order": "<"}
    values = {  # by type: the same number, 6, in the first bytes, then in the last
        kind: (value, value[:size][::-1] + value[size:])
        for kind, size, value in ((3, 2, b"\0\6\0\0"), (4, 4, b"\0\0\0\6"), (8, 2, b"\0\6\0\0"), (9, 4, b"\0\0\0\6"))
    }
    return {
        **{
            f"type {kind}, {order}": lambda kind=kind, order=order: _with(
                _exif(
                    _tiff(kind, values.get(kind, (b"\6\0\0\0",) * 2)[order == "<"], **(little if order == "<" else {}))
                )
            )
            for kind in (0, 1, 2, 3, 4, 6, 7, 8, 9, 13, 14, 99)
            for order in "<>"
        },
        **{f"number {n}": lambda n=n: _with(_exif(_tiff(value=bytes([0, n, 0, 0])))) for n in (0, 2, 9, 255)},
        **{f"{n} values": lambda n=n: _with(_exif(_tiff(count=n))) for n in (0, 2)},
        "MM and 42 the other way": lambda: _with(_exif(_tiff(mark=b"MM*\0"))),
        "II and 42 the other way": lambda: _with(_exif(_tiff(3, b"\6\0\0\0", mark=b"II\0*", order="<"))),
        "MM and 43": lambda: _with(_exif(_tiff(mark=b"MM\0+"))),
        "II and 43": lambda: _with(_exif(_tiff(3, b"\6\0\0\0", mark=b"II+\0", order="<"))),
        "more entries than there are": lambda: _with(_exif(_tiff(entries=5))),
        "no entry of those that should be": lambda: _with(_exif(_tiff(entries=5)[:12])),
        "entries beyond the end": lambda: _with(_exif(b"MM\0*\0\1\0\0")),
        "short": lambda: _with(_exif(b"MM\0*")),
        "empty": lambda: _with(_exif(b"")),
        "empty, and XMP": lambda: _with(_exif(b""), _xmp(_XMP)),
        "two": lambda: _with(_exif(_tiff()), _exif(_tiff(value=b"\0\3\0\0"))),
        "the first of two is none": lambda: _with(_exif(b"junk1234"), _exif(_tiff())),
        "in two parts": lambda: _with(_exif(_tiff()[:12]), _exif(_tiff()[12:])),
        "marked twice": lambda: _with(_exif(b"Exif\0\0" + _tiff())),
        **{f"behind another entry {k}": lambda tiff=tiff: _with(_exif(tiff)) for k, tiff in enumerate(_BESIDE)},
        "twice in one": lambda: _with(_exif(_tiff(entries=2)[:-4] + _tiff(value=b"\0\3\0\0")[10:])),
        "XMP": lambda: _with(_xmp(_XMP)),
        "XMP as an element": lambda: _with(_xmp(b"<tiff:Orientation>6</tiff:Orientation>")),
        "two XMP": lambda: _with(_xmp(_XMP), _xmp(b"<tiff:Orientation>3</tiff:Orientation>")),
        "XMP without its mark's end": lambda: _with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/" + _XMP)),
        "EXIF that turns nothing, and XMP": lambda: _with(_exif(_tiff(value=b"\0\1\0\0")), _xmp(_XMP)),
        "EXIF that is none, and XMP": lambda: _with(_exif(b"none at all"), _xmp(_XMP)),
        "EXIF behind a scan": lambda: _jpeg(quality=90)[:-2] + _exif(_tiff()) + b"\xff\xd9",
    }


def rare_orientations() -> Kinds:
    """Orientations that Pillow heeds and no camera writes."""
    return {
        "FLOAT": lambda: _with(_exif(_tiff(11, struct.pack(">f", 6)))),
        "RATIONAL": lambda: _with(_exif(_tiff(5, struct.pack(">I", 26)) + struct.pack(">II", 6, 1))),
        "DOUBLE": lambda: _with(_exif(_tiff(12, struct.pack(">I", 26)) + struct.pack(">d", 6))),
        "LONG8": lambda: _with(_exif(_tiff(16, struct.pack(">I", 26)) + struct.pack(">Q", 6))),
        "three values": lambda: _with(_exif(_tiff(3, struct.pack(">I", 26), count=3) + bytes([0, 6] * 3))),
        "the name of one in the text of a PNG": lambda: _rgb((b"tEXt", b"Raw profile type exif\0\nexif\n10\n4d4d")),
        "orientation, compressed": lambda: _rgb((b"zTXt", _XMP_WORD + b"\0" + zlib.compress(_XMP))),
    }


def jpegs() -> Kinds:
    image = PILImage.fromarray(_SMOOTH)
    return {
        "progressive": lambda: _jpeg(progressive=True),
        "gray": lambda: _saved(image.convert("L"), "JPEG"),
        "gray, progressive": lambda: _saved(image.convert("L"), "JPEG", progressive=True),
        "RGB": lambda: _jpeg(keep_rgb=True, quality=95),
        "restart markers": lambda: _jpeg(restart_marker_blocks=1),
        "restart markers, progressive": lambda: _jpeg(restart_marker_blocks=2, progressive=True),
        "restart markers in rows": lambda: _jpeg(restart_marker_rows=1, subsampling="4:2:0"),
        **{by: lambda by=by: _jpeg(subsampling=by) for by in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")},
        "tables of its own": lambda: _jpeg(optimize=True),
        "bytes behind the end": lambda: _jpeg() + b"junk" * 9,
        "markers in a comment": lambda: _jpeg(comment=b"\xff\xd9 \xff\xda"),
        "a filler before a marker": lambda: _jpeg().replace(b"\xff\xc4", b"\xff\xff\xff\xc4"),
    }


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and content of each segment up to the first scan, whose data is with it."""
    found, at = [], 2
    while not found or found[-1][0] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = len(data) if data[at + 1] == 0xDA else at + 2 + length
        found.append((data[at + 1], data[at + 4 : end]))
        at = end
    return found


def _changed(change: Callable[[int, bytes], bytes | None], **options: Any) -> bytes:
    """A JPEG with another content, or none, of some segments before its scan."""
    out = b"\xff\xd8"
    for marker, content in _segments(_jpeg(**options)):
        if marker == 0xDA:
            return out + struct.pack(">BBH", 0xFF, marker, 2 + 4 + 2 * content[0]) + content
        new = change(marker, content)
        out += b"" if new is None else segment(marker, new)
    raise AssertionError


def _at(data: bytes, at: int, byte: int) -> bytes:
    return data[:at] + bytes([byte]) + data[at + 1 :]


def misleading() -> Kinds:
    """JPEG files, by what is wrong with them, for which stb reads what nobody wrote, or other pixels than are meant."""

    def one(marker: int, change: Callable[[bytes], bytes | None], **options: Any) -> Callable[[], bytes]:
        return lambda: _changed(lambda m, content: change(content) if m == marker else content, **options)

    def joined(marker: int) -> bytes:
        return b"".join(content for m, content in _segments(_jpeg()) if m == marker)

    huffman = joined(0xC4)
    many = bytes([0x10, *[20] * 16]) + bytes(320)
    scans = lambda: _jpeg(progressive=True).split(b"\xff\xda")  # noqa: E731
    return {
        "a scan without its quantisation table": one(0xDB, lambda _: None),
        "a scan without its quantisation table: it names another": one(0xC0, lambda c: _at(c, 8, 3)),
        "a scan without its quantisation table: progressive": one(0xDB, lambda _: None, progressive=True),
        "no valid quantisation table: cut": one(0xDB, lambda c: c[:-1]),
        "no valid quantisation table: its number": one(0xDB, lambda c: _at(c, 0, 4)),
        "no valid quantisation table: its precision": one(0xDB, lambda c: _at(c, 0, 0x20)),
        "Motion JPEG": one(0xC4, lambda _: None),
        "Motion JPEG: progressive": lambda: _with_tables(None),
        "no valid Huffman table: codes": one(0xC4, lambda _: many),
        "no valid Huffman table: cut": one(0xC4, lambda c: c[:-1]),
        "no valid Huffman table: half": one(0xC4, lambda c: c[:9]),
        "no valid Huffman table: its number": one(0xC4, lambda c: _at(c, 0, 5)),
        "no valid Huffman table: its kind": one(0xC4, lambda c: _at(c, 0, 0x20)),
        "bytes between its segments": lambda: _jpeg().replace(b"\xff\xc4", b"junk\xff\xc4", 1),
        "no valid marker": lambda: _jpeg().replace(b"\xff\xc4", b"\xff\xd0\xff\xc4", 1),
        "no valid header": lambda: _jpeg().replace(
            b"\xff\xc4", segment(0xC0, _segments(_jpeg())[3][1]) + b"\xff\xc4", 1
        ),
        "a scan without a header": one(0xC0, lambda _: None),
        "a colour without a scan": lambda: _first_only(huffman),
        "its scans are in no valid order": lambda: b"\xff\xda".join([scans()[0], *scans()[2:]]),
        "its scans are in no valid order: twice": lambda: b"\xff\xda".join([*scans()[:2], *scans()[1:]]),
        "a scan ends too early": lambda: _jpeg(restart_marker_blocks=1).rsplit(b"\xff\xd0", 1)[0] + b"\xff\xd9",
        "its restart markers are in no valid order": lambda: _jpeg(restart_marker_blocks=1).replace(
            b"\xff\xd1", b"\xff\xd5"
        ),
        "contradicts itself on its colours": lambda: _named_rgb(segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")),
        "contradicts itself on its colours: Adobe": lambda: _named_rgb(segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")),
        "no valid mark of Adobe's": lambda: _with(segment(0xEE, b"Adobe\1\x64\0\0\0\0\0")),
        "no valid mark of Adobe's: behind a scan": lambda: (
            _jpeg()[:-2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + b"\xff\xd9"
        ),
        "200-bit values": one(0xC0, lambda c: _at(c, 0, 200)),
        "a side of 0 pixels": one(0xC0, lambda c: c[:1] + b"\0\0" + c[3:]),
    }


def _with_tables(tables: bytes | None) -> bytes:
    """A progressive JPEG, with other Huffman tables or none."""
    data = _jpeg(progressive=True)
    while (at := data.find(b"\xff\xc4")) >= 0:
        data = data[:at] + (tables or b"") + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    return data


def _named_rgb(mark: bytes) -> bytes:
    """A JPEG whose colours are called R, G and B, with a mark that makes them others."""
    data = _jpeg(keep_rgb=True)
    return data[:2] + mark + data[2 + 16 :]


def _first_only(huffman: bytes) -> bytes:
    """A JPEG of three colours with a scan of the first alone."""
    parts = [segment(m, c) for m, c in _segments(_jpeg()) if m not in (0xC4, 0xDA)]
    scan = segment(0xDA, bytes([1, 1, 0, 0, 63, 0])) + bytes(200)
    return b"\xff\xd8" + b"".join(parts) + segment(0xC4, huffman) + scan + b"\xff\xd9"


def refused() -> Kinds:
    """Files that Python refuses."""
    base = _saved(PIXELS)
    image = PILImage.fromarray(PIXELS)
    beyond = np.tile(np.arange(40, dtype="u1"), (36, 1))
    pixels = rows(PIXELS.reshape(36, 120))[1]
    one = (b"acTL", struct.pack(">II", 1, 0))
    return {
        "a wrong checksum": lambda: _at(base, 60, base[60] ^ 1),
        "a PNG without its end": lambda: base[:-12],
        "half a PNG": lambda: base[:1000],
        "half a JPEG": lambda: _saved(PIXELS, "JPEG")[:1000],
        "a JPEG without its end": lambda: _saved(PIXELS, "JPEG")[:-2],
        "CMYK": lambda: _saved(image.convert("CMYK"), "JPEG"),
        "animation": lambda: _saved(image, save_all=True, append_images=[PILImage.fromarray(PIXELS[::-1].copy())]),
        "an animation of one frame, and another picture": lambda: _rgb(one),
        "transparency": lambda: _saved(np.dstack([PIXELS, PIXELS[..., 0]])),
        "a pixel beyond the palette": lambda: png(header(40, 36, 8, 3), (b"PLTE", bytes(30)), rows(beyond)),
        "a palette PNG without a palette": lambda: png(header(40, 36, 8, 3), rows(beyond)),
        "a palette behind the pixels": lambda: png(header(40, 36, 8, 3), rows(beyond), (b"PLTE", bytes(768))),
        "text between the pixels": lambda: png(
            header(40, 36, 8, 2), (b"IDAT", pixels[:50]), (b"tEXt", b"a\0b"), (b"IDAT", pixels[50:])
        ),
        "text with a reserved name": lambda: _rgb((b"tEXt", b"transparency\0abc")),
        "no pixels": lambda: png(header(40, 36, 8, 2)),
        "more pixels than there may be": lambda: png(header(2**31 - 1, 2**31 - 1, 8, 2), (b"IDAT", pixels)),
        "more pixels than are counted": lambda: png(header(2**32 - 1, 2**32 - 1, 8, 2), (b"IDAT", pixels)),
        "16-bit transparent colour": lambda: png(
            header(40, 36, 16, 2), (b"tRNS", bytes(6)), rows(np.zeros((36, 240), "u1"))
        ),
        "text": lambda: b"hello, I am no image",
        "nothing": lambda: b"",
    }
