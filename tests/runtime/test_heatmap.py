"""The picture: readable at any size, honest about its scale, written whole or not at all."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont, _util

from lpips_runtime import heatmap
from lpips_runtime.errors import OutputError, ShapeError, UsageError
from lpips_runtime.heatmap import HEATMAP_FORMATS, render, save_heatmap

MARGIN = 15  # of pictures whose text has the smallest size


def gray(height: int, width: int, level: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def ramp(height: int, width: int, peak: float = 1.0) -> np.ndarray:
    """Zero at the left, `peak` at the right."""
    return np.broadcast_to(np.linspace(0, peak, width, dtype=np.float32), (height, width)).copy()


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L*, 0..100, of sRGB 0..255 in the last axis."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def find(page: Image.Image, picture: Image.Image) -> tuple[int, int] | None:
    """Where `picture` lies on `page`, at its left margin."""
    whole, part = np.asarray(page), np.asarray(picture)
    for top in range(page.height - picture.height + 1):
        if np.array_equal(whole[top : top + picture.height, MARGIN : MARGIN + picture.width], part):
            return MARGIN, top
    return None


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that are drawn, in order."""
    texts: list[str] = []
    draw = heatmap._text

    def spy(text: str, size: int) -> Image.Image:
        texts.append(text)
        return draw(text, size)

    monkeypatch.setattr(heatmap, "_text", spy)
    return texts


# The scale


def test_lighter_is_always_more_and_evenly_so() -> None:
    levels = lightness(heatmap._colours())
    assert np.diff(levels).min() > 0
    even = np.linspace(levels[0], levels[-1], 256)
    assert np.abs(levels - even).max() < 4


@pytest.mark.parametrize("level", [0, 64, 128, 255])
def test_greater_values_are_lighter_whatever_lies_below(level: int) -> None:
    spatial_map = ramp(1, 256)
    picture = heatmap._overlay(spatial_map, gray(1, 256, level), np.float32(1))
    levels = lightness(np.asarray(picture)[0].astype(float))
    # Over white the first tint of colour darkens a little; nobody may take that for a difference.
    assert (levels - np.maximum.accumulate(levels)).min() > -6
    assert np.diff(levels[64:]).min() > -0.5
    assert levels[-1] > 85


def test_zero_shows_the_dimmed_image_without_colour() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    picture = np.asarray(heatmap._overlay(np.zeros((20, 30), np.float32), photo, np.float32(1)))
    assert (picture == picture[..., :1]).all()
    assert picture.max() < 128
    luminance = np.asarray(Image.fromarray(photo).convert("L"))
    assert np.corrcoef(picture[..., 0].ravel(), luminance.ravel())[0, 1] > 0.99


@given(top=st.floats(float(np.float32(1e-30)), float(np.float32(3e38)), width=32), height=st.integers(165, 3000))
def test_ticks_are_round_distinct_and_do_not_touch(top: float, height: int) -> None:
    room = height / (1.6 * 15)
    ticks = heatmap._ticks(top, room)
    values = [0, *(value for value, _ in ticks), top]
    assert len(values) <= 10
    assert min(np.diff(values)) / top * room >= 0.999  # text is 1.25 of its size high, a place on the bar 1.6
    for value, label in ticks:
        assert float(label) == pytest.approx(value, rel=1e-6)
        assert re.fullmatch(r"[\d.]+(e-?[1-9]\d*)?", label)
    if ticks:
        step = f"{ticks[0][0]:.6e}"
        assert step[:8] in ("1.000000", "2.000000", "5.000000")


@pytest.mark.parametrize(
    ("peak", "labels"),
    [
        (0.8734, ["0", "0.2", "0.4", "0.6", "0.8", "0.873"]),
        (1.3, ["0", "0.2", "0.4", "0.6", "0.8", "1.0", "1.2", "1.3"]),
        (0.0432, ["0", "0.01", "0.02", "0.03", "0.04", "0.0432"]),
        (2.3e-5, ["0", "5e-6", "1.0e-5", "1.5e-5", "2.0e-5", "2.3e-5"]),
        (2.3e8, ["0", "5e7", "1.0e8", "1.5e8", "2.0e8", "2.3e8"]),
        (2300, ["0", "500", "1000", "1500", "2000", "2.3e3"]),
    ],
)
def test_the_scale_is_written_in_units_of_the_map(written: list[str], peak: float, labels: list[str]) -> None:
    render(ramp(400, 400, peak), gray(400, 400), title="t")
    shown = [text for text in written if re.fullmatch(r"[\d.e+-]+", text)]
    assert shown == labels
    assert "LPIPS per pixel" in written


