"""Damaged, hostile and missing files: a typed error each, never a crash, a hang or wrong pixels."""

import contextlib
import io
import os
import re
import stat
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    COLOUR_16,
    FILES,
    GRAY,
    INDICES,
    LOSSLESS,
    LOSSY,
    PALETTE,
    PICTURE,
    PLTE,
    RGB,
    encoded,
    mpo,
    noise,
    oriented,
    pillow_pixels,
    png,
    smooth,
    tiff,
)
from PIL import Image as PILImage
from PIL import ImageFile

from lpips_runtime import images, pillow_checks
from lpips_runtime.errors import ImageFileError, ImageFormatError
from lpips_runtime.images import MAX_PIXELS, load_image

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
