"""Transparency: composited over a stated background, refused without."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import (
    EXTRA,
    GRAY,
    GRAY_ALPHA,
    INDICES,
    LOSSLESS,
    PALETTE,
    PLTE,
    RGB,
    WIDE,
    encoded,
    noise,
    png,
    smooth,
    tiff,
)
from PIL import Image as PILImage

from lpips_runtime import images
from lpips_runtime.errors import ImageFormatError, TransparencyError, UsageError
from lpips_runtime.images import load_image

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
    with pytest.raises(TransparencyError, match=f"{transparent} of 30 pixels are transparent.*--background"):
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