def test_a_lower_top_of_the_scale_says_so(written: list[str]) -> None:
    render(ramp(64, 64, 2.0), gray(64, 64), title="t", vmax=0.5)
    assert "0.5+" in written
    written.clear()
    render(ramp(64, 64, 0.25), gray(64, 64), title="t", vmax=0.5)
    assert "0.5" in written


def test_each_tick_stands_at_its_colour() -> None:
    bar = heatmap._colour_bar(np.float32(1.3), 1301, 15, exceeded=False)
    pixels = np.asarray(bar.image)[bar.overhang : bar.overhang + 1301]
    ticks = np.flatnonzero((pixels[:, 18 + 2] == heatmap._INK).all(axis=1))
    np.testing.assert_array_equal(1300 - ticks, [1300, 1200, 1000, 800, 600, 400, 200, 0])
    for tick in ticks:
        values = np.full((1, 1), (1300 - tick) / 1000, np.float32)
        np.testing.assert_array_equal(
            pixels[tick, 5], np.asarray(heatmap._overlay(values, gray(1, 1), np.float32(1.3)))[0, 0]
        )


def test_a_twentieth_of_the_scale_is_seen() -> None:
    values = np.array([[0.05]], np.float32)
    red, green, blue = np.asarray(heatmap._overlay(values, gray(1, 1), np.float32(1)))[0, 0].astype(int)
    assert blue - green > 20
    assert abs(red - green) < 20


def test_what_exceeds_the_scale_has_its_top_colour() -> None:
    values = np.array([[0.5, 0.6, 1e30, 0.5]], np.float32)
    picture = np.asarray(heatmap._overlay(values, gray(1, 4), np.float32(0.5)))
    assert (picture == picture[0, 0]).all()


def test_one_scale_for_two_pictures_gives_equal_colours() -> None:
    low, high = (np.full((400, 400), value, np.float32) for value in (0.25, 0.5))
    high[:, :200] = 0.25
    both = [np.asarray(render(values, gray(400, 400), title="t", vmax=1.0)) for values in (low, high)]
    np.testing.assert_array_equal(both[0][:, :200], both[1][:, :200])
    assert (both[0] != both[1]).any()


# The page


def test_an_all_zero_map_has_only_zero_on_its_scale(written: list[str]) -> None:
    page = render(np.zeros((64, 64), np.float32), gray(64, 64), title="alex v0.1 · 0.0")
    assert [text for text in written if text[0].isdigit()] == ["0"]
    assert page.getpixel((MARGIN + 100, page.height // 2)) == (54, 54, 54)


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    peak=st.sampled_from([0.0, 1e-45, 1e-20, 0.3, 3e38]),
    title=st.text(max_size=40),
)
def test_any_size_is_drawn_whole(size: tuple[int, int], peak: float, title: str) -> None:
    spatial_map = np.zeros(size, np.float32)
    spatial_map.flat[-1] = peak
    page = render(spatial_map, gray(*size), title=title)
    assert page.mode == "RGB"
    pixels = np.asarray(page)
    paper = pixels[0, 0]
    for edge in (pixels[:8], pixels[-3:], pixels[:, :8], pixels[:, -8:]):
        assert (edge == paper).all(), "something reaches the edge of the page"


@pytest.mark.parametrize(
    ("height", "width", "factor"),
    [(64, 64, 6), (31, 31, 12), (200, 300, 1), (40, 400, 2), (400, 40, 2), (31, 1000, 1), (427, 640, 1)],
)
def test_small_images_grow_by_whole_pixels(height: int, width: int, factor: int) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    spatial_map = np.random.default_rng(2).random((height, width), dtype=np.float32)
    small = heatmap._overlay(spatial_map, photo, spatial_map.max())
    grown = Image.fromarray(np.asarray(small).repeat(factor, axis=0).repeat(factor, axis=1))
    assert find(render(spatial_map, photo, title="t"), grown) is not None


def test_text_grows_with_large_images() -> None:
    extra = [render(ramp(side, side), gray(side, side), title="t").width - side for side in (400, 700, 1600, 3200)]
    assert extra[0] == extra[1]
    assert 1.8 < extra[3] / extra[2] < 2.2


def test_a_long_title_is_wrapped_within_the_page() -> None:
    word = "photographs/a_very_long_file_name_that_goes_on_and_on_and_on_and_on.png"
    title = f"alex v0.1 · 0.7219 · {word}\nagain"
    one, three = (render(ramp(400, 40), gray(400, 40), title=text) for text in ("alex", title))
    assert three.height - one.height == 2 * heatmap._text("again", 17).height
    assert one.width < three.width < 400
    pixels = np.asarray(three)
    assert (pixels[:, -MARGIN:] == pixels[0, 0]).all()
    assert heatmap._wrapped(title, 15, 3000) == [" ".join(title.split())]
    lines = heatmap._wrapped(title, 15, 240)
    assert (lines[0], lines[2]) == ("alex v0.1 · 0.7219 ·", "again")
    assert re.fullmatch(r"photographs/.+\.\.\..+on\.png", lines[1])
    assert 200 < heatmap._text(lines[1], 15).width <= 240


@pytest.fixture
def no_freetype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFont, "core", _util.DeferredError.new(ImportError("no _imagingft")))
    heatmap._font.cache_clear()


