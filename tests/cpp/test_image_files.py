"""What the native lpips-score reads of image files is what Python reads, or an error."""

import re
import zlib
from collections.abc import Callable
from pathlib import Path

import image_kinds
import native
import numpy as np
import pytest
from PIL import Image as PILImage

from lpips_runtime.errors import InputError
from lpips_runtime.images import Image, load_image

Read = Callable[[dict[str, Callable[[], bytes]]], dict[str, str]]


@pytest.fixture(params=["gcc", "address"])
def read(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Kinds of files -> what is said of each; they are written under the names of their kinds."""
    monkeypatch.chdir(tmp_path)
    flavour = request.param

    def call(kinds: dict[str, Callable[[], bytes]]) -> dict[str, str]:
        for kind, data in kinds.items():
            Path(kind).write_bytes(data())
        program = native.build(flavour) / "tests/read_images"
        ended = native.run(
            program, *map(Path.absolute, map(Path, kinds)), timeout=600, **native.FLAVOURS[flavour].environment
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return dict(zip(kinds, ended.stdout.splitlines(), strict=True))

    return call


def pixels_of(kind: str) -> np.ndarray:
    return np.asarray(PILImage.open(f"{kind}.ppm"))


def by_python(kind: str) -> Image | None:
    try:
        return load_image(kind)
    except InputError:
        return None


def test_png_files_are_the_same_pixels(read: Read) -> None:
    for kind, said in read(image_kinds.read_exactly()).items():
        expected = load_image(kind)
        assert said.split() == ["read:", *sorted(note.kind for note in expected.notes)], kind
        np.testing.assert_array_equal(pixels_of(kind), expected.pixels, kind)


def test_jpeg_files_are_nearly_the_same_pixels(read: Read) -> None:
    for kind, said in read(image_kinds.jpegs() | image_kinds.orientations()).items():
        expected = load_image(kind).pixels
        assert said.split()[0] == "read:", (kind, said)
        found = pixels_of(kind)
        assert found.shape == expected.shape, kind
        assert np.abs(found.astype(int) - expected).mean() < 3, kind


def test_orientations_of_rare_types_are_refused(read: Read) -> None:
    """Pillow takes 6.0 and 6/1 for 6."""
    kinds = image_kinds.rare_orientations()
    for kind, said in read(kinds).items():
        assert "orientation" in said, (kind, said)


def test_what_python_refuses_is_refused(read: Read) -> None:
    for kind, said in read(image_kinds.refused()).items():
        assert by_python(kind) is None, kind
        assert said.startswith(f"{Path(kind).absolute()}: "), (kind, said)


def test_jpeg_files_that_mislead_the_decoder_are_refused(read: Read) -> None:
    for kind, said in read(image_kinds.misleading()).items():
        assert kind.split(":")[0] in said, (kind, said)


@pytest.mark.parametrize("megabytes", [30, 70, 100, 150, 200])
def test_too_little_memory_fails_one_file(megabytes: int, tmp_path: Path) -> None:
    """And is told as that, whatever was wrong with the file before."""
    side = 7000
    large = tmp_path / "large.png"
    content = (b"IDAT", zlib.compress(bytes((side + 1) * side), 1))
    large.write_bytes(image_kinds.png(image_kinds.header(side, side, 8, 0), content))
    for kind, progressive in (("large.jpg", False), ("progressive.jpg", True)):
        PILImage.new("RGB", (side, side // 2)).save(tmp_path / kind, progressive=progressive)
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(image_kinds.read_exactly()["gray"]())
    bad.write_bytes(image_kinds.png(image_kinds.header(40, 36, 8, 2), (b"IDAT", b"none")))
    names = [large, bad, large, tmp_path / "large.jpg", tmp_path / "progressive.jpg", good]
    program = native.build("gcc") / "tests/read_images"
    ended = native.run("sh", "-c", f'ulimit -v {megabytes}000; exec "$0" "$@"', program, *names)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.splitlines()
    assert len(said) == len(names)
    for line in (said[0], said[2]) if megabytes < 200 else ():
        assert line == f"{large}: does not fit into memory when decoded; scale it down or cut it first"
    for line in said[3:5]:
        assert re.search("does not fit into memory|^read:", line)
    assert "damaged" in said[1]
    assert said[-1] == "read:"
