"""Every rule of images.load_image, with real files that are made here."""

import contextlib
import io
import os
import random
import re
import stat
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, ImageCms, ImageFile
from PIL import Image as PILImage

from lpips_runtime import images, pillow_checks, quiet
from lpips_runtime.errors import ImageFileError, ImageFormatError, UsageError
from lpips_runtime.images import EXTENSIONS, MAX_PIXELS, Note, load_image, parse_color

# --- files, byte by byte ---

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


@pytest.fixture
def write(tmp_path):
    def write(data, name="image"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


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

# --- what is read ---


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_come_back_exactly(write, kind):
    image = load_image(write(LOSSLESS[kind]))
    np.testing.assert_array_equal(image.pixels, smooth())
    assert image.notes == ()


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_formats_are_what_pillow_decodes(write, kind):
    image = load_image(write(LOSSY[kind]))
    np.testing.assert_array_equal(image.pixels, pillow_pixels(LOSSY[kind]))
    assert image.notes == ()


def test_str_path_and_pathlike_are_taken(write):
    path = write(LOSSLESS["png"])
    np.testing.assert_array_equal(load_image(str(path)).pixels, load_image(path).pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA"])
def test_result_is_contiguous_read_only_uint8(write, mode):
    pixels = load_image(write(encoded(PICTURE.convert(mode), "PNG"))).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (24, 20, 3)
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_plain_rgb_is_not_copied_after_pillow_hands_it_out(write, kind):
    assert not load_image(write(FILES[kind])).pixels.flags.owndata


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_gray_is_repeated(write, kind):
    gray = PILImage.fromarray(smooth()[..., 0])
    data = encoded(gray, kind)
    expected = np.repeat(pillow_pixels(data)[..., None], 3, axis=2)
    np.testing.assert_array_equal(load_image(write(data)).pixels, expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit_becomes_black_and_white(write, kind):
    bits = smooth()[..., 2] > 100
    expected = np.repeat(np.where(bits, 255, 0)[..., None], 3, axis=2)
    np.testing.assert_array_equal(load_image(write(encoded(PILImage.fromarray(bits), kind))).pixels, expected)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_low_depth_gray_spans_the_full_range(write, depth):
    levels = np.arange(2**depth, dtype=np.uint8)[None]
    expected = np.repeat((levels * (255 // (2**depth - 1)))[..., None], 3, axis=2)
    np.testing.assert_array_equal(load_image(write(png(levels, depth, GRAY))).pixels, expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_palette_is_expanded(write, kind):
    palette = PICTURE.quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    assert len(np.unique(expected.reshape(-1, 3), axis=0)) > 8
    np.testing.assert_array_equal(load_image(write(encoded(palette, kind))).pixels, expected)


def test_tiff_ycbcr_is_converted(write):
    ycbcr = PICTURE.convert("YCbCr")
    expected = np.asarray(ycbcr.convert("RGB"))
    np.testing.assert_array_equal(load_image(write(encoded(ycbcr, "TIFF"))).pixels, expected)


# --- 16 bits ---

EVERY_16_BIT_VALUE = np.arange(65536, dtype=np.uint16).reshape(256, 256)
ROUNDED = np.rint(EVERY_16_BIT_VALUE / 257).astype(np.uint8)


GRAY_16 = {"png": png(EVERY_16_BIT_VALUE, 16, GRAY)} | {
    f"tiff-{order}-{compression}": tiff(
        256,
        256,
        16,
        1,
        1,
        [EVERY_16_BIT_VALUE.astype(order + "u2").tobytes()],
        order=order,
        tags={COMPRESSION: [compression]},
    )
    for order in "<>"
    for compression in (RAW, DEFLATE)
}


@pytest.mark.parametrize("kind", GRAY_16)
def test_16_bit_gray_is_rounded_to_the_nearest(write, kind):
    image = load_image(write(GRAY_16[kind]))
    np.testing.assert_array_equal(image.pixels, np.repeat(ROUNDED[..., None], 3, axis=2))
    assert image.notes == (Note("gray16", "16-bit gray is rounded to 8 bits"),)


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


@pytest.mark.parametrize("kind", COLOUR_16)
def test_16_bit_colour_is_cut_to_the_high_byte(write, kind):
    image = load_image(write(COLOUR_16[kind]))
    np.testing.assert_array_equal(image.pixels, WIDE[..., :3] >> 8)
    assert noted(image) == ["rgb16"]


def test_16_bit_gray_with_alpha_is_cut_to_the_high_byte(write):
    image = load_image(write(png(WIDE[..., [0, 3]], 16, GRAY_ALPHA)))
    np.testing.assert_array_equal(image.pixels, np.repeat(WIDE[..., :1] >> 8, 3, axis=2))
    assert noted(image) == ["rgb16"]


def test_16_bit_planes_that_are_compressed_are_read_rightly(write):
    image = load_image(write(tiff(5, 6, 16, 2, 3, PLANES, tags={COMPRESSION: [DEFLATE], PLANAR: [2]})))
    np.testing.assert_array_equal(image.pixels, WIDE[..., :3] >> 8)


def test_16_bit_bmp_has_5_or_6_bits_a_channel_and_leaves_no_16_bit_note(write):
    header = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    data = b"BM" + struct.pack("<IHHI", 70, 0, 0, 66) + header + masks + struct.pack("<HH", 0xF800, 0x001F)
    image = load_image(write(data))
    assert image.pixels.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert image.notes == ()


# --- what Pillow misreads ---

GRAY_8 = noise(6, 5)
GRAY_12 = bytes([0x12, 0x34, 0x56] * 12)
# For each file: what it holds, and what Pillow should have made of it. When Pillow does, the test of the
# misreading fails and the row in pillow_checks._misread_tiff can go.
MISREAD = {
    "signed samples": (
        tiff(5, 6, 8, 1, 1, [(GRAY_8 ^ 0x80).tobytes()], tags={FORMAT: [2]}),
        GRAY_8,
    ),
    "12-bit samples": (
        tiff(6, 4, 12, 1, 1, [GRAY_12]),
        np.tile(np.array([0x123, 0x456]) * 16, (4, 3)),
    ),
    "16-bit gray with 0 as white": (
        tiff(5, 6, 16, 0, 1, [WIDE[..., 0].astype("<u2").tobytes()]),
        65535 - WIDE[..., 0],
    ),
    "uncompressed 16-bit colour in separate planes": (
        tiff(5, 6, 16, 2, 3, PLANES, tags={PLANAR: [2]}),
        WIDE[..., :3] >> 8,
    ),
    # 2x2 blocks of four lumas, one Cb and one Cr; the bytes after the strip keep Pillow from missing its end.
    "uncompressed subsampled YCbCr": (
        tiff(
            4,
            6,
            8,
            6,
            3,
            [bytes([10, 20, 30, 40, 128, 128] * 6)],
            trailing=bytes(100),
            tags={SUBSAMPLING: [2, 2]},
        ),
        np.stack([np.tile([[10, 20], [30, 40]], (3, 2)), *[np.full((6, 4), 128)] * 2], axis=-1),
    ),
}


@pytest.mark.parametrize("what", MISREAD)
def test_tiff_that_pillow_misreads_is_refused(write, what):
    with pytest.raises(ImageFormatError, match=what + "; convert"):
        load_image(write(MISREAD[what][0]))


@pytest.mark.parametrize("what", MISREAD)
def test_tiff_that_pillow_misreads(what):
    data, expected = MISREAD[what]
    assert not np.array_equal(pillow_pixels(data), expected)


def test_8_bit_planes_are_read_rightly(write):
    planes = [smooth()[..., channel].tobytes() for channel in range(3)]
    image = load_image(write(tiff(20, 24, 8, 2, 3, planes, tags={PLANAR: [2]})))
    np.testing.assert_array_equal(image.pixels, smooth())


def test_compressed_subsampled_ycbcr_is_read_rightly(write):
    _, expected = MISREAD["uncompressed subsampled YCbCr"]
    strip = bytes([10, 20, 30, 40, 128, 128] * 6)
    tags = {SUBSAMPLING: [2, 2], COMPRESSION: [DEFLATE]}
    image = load_image(write(tiff(4, 6, 8, 6, 3, [strip], tags=tags)))
    np.testing.assert_array_equal(image.pixels, np.repeat(expected[..., :1], 3, axis=2))


def test_palette_png_without_a_palette_is_damaged(write):
    with pytest.raises(ImageFileError, match="no palette"):
        load_image(write(png(np.zeros((2, 2), np.uint8), 8, PALETTE)))


def test_pixel_beyond_the_palette_is_damage(write):
    indices = np.array([[0, 1], [1, 2]], np.uint8)
    two, three = bytes(range(6)), bytes(range(9))
    with pytest.raises(ImageFileError, match="beyond the palette"):
        load_image(write(png(indices, 8, PALETTE, [(b"PLTE", two)])))
    assert load_image(write(png(indices, 8, PALETTE, [(b"PLTE", three)]))).pixels[1, 1].tolist() == [6, 7, 8]


@pytest.mark.parametrize("word", [b"interlace", b"bbox", b"transparency"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_text_chunk_that_overwrites_what_pillow_decodes_by_is_refused(write, word, place):
    def with_text(text):
        chunks = [(b"tEXt", text)]
        return write(png(smooth(), 8, RGB, *([chunks, []] if place == "before" else [[], chunks])))

    with pytest.raises(ImageFileError):
        load_image(with_text(word + b"\0anything"))
    np.testing.assert_array_equal(load_image(with_text(b"Comment\0anything")).pixels, smooth())


# --- what is refused ---


@pytest.mark.parametrize(
    ("mode", "kind", "said"),
    [
        ("CMYK", "JPEG", "CMYK inks"),
        ("CMYK", "TIFF", "CMYK inks"),
        ("F", "TIFF", "32-bit float"),
        ("I", "TIFF", "32-bit or signed"),
        ("LAB", "TIFF", "CIELAB"),
    ],
)
def test_values_that_lpips_is_not_defined_on_are_refused(write, mode, kind, said):
    path = write(encoded(PILImage.new(mode, (8, 8)), kind), "odd.img")
    with pytest.raises(ImageFormatError, match=rf"odd\.img: holds {said}.*\(Pillow mode {mode}\); convert it to 8-bit"):
        load_image(path)


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "TGA", "JPEG2000", "PCX", "DDS", "SGI"])
def test_other_formats_never_reach_a_decoder(write, kind):
    path = write(encoded(PICTURE, kind), "other.png")
    with pytest.raises(ImageFileError, match=r"other\.png: not a PNG, JPEG, WebP, TIFF or BMP image"):
        load_image(path)


def test_only_the_plugin_of_the_signature_is_tried(write, monkeypatch):
    tried = set()
    pillow_open = PILImage.open

    def spy(file, **options):
        tried.add(options["formats"])
        return pillow_open(file, **options)

    monkeypatch.setattr(PILImage, "open", spy)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        load_image(write(encoded(PICTURE, kind)))
        assert tried == {(kind,)}
        tried.clear()


def test_animations_and_pages_are_refused_with_their_number(write):
    others = [PICTURE.rotate(90), PICTURE.rotate(180)]
    for kind in ("PNG", "WEBP", "TIFF"):
        data = encoded(PICTURE, kind, save_all=True, append_images=others)
        with pytest.raises(ImageFormatError, match="holds 3 frames or pages"):
            load_image(write(data))
        assert load_image(write(encoded(PICTURE, kind, save_all=True))).pixels.shape == (24, 20, 3)


def paged_tiff(pages, last_next=0):
    """Pages of 1x1 gray that share their pixel."""
    tags = (
        (WIDTH, 1),
        (HEIGHT, 1),
        (BITS, 8),
        (COMPRESSION, 1),
        (PHOTOMETRIC, 1),
        (273, 0),
        (ROWS, 1),
        (279, 1),
    )
    size = 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHLHH", tag, 3, 1, value, 0) for tag, value in tags)
    page = struct.pack("<H", len(tags)) + entries
    nexts = [8 + size * number for number in range(1, pages)] + [last_next]
    return b"II*\0" + struct.pack("<L", 8) + b"".join(page + struct.pack("<L", next_) for next_ in nexts)


def test_number_of_tiff_pages_is_bounded(write):
    with pytest.raises(ImageFormatError, match="holds 5 frames"):
        load_image(write(paged_tiff(5)))
    path = write(paged_tiff(50_000))
    start = time.monotonic()
    with pytest.raises(ImageFormatError, match="at least 1000 frames"):
        load_image(path)
    assert time.monotonic() - start < 10


def test_tiff_with_an_unreadable_second_page_is_still_one_of_several(write):
    with pytest.raises(ImageFormatError, match="at least 2 frames"):
        load_image(write(paged_tiff(1, last_next=100_000)))


def test_tiff_whose_pages_form_a_ring_does_not_hang(write):
    assert load_image(write(paged_tiff(1, last_next=8))).pixels.shape == (1, 1, 3)
    with pytest.raises(ImageFormatError, match="holds 3 frames"):
        load_image(write(paged_tiff(3, last_next=8)))


# --- transparency ---

ALPHA = noise(6, 5)
COLOUR = noise(6, 5, 3)
BACKGROUND = (250, 3, 128)


def over_background(colour, alpha):
    share = np.asarray(alpha, float)[..., None] / 255
    return np.rint(colour * share + np.array(BACKGROUND) * (1 - share)).astype(np.uint8)


def rgba(colour, alpha):
    return PILImage.fromarray(np.concatenate([colour, alpha[..., None]], axis=2))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_or_refused(write, kind):
    path = write(encoded(rgba(COLOUR, ALPHA), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    transparent = int((ALPHA < 255).sum())
    with pytest.raises(ImageFormatError, match=f"{transparent} of 30 pixels are transparent.*--background"):
        load_image(path)
    image = load_image(path, background=BACKGROUND)
    np.testing.assert_array_equal(image.pixels, over_background(COLOUR, ALPHA))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_opaque_alpha_is_dropped_in_silence(write, kind):
    data = encoded(
        rgba(smooth(), np.full((24, 20), 255, np.uint8)), kind, **{"lossless": True} if kind == "WEBP" else {}
    )
    for background in (None, BACKGROUND):
        image = load_image(write(data), background=background)
        np.testing.assert_array_equal(image.pixels, smooth())
        assert image.notes == ()


def test_bmp_alpha_is_composited(write):
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 5, -6, 1, 32, 3, 120, 0, 0, 0, 0) + masks + bytes(52)
    bgra = np.concatenate([COLOUR[..., ::-1], ALPHA[..., None]], axis=2).tobytes()
    path = write(b"BM" + struct.pack("<IHHI", 14 + 108 + 120, 0, 0, 14 + 108) + header + bgra)
    with pytest.raises(ImageFormatError, match="transparent"):
        load_image(path)
    image = load_image(path, background=BACKGROUND)
    np.testing.assert_array_equal(image.pixels, over_background(COLOUR, ALPHA))


def test_gray_with_alpha_is_composited(write):
    path = write(png(np.stack([COLOUR[..., 0], ALPHA], axis=-1), 8, GRAY_ALPHA))
    with pytest.raises(ImageFormatError, match="transparent"):
        load_image(path)
    expected = over_background(np.repeat(COLOUR[..., :1], 3, axis=2), ALPHA)
    np.testing.assert_array_equal(load_image(path, background=BACKGROUND).pixels, expected)


@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_tiff_is_composited(write, channels):
    alpha = ALPHA | 0x40  # small alphas leave few levels to divide by
    premultiplied = np.rint(COLOUR * (alpha[..., None] / 255)).astype(np.uint8)
    stored = np.concatenate([premultiplied[..., : channels - 1], alpha[..., None]], axis=2)
    data = tiff(5, 6, 8, 1 if channels == 2 else 2, channels, [stored.tobytes()], tags={EXTRA: [1]})
    with pytest.raises(ImageFormatError, match="transparent"):
        load_image(write(data))
    colour = np.repeat(COLOUR[..., :1], 3, axis=2) if channels == 2 else COLOUR
    found = load_image(write(data), background=BACKGROUND).pixels
    np.testing.assert_allclose(found.astype(int), over_background(colour, alpha).astype(int), atol=2)


PLTE = (b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
INDICES = np.array([[0, 1, 2, 1]], np.uint8)


@pytest.mark.parametrize(
    ("trns", "alphas"),
    [(b"\xff\x00", [255, 0, 255, 0]), (b"\x80", [128, 255, 255, 255]), (b"\x00\x40\xff", [0, 64, 255, 64])],
    ids=["one-index", "partly", "several"],
)
def test_transparent_palette_is_composited(write, trns, alphas):
    path = write(png(INDICES, 8, PALETTE, [PLTE, (b"tRNS", trns)]))
    with pytest.raises(ImageFormatError, match="transparent"):
        load_image(path)
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])[INDICES]
    expected = over_background(colours, np.array([alphas]))
    np.testing.assert_array_equal(load_image(path, background=BACKGROUND).pixels, expected)


def test_transparent_palette_entry_that_no_pixel_uses_is_fine(write):
    image = load_image(write(png(np.minimum(INDICES, 1), 8, PALETTE, [PLTE, (b"tRNS", b"\xff\xff\x00")])))
    assert image.pixels[0].tolist() == [[10, 20, 30], [40, 50, 60], [40, 50, 60], [40, 50, 60]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_gray_of_every_depth(write, depth):
    top = 2**depth - 1
    values = np.array([[0, 1, top, 1]], np.uint16)
    path = write(png(values, depth, GRAY, [(b"tRNS", struct.pack(">H", 1))]))
    with pytest.raises(ImageFormatError, match=f"{(values == 1).sum()} of 4 pixels are transparent"):
        load_image(path)
    gray = np.rint(values / top * 255)
    expected = over_background(np.repeat(gray[..., None], 3, axis=2), np.where(values == 1, 0, 255))
    np.testing.assert_array_equal(load_image(path, background=BACKGROUND).pixels, expected)


@pytest.mark.parametrize("depth", [2, 4, 8, 16])
def test_transparent_gray_level_that_no_pixel_has_is_fine(write, depth):
    top = 2**depth - 1
    data = png(np.array([[0, top]], np.uint16), depth, GRAY, [(b"tRNS", struct.pack(">H", top - 1))])
    assert load_image(write(data)).pixels[0].tolist() == [[0] * 3, [255] * 3]


def test_transparent_rgb_value_is_matched_in_all_channels(write):
    values = np.array([[[1, 2, 3], [1, 2, 4], [0, 2, 3]]], np.uint8)
    path = write(png(values, 8, RGB, [(b"tRNS", struct.pack(">HHH", 1, 2, 3))]))
    with pytest.raises(ImageFormatError, match="1 of 3 pixels are transparent"):
        load_image(path)
    expected = [list(BACKGROUND), [1, 2, 4], [0, 2, 3]]
    assert load_image(path, background=BACKGROUND).pixels[0].tolist() == expected
    unused = png(values, 8, RGB, [(b"tRNS", struct.pack(">HHH", 1, 2, 300))])
    np.testing.assert_array_equal(load_image(write(unused)).pixels, values)


def test_16_bit_transparent_colour_is_refused_with_a_background_too(write):
    path = write(png(WIDE[..., :3], 16, RGB, [(b"tRNS", struct.pack(">HHH", 1, 2, 3))]))
    for background in (None, BACKGROUND):
        with pytest.raises(ImageFormatError, match="16-bit transparent colour"):
            load_image(path, background=background)


@given(colour=st.integers(0, 255), alpha=st.integers(0, 255), under=st.integers(0, 255))
def test_compositing_rounds_to_the_nearest(colour, alpha, under):
    pixels = np.full((1, 1, 3), colour, np.uint8)
    mixed = images._composite(pixels, np.full((1, 1), alpha, np.uint8), (under,) * 3, "x")
    assert mixed.dtype == np.uint8
    assert abs(int(mixed[0, 0, 0]) - (colour * alpha + under * (255 - alpha)) / 255) <= 0.5


@pytest.mark.parametrize("background", [(0, 0), (0, 0, 256), (0, 0, -1), (0.5, 0, 0), "red"])
def test_background_that_is_no_colour_is_refused(write, background):
    with pytest.raises(UsageError, match="not a colour"):
        load_image(write(LOSSLESS["png"]), background=background)


# --- orientation, profiles, several pictures ---

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def oriented(orientation):
    exif = PILImage.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG", {"quality": 95}),
    ],
)
def test_exif_orientation_is_applied(write, kind, options, orientation):
    plain = encoded(PICTURE, kind, **options)
    path = write(encoded(PICTURE, kind, exif=oriented(orientation), **options))
    image = load_image(path)
    np.testing.assert_array_equal(image.pixels, UPRIGHT[orientation](pillow_pixels(plain)))
    assert image.pixels.flags.c_contiguous
    assert image.notes == ()


def test_orientation_turns_transparency_and_16_bits_along(write):
    exif = oriented(6).tobytes().removeprefix(b"Exif\0\0")
    path = write(png(EVERY_16_BIT_VALUE[:100], 16, GRAY, [(b"eXIf", exif), (b"tRNS", struct.pack(">H", 514))]))
    image = load_image(path, background=(255, 0, 0))
    turned = np.rot90(ROUNDED[:100], -1)
    transparent = np.rot90(EVERY_16_BIT_VALUE[:100] == 514, -1)
    np.testing.assert_array_equal(image.pixels[~transparent], np.repeat(turned[~transparent][:, None], 3, axis=1))
    assert image.pixels[transparent].tolist() == [[255, 0, 0]]


@pytest.mark.parametrize("exif", [b"II*\0", b"no TIFF at all", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_broken_exif_does_not_cost_the_picture(write, kind, exif):
    data = encoded(PICTURE, kind, exif=b"Exif\0\0" + exif)
    image = load_image(write(data))
    np.testing.assert_array_equal(image.pixels, pillow_pixels(encoded(PICTURE, kind)))
    assert set(noted(image)) <= {"exif"}


def test_unreadable_exif_leaves_a_note(write):
    image = load_image(write(encoded(PICTURE, "PNG", exif=b"Exif\0\0no TIFF at all")))
    assert noted(image) == ["exif"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_icc_profile_leaves_a_note(write, kind):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = load_image(write(encoded(PICTURE, kind, icc_profile=profile)))
    np.testing.assert_array_equal(image.pixels, pillow_pixels(encoded(PICTURE, kind)))
    assert noted(image) == ["icc"]


def test_notes_of_one_file_come_in_a_fixed_order(write):
    icc = (b"iCCP", b"x\0\0" + zlib.compress(b"profile"))
    image = load_image(write(png(WIDE[..., 0], 16, GRAY, [icc, (b"eXIf", b"no TIFF at all")])))
    assert noted(image) == ["gray16", "icc", "exif"]


def mpo():
    return encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(180), PICTURE.rotate(90)])


def test_primary_picture_of_a_multi_picture_jpeg_is_used(write):
    image = load_image(write(mpo(), "phone.jpg"))
    np.testing.assert_array_equal(image.pixels, pillow_pixels(encoded(PICTURE, "JPEG")))
    assert noted(image) == ["mpo"]


# --- damage ---


@pytest.mark.parametrize("kind", FILES)
def test_truncated_anywhere_is_an_error(tmp_path, kind):
    path = tmp_path / "cut"
    data = FILES[kind]
    # Nobody reads the checksum of a PNG's end.
    end = len(data) - (4 if kind.startswith("png") else 0)
    for length in (n for n in range(1, end) if n < 160 or n % 11 == 0 or n > end - 30):
        path.write_bytes(data[:length])
        with pytest.raises(ImageFileError, match="cut: "):
            load_image(path)


def test_png_with_any_byte_changed_gives_no_other_pixels(tmp_path):
    path = tmp_path / "changed"
    for data in (LOSSLESS["png"], png(smooth(8, 8), 8, RGB, level=0), png(noise(8, 8), 8, GRAY)):
        path.write_bytes(data)
        intact = load_image(path).pixels
        for position in range(len(data)):
            path.write_bytes(data[:position] + bytes([data[position] ^ 0x15]) + data[position + 1 :])
            with contextlib.suppress(ImageFileError, ImageFormatError):
                np.testing.assert_array_equal(load_image(path).pixels, intact)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
@pytest.mark.parametrize("kind", [*FILES, "mpo", "apng", "tiff-pages", "png-palette", "tiff-16", "bmp-palette"])
def test_any_damage_is_an_image_or_one_of_our_errors(tmp_path_factory, kind, data):
    intact = FUZZED[kind]
    # Half of the changes go to the head, where the structure is.
    places = st.integers(0, len(intact) - 1) | st.integers(0, min(len(intact) - 1, 160))
    damaged = bytearray(intact)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        damaged[place] = value
    length = data.draw(st.just(len(intact)) | st.integers(0, len(intact)))
    path = tmp_path_factory.getbasetemp() / f"damaged-{kind}"
    path.write_bytes(damaged[:length])
    background = data.draw(st.sampled_from([None, (1, 2, 3)]))
    start = time.monotonic()
    try:
        image = load_image(path, background=background)
    except (ImageFileError, ImageFormatError) as error:
        message = str(error)
    else:
        message = f"{path}: fine"
        assert image.pixels.dtype == np.uint8
        assert image.pixels.shape[2:] == (3,)
    assert re.fullmatch(re.escape(f"{path}: ") + "[^\n]{1,250}", message)
    assert time.monotonic() - start < 20


FUZZED = FILES | {
    "mpo": mpo(),
    "apng": encoded(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)]),
    "tiff-pages": encoded(PICTURE, "TIFF", save_all=True, append_images=[PICTURE.rotate(90)]),
    "png-palette": png(INDICES, 8, PALETTE, [PLTE, (b"tRNS", b"\x00\x40\xff"), (b"eXIf", oriented(6).tobytes())]),
    "tiff-16": COLOUR_16["tiff-rgba->-8"],
    "bmp-palette": encoded(PICTURE.quantize(16), "BMP"),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_a_signature_alone_is_named_as_damage(write, kind):
    path = write(encoded(PICTURE, kind)[:16], "stub.img")
    with pytest.raises(ImageFileError, match=rf"stub\.img: a damaged (or truncated )?{kind}"):
        load_image(path)


def test_memory_that_runs_out_is_our_error(write, monkeypatch):
    def run_out(*_args):
        raise MemoryError

    monkeypatch.setattr(images, "_rgb_and_alpha", run_out)
    with pytest.raises(ImageFileError, match="does not fit into memory"):
        load_image(write(LOSSLESS["png"]))


def test_no_file_stays_open(write):
    good, bad = write(LOSSLESS["tiff"], "good"), write(LOSSLESS["webp-lossless"][:60], "bad")
    files = []

    def keep(*args):
        files.append(open(*args))  # noqa: SIM115 - load_image closes it
        return files[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "open", keep, raising=False)
        load_image(good)
        with pytest.raises(ImageFileError):
            load_image(bad)
    assert [file.closed for file in files] == [True, True]


# --- bombs ---


def webp_header(width, height):
    """A lossless WebP header and no pixels."""
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8L" + struct.pack("<IBI", 17, 0x2F, bits) + bytes(12)


TOO_WIDE = TOO_HIGH = 13_380
BOMBS = {
    "png": png(np.zeros((1, 1), np.uint8), 8, GRAY, size=(TOO_WIDE, TOO_HIGH)),
    "tiff": tiff(TOO_WIDE, TOO_HIGH, 8, 1, 1, [b"\0"]),
    "bmp": (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, TOO_WIDE, TOO_HIGH, 1, 24, *[0] * 6)
    ),
    "webp": webp_header(TOO_WIDE, TOO_HIGH),
    "jpeg": b"\xff\xd8\xff\xc0"
    + struct.pack(">HBHHB", 11, 8, TOO_HIGH, TOO_WIDE, 1)
    + b"\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\x3f\0\xff\xd9",
}


# Without Pillow's limit libwebp asks for the pixels before it tells the size.
@pytest.mark.parametrize(
    ("kind", "limit"),
    [(kind, PILImage.MAX_IMAGE_PIXELS) for kind in BOMBS] + [(kind, None) for kind in BOMBS if kind != "webp"],
)
def test_decompression_bomb_is_refused_from_its_header(write, monkeypatch, kind, limit):
    """Also where the program has switched Pillow's own limit off."""
    assert TOO_WIDE * TOO_HIGH > MAX_PIXELS
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ImageFileError, match=r"\(179024400 pixels\)|13380x13380 exceeds 178,956,970 pixels"):
        load_image(write(BOMBS[kind]))


def test_our_limit_is_pillows():
    assert PILImage.MAX_IMAGE_PIXELS is not None
    assert 2 * PILImage.MAX_IMAGE_PIXELS == MAX_PIXELS


@pytest.mark.parametrize("kind", [*LOSSLESS, "jpeg", "tiff-jpeg"])
def test_image_that_pillow_only_warns_of_is_read_in_silence(write, monkeypatch, kind):
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 400)  # of 480 pixels
    assert load_image(write(FILES[kind])).pixels.shape == (24, 20, 3)


def test_file_larger_than_any_image_is_not_read(tmp_path):
    path = tmp_path / "sparse.webp"
    with open(path, "wb") as file:
        file.write(LOSSLESS["webp-lossless"])
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(ImageFileError, match=r"2,147,483,649 bytes"):
        load_image(path)


def with_scans(data, count):
    """A progressive JPEG with its last scan (a refinement, which may come again) repeated."""
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + b"\xff\xd9"


def test_jpeg_with_endless_scans_is_refused(write):
    data = LOSSY["jpeg-progressive"]
    scans = pillow_checks._count_scans(data)
    assert scans == data.count(b"\xff\xda")
    assert load_image(write(with_scans(data, 100 - scans))).pixels.shape == (24, 20, 3)
    with pytest.raises(ImageFileError, match="more than 100 scans"):
        load_image(write(with_scans(data, 101 - scans)))


def test_scan_markers_elsewhere_in_a_jpeg_do_not_count(write):
    comment = b"\xff\xfe" + struct.pack(">H", 602) + b"\xff\xda\0" * 200
    data = LOSSY["jpeg"]
    path = write(data[:2] + comment + data[2:] + b"\0\x02" + b"\xff\xda\0\x02" * 200)
    np.testing.assert_array_equal(load_image(path).pixels, pillow_pixels(data))


# --- warnings ---


def odd_tiff():
    """Two values where the standard allows one: Pillow warns and takes the first."""
    return tiff(5, 6, 8, 1, 1, [GRAY_8.tobytes()], tags={ORIENTATION: [1, 1]})


def test_pillow_warns_of_the_odd_tiff():
    with pytest.warns(UserWarning, match="had too many entries"):
        pillow_pixels(odd_tiff())


def test_warnings_of_pillow_do_not_get_out(write):
    np.testing.assert_array_equal(load_image(write(odd_tiff())).pixels[..., 0], GRAY_8)


def test_warnings_of_others_do(write):
    load_image(write(odd_tiff()))
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_filter_of_a_thread_that_decodes_hides_nothing_from_another(write, monkeypatch):
    decoding, done = threading.Event(), threading.Event()
    decode = images._decode

    def slow(*args):
        decoding.set()
        assert done.wait(10)
        return decode(*args)

    monkeypatch.setattr(images, "_decode", slow)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(load_image, write(odd_tiff()))
        assert decoding.wait(10)
        try:
            with pytest.raises(UserWarning, match="mine"):
                warnings.warn("mine", stacklevel=1)
        finally:
            done.set()
        assert future.result().pixels.shape == (6, 5, 3)


def test_filter_does_not_pile_up(write):
    path = write(odd_tiff())
    with warnings.catch_warnings():
        for round_ in range(20):
            warnings.filterwarnings("error", message=f"|{round_}")  # an empty pattern matches all
            load_image(path)
        ours = [entry for entry in warnings.filters if isinstance(entry[1], quiet._WhileDecoding)]
    assert len(ours) == 1


def test_many_threads_read_at_once(write):
    paths = [write(data, f"{index}") for index, data in enumerate([*FILES.values(), odd_tiff(), mpo()])]
    expected = [load_image(path).pixels for path in paths]
    order = list(range(len(paths))) * 12
    random.Random(3).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        for index, image in zip(order, pool.map(load_image, [paths[index] for index in order]), strict=True):
            np.testing.assert_array_equal(image.pixels, expected[index])


def test_nothing_is_printed_for_files_that_pillow_talks_about(write):
    """In a process of its own, since pytest takes over logging and the warning filters."""
    malformed_mpo = bytearray(mpo())
    index = malformed_mpo.index(b"MPF\0")
    malformed_mpo[index + 14 : index + 16] = b"\xff\xff"
    paths = [
        write(odd_tiff(), "odd.tif"),
        write(bytes(malformed_mpo), "malformed.jpg"),
        write(tiff(5, 6, 8, 1, 1, [GRAY_8.tobytes()], tags={SAMPLES: [100]}), "samples.tif"),
        write(encoded(PICTURE, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"), "exif.png"),
        write(png(smooth(), 8, RGB, [(b"acTL", bytes(8))]), "actl.png"),
    ]
    program = (
        "import sys\nfrom lpips_runtime.images import load_image\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_image(path)\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert "samples.tif: a damaged TIFF" in done.stdout


# --- paths ---


def test_missing_file(tmp_path):
    with pytest.raises(ImageFileError, match=r"none\.png: no such file"):
        load_image(tmp_path / "none.png")


def test_folder(tmp_path):
    with pytest.raises(ImageFileError, match="is a folder, an image file is needed"):
        load_image(tmp_path)


def test_empty_file(write):
    with pytest.raises(ImageFileError, match=r"empty \(0 bytes\)"):
        load_image(write(b""))


def test_text_file(write):
    with pytest.raises(ImageFileError, match="not a PNG"):
        load_image(write(b"a note to self"))


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000])
def test_impossible_name(name):
    with pytest.raises(ImageFileError, match="cannot be read"):
        load_image(name)


def test_file_as_folder(write):
    with pytest.raises(ImageFileError, match="cannot be read"):
        load_image(write(b"x") / "image.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_fifo_does_not_hang(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    with pytest.raises(ImageFileError, match="is a pipe"):
        load_image(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_device():
    with pytest.raises(ImageFileError, match="socket or device"):
        load_image("/dev/zero")


def test_permission_denied(write, monkeypatch):
    """By a stand-in for open, since root may read everything."""

    def denied(*_args):
        raise PermissionError(13, "Permission denied")

    path = write(LOSSLESS["png"])
    monkeypatch.setattr(images, "open", denied, raising=False)
    with pytest.raises(ImageFileError, match="permission denied"):
        load_image(path)


def test_disk_that_fails(write, monkeypatch):
    class Failing(io.BytesIO):
        def read(self, *_args):
            raise OSError(5, "Input/output error")

    path = write(LOSSLESS["png"])
    monkeypatch.setattr(images, "open", lambda *_: Failing(), raising=False)
    with pytest.raises(ImageFileError, match=r"cannot be read \(Input/output error\)"):
        load_image(path)


# --- colours, suffixes ---


@pytest.mark.parametrize(
    ("text", "color"),
    [("white", (255, 255, 255)), ("Red", (255, 0, 0)), ("#0a0B0c", (10, 11, 12)), ("#fff", (255, 255, 255))],
)
def test_colours(text, color):
    assert parse_color(text) == color


@pytest.mark.parametrize("text", ["", "nope", "#12345", "12,13,14", "#gggggg", "rgb(300, 0, 0)", "x" * 1000])
def test_what_is_no_colour(text):
    with pytest.raises(UsageError, match="not a colour"):
        parse_color(text)


@pytest.mark.parametrize("text", ["#ffffff80", "#fff8", "#ffffffff"])
def test_colour_with_alpha(text):
    with pytest.raises(UsageError, match="alpha"):
        parse_color(text)


@given(st.text(max_size=30))
def test_any_text_is_a_colour_or_a_usage_error(text):
    try:
        color = parse_color(text)
    except UsageError:
        return
    assert len(color) == 3
    assert all(0 <= value <= 255 for value in color)


def test_extensions_are_those_of_the_formats():
    PILImage.init()
    known = {suffix: kind for suffix, kind in PILImage.registered_extensions().items() if suffix in EXTENSIONS}
    assert set(known) == EXTENSIONS
    assert set(known.values()) == {"PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP"}