@pytest.mark.usefixtures("no_freetype")
def test_without_freetype_the_text_is_plainer(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(heatmap._font.cache_clear)
    size = heatmap._text("0.7219", 15).height
    assert size == 11
    assert heatmap._text("0.7219", 44).height == 44
    page = render(ramp(64, 64), gray(64, 64), title="alex v0.1 · 写真.png")
    assert np.asarray(page)[: MARGIN + 11].max() > 200


# What is refused


@pytest.mark.parametrize(
    ("spatial_map", "distorted", "words"),
    [
        (ramp(4, 4).astype(np.float64), gray(4, 4), "the map is float64"),
        (ramp(4, 4)[None], gray(4, 4), r"the map is float32 \[1, 4, 4\]"),
        (np.empty((0, 4), np.float32), gray(0, 4), r"\[0, 4\]"),
        (ramp(4, 4), gray(4, 5), r"distorted image is uint8 \[4, 5, 3\].*must be uint8 \[4, 4, 3\]"),
        (ramp(4, 4), gray(4, 4).astype(np.float32), "distorted image is float32"),
        (np.full((4, 4), np.nan, np.float32), gray(4, 4), "from nan to nan"),
        (np.full((4, 4), np.inf, np.float32), gray(4, 4), "to inf"),
        (np.full((4, 4), -0.1, np.float32), gray(4, 4), "from -0.1"),
    ],
)
def test_refuses_arrays(spatial_map: np.ndarray, distorted: np.ndarray, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        render(spatial_map, distorted, title="t")


@pytest.mark.parametrize("vmax", [0.0, -1.0, math.nan, math.inf, 1e-60])
def test_refuses_a_scale_without_a_top(vmax: float) -> None:
    with pytest.raises(UsageError, match="the top of the scale is"):
        render(ramp(4, 4), gray(4, 4), title="t", vmax=vmax)


# The file


@pytest.mark.parametrize("suffix", [*HEATMAP_FORMATS, ".PNG"])
def test_the_suffix_names_the_format(tmp_path: Path, suffix: str) -> None:
    page = render(ramp(64, 64), gray(64, 64), title="t")
    path = tmp_path / f"map{suffix}"
    save_heatmap(path, page)
    with Image.open(path) as saved:
        assert saved.format == HEATMAP_FORMATS[suffix.lower()][0]
        assert saved.size == page.size
        error = np.abs(np.asarray(saved.convert("RGB")).astype(int) - np.asarray(page)).mean()
    assert error < 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["map.gif", "map", "map.onnx"])
def test_refuses_another_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"no picture format goes by the suffix .*use one of \.png"):
        save_heatmap(tmp_path / name, Image.new("RGB", (4, 4)))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/map\.png: cannot be written: its folder does not exist"):
        save_heatmap(tmp_path / "nowhere/map.png", Image.new("RGB", (4, 4)))


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "map.webp"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"map\.webp: cannot be written as WEBP: "):
        save_heatmap(path, Image.new("RGB", (16_384, 1)))  # WebP ends at 16,383
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "map.png"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match=r"map\.png: cannot be written as PNG: .*File too large"):
            save_heatmap(path, render(ramp(300, 300), gray(300, 300), title="t"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
