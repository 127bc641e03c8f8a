"""What Pillow misreads, and what is refused by its header."""

import struct
import time

import numpy as np
import pytest
from image_files import (
    BITS,
    COMPRESSION,
    DEFLATE,
    FORMAT,
    GRAY_8,
    HEIGHT,
    PALETTE,
    PHOTOMETRIC,
    PICTURE,
    PLANAR,
    PLANES,
    RGB,
    ROWS,
    SUBSAMPLING,
    WIDE,
    WIDTH,
    encoded,
    pillow_pixels,
    png,
    smooth,
    tiff,
)
from PIL import Image as PILImage

from lpips_runtime.errors import ImageFileError, ImageFormatError
from lpips_runtime.images import load_image

# --- what Pillow misreads ---


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
