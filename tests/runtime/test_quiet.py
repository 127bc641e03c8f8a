"""Pillow's warnings stay inside; those of others do not."""

import random
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_files import (
    FILES,
    GRAY_8,
    ORIENTATION,
    PICTURE,
    RGB,
    SAMPLES,
    encoded,
    mpo,
    pillow_pixels,
    png,
    smooth,
    tiff,
)

from lpips_runtime import images, quiet
from lpips_runtime.images import load_image


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
