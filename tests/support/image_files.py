"""Image files made byte by byte, for the tests of what reads them."""

import io
import struct
import zlib

import numpy as np
from PIL import ExifTags
from PIL import Image as PILImage

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = PNG_CHANNELS


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, depth, color_type, before=(), after=(), size=None, level=6):
    """A PNG of samples [H, W] or [H, W, C]; before, after: chunks around IDAT; size: what it claims."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 16:
        packed = [row.astype(">u2").tobytes() for row in rows]
    else:
        bits = [((row[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8) for row in rows]
        packed = [np.packbits(row).tobytes() for row in bits]
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in packed), level)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(*part) for part in before),
            chunk(b"IDAT", pixels),
            *(chunk(*part) for part in after),
            chunk(b"IEND"),
        ]
    )


WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS, PLANAR = 256, 257, 258, 259, 262, 277, 278, 284


ORIENTATION, EXTRA, FORMAT, SUBSAMPLING = 274, 338, 339, 530


RAW, DEFLATE = 1, 8


def tiff(width, height, bits, photometric, channels, strips, order="<", trailing=b"", tags=()):
    """A one-page TIFF of strips (bytes each); tags: number -> values, which go before the usual ones."""
    values = {
        WIDTH: [width],
        HEIGHT: [height],
        BITS: [bits] * channels,
        COMPRESSION: [RAW],
        PHOTOMETRIC: [photometric],
        SAMPLES: [channels],
        ROWS: [height],
    } | dict(tags)
    if values[COMPRESSION] == [DEFLATE]:
        strips = [zlib.compress(strip) for strip in strips]
    formats = dict.fromkeys(values, ("H", 3)) | {273: ("L", 4), 279: ("L", 4)}
    values |= {273: [0] * len(strips), 279: [len(strip) for strip in strips]}
    packed = {tag: struct.pack(f"{order}{len(found)}{formats[tag][0]}", *found) for tag, found in values.items()}
    after_ifd = 8 + 2 + 12 * len(values) + 4
    offset = after_ifd + sum(len(data) for data in packed.values() if len(data) > 4)
    offsets = []
    for strip in strips:
        offsets.append(offset)
        offset += len(strip)
    packed[273] = struct.pack(f"{order}{len(strips)}L", *offsets)
    entries, extra = b"", b""
    for tag in sorted(packed):
        data = packed[tag]
        if len(data) > 4:
            inline = struct.pack(order + "L", after_ifd + len(extra))
            extra += data
        else:
            inline = data.ljust(4, b"\0")
        entries += struct.pack(order + "HHL", tag, formats[tag][1], len(values[tag])) + inline
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8)
    ifd = struct.pack(order + "H", len(values)) + entries + bytes(4)
    return head + ifd + extra + b"".join(strips) + trailing


def encoded(im, kind, **options):
    buffer = io.BytesIO()
    im.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(height=24, width=20):
    """RGB with three different channels and no symmetry."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 9 % 256, y * 9 % 256, (x * y + 3 * x) % 256], axis=-1).astype(np.uint8)


def noise(*shape, dtype: type = np.uint8):
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def noted(image):
    return [note.kind for note in image.notes]


def pillow_pixels(data):
    with PILImage.open(io.BytesIO(data)) as im:
        im.load()
        return np.asarray(im)


PICTURE = PILImage.fromarray(smooth())


LOSSLESS = {
    "png": encoded(PICTURE, "PNG"),
    "png-stored": png(smooth(), 8, RGB, level=0),
    "webp-lossless": encoded(PICTURE, "WEBP", lossless=True),
    "tiff": encoded(PICTURE, "TIFF"),
    "tiff-lzw": encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "tiff-deflate": encoded(PICTURE, "TIFF", compression="tiff_adobe_deflate"),
    "bmp": encoded(PICTURE, "BMP"),
}


LOSSY = {
    "jpeg": encoded(PICTURE, "JPEG", quality=90),
    "jpeg-progressive": encoded(PICTURE, "JPEG", progressive=True),
    "webp": encoded(PICTURE, "WEBP"),
    "tiff-jpeg": encoded(PICTURE, "TIFF", compression="jpeg"),
}


FILES = LOSSLESS | LOSSY


WIDE = noise(6, 5, 4, dtype=np.uint16)
WIDE[..., 3] |= 0xFF00  # opaque in the high byte


PLANES = [WIDE[..., channel].astype("<u2").tobytes() for channel in range(3)]


COLOUR_16 = {
    "png-rgb": png(WIDE[..., :3], 16, RGB),
    "png-rgba": png(WIDE, 16, RGB_ALPHA),
} | {
    f"tiff-{name}-{order}-{compression}": tiff(
        5,
        6,
        16,
        2,
        channels,
        [WIDE[..., :channels].astype(order + "u2").tobytes()],
        order=order,
        tags={COMPRESSION: [compression]} | extra,
    )
    for name, channels, extra in (("rgb", 3, {}), ("rgba", 4, {EXTRA: [2]}), ("rgbx", 4, {EXTRA: [0]}))
    for order in "<>"
    for compression in (RAW, DEFLATE)
}


GRAY_8 = noise(6, 5)


PLTE = (b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))


INDICES = np.array([[0, 1, 2, 1]], np.uint8)


def oriented(orientation):
    exif = PILImage.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def mpo():
    return encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(180), PICTURE.rotate(90)])
