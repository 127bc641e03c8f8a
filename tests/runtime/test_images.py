"""Image file -> checked RGB: what is read, and as which pixels."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import (
    COLOUR_16,
    COMPRESSION,
    DEFLATE,
    FILES,
    GRAY,
    GRAY_ALPHA,
    LOSSLESS,
    LOSSY,
    PICTURE,
    PLANAR,
    PLANES,
    RAW,
    WIDE,
    encoded,
    mpo,
    noted,
    oriented,
    pillow_pixels,
    png,
    smooth,
    tiff,
)
from PIL import Image as PILImage
from PIL import ImageCms

from lpips_runtime.errors import UsageError
from lpips_runtime.images import EXTENSIONS, Note, load_image, parse_color

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


WIDE[..., 3] |= 0xFF00  # opaque in the high byte


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


def test_primary_picture_of_a_multi_picture_jpeg_is_used(write):
    image = load_image(write(mpo(), "phone.jpg"))
    np.testing.assert_array_equal(image.pixels, pillow_pixels(encoded(PICTURE, "JPEG")))
    assert noted(image) == ["mpo"]


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
