"""Tiles and smaller batches give what the whole gives, on real sessions with random weights."""

import importlib.util
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpips_runtime.arrays import Batch, as_batch
from lpips_runtime.contract import seal
from lpips_runtime.session import Session
from lpips_runtime.tiling import Outputs, Part, Span, cut, parts, run_parts

Sessions = Callable[[str], Session]

# Name -> the ExportSpec it comes from; what is not among them is one of the models of the runtime's tests.
EXPORTS = {"vgg": {"net": "vgg", "quick": True}, "alex fp16": {"net": "alex", "precision": "fp16", "quick": True}}

slow = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    """Name of a model -> a session of it with one thread, opened once."""
    opened: dict[str, Session] = {}

    def file(name: str) -> Path:
        if name not in EXPORTS and name != "alex int8":
            return request.getfixturevalue("models")(name)
        if importlib.util.find_spec("lpips_export") is None:
            pytest.skip("the exporter is not installed")
        if name in EXPORTS:
            return request.getfixturevalue("exported")(**EXPORTS[name])[0]
        from int8_graph import Int8Net

        net = Int8Net("alex", request.getfixturevalue("random_backbone")("alex"))
        path = tmp_path_factory.mktemp("int8") / "alex.onnx"
        # One convolution in float, one of two planes: all that an INT8 graph may hold.
        path.write_bytes(seal(net.graph("cpu", in_float={0}, in_planes={1}).SerializeToString()))
        return path

    def get(name: str) -> Session:
        if name not in opened:
            opened[name] = Session(file(name), provider="cpu", threads=1)
        return opened[name]

    return get


def images(count: int, height: int, width: int, seed: int = 0) -> tuple[Batch, Batch]:
    """Noise on a slope that is another in the second batch, uint8."""
    chance = np.random.default_rng(seed)
    slope = np.linspace(0, 128, width)[:, None] + np.linspace(0, 60, height)[:, None, None]
    first = slope + chance.integers(0, 64, (count, height, width, 3))
    second = first * 0.8 + chance.integers(0, 50, (count, height, width, 3))
    return as_batch(first.astype(np.uint8), "first"), as_batch(second.astype(np.uint8), "second")


def as_float(batch: Batch) -> Batch:
    return as_batch(batch.pixels.transpose(0, 3, 1, 2) / np.float32(255), "", value_range=(0, 1))


def assert_equal(found: Outputs, whole: Outputs) -> None:
    (distance, layers, *depths), (expected, shares, *maps) = found, whole
    np.testing.assert_allclose(distance, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(layers, shares, rtol=1e-5, atol=1e-7)
    assert [depth.shape for depth in depths] == [expected.shape for expected in maps]
    for depth, wanted in zip(depths, maps, strict=True):
        np.testing.assert_allclose(depth, wanted, rtol=1e-5, atol=1e-6 * wanted.max())
    for array in (distance, layers, *depths):
        assert array.dtype == np.float32


# Exactness


@pytest.mark.parametrize(
    ("name", "longest", "examples"),
    [
        ("alex", 520, 20),
        ("alex_uint8", 520, 8),
        ("squeeze_baseline", 520, 12),
        ("vgg", 330, 5),
        ("alex int8", 520, 6),
        ("alex fp16", 420, 4),
    ],
)
def test_tiles_give_the_numbers_of_the_whole(session: Sessions, name: str, longest: int, examples: int) -> None:
    runner = session(name)
    side = st.integers(runner.info.min_size, longest)

    @settings(slow, max_examples=examples)
    @given(side, side, st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
    def check(height: int, width: int, rows: int, columns: int, seed: int) -> None:
        rows, columns = (min(count, -(-side // 16)) for count, side in ((rows, height), (columns, width)))
        pair = images(1, height, width, seed)
        whole = run_parts(runner, *pair, Part(None), depths=True)
        assert_equal(run_parts(runner, *pair, Part(1, rows, columns), depths=True), whole)

    check()


# Left over at the right and lower edge: of every number of pixels, since floor and ceiling pooling differ there.
@pytest.mark.parametrize("name", ["alex", "squeeze_baseline", "vgg"])
@pytest.mark.parametrize("rest", range(0, 16, 5))
def test_what_is_left_over_at_the_edge_counts(session: Sessions, name: str, rest: int) -> None:
    runner = session(name)
    pair = images(1, 40 + rest, 272 + rest, rest)
    whole = run_parts(runner, *pair, Part(None), depths=True)
    # Of 288 pixels at most the halo would leave none out of the first tile of two.
    assert cut(272, 4, runner.info)[0].stop < 272
    assert_equal(run_parts(runner, *pair, Part(1, 1, 4), depths=True), whole)


@pytest.mark.parametrize("name", ["alex", "squeeze_baseline", "vgg"])
def test_the_halo_is_needed_to_the_last_step_of_the_stride(
    session: Sessions, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = session(name)
    pair = images(1, 48, 400)
    _, _, *whole = run_parts(runner, *pair, Part(None), depths=True)
    monkeypatch.setattr(runner, "info", replace(runner.info, halo=runner.info.halo - runner.info.stride))
    _, _, *found = run_parts(runner, *pair, Part(1, 1, 3), depths=True)
    assert not np.array_equal(found[-1], whole[-1])


@pytest.mark.parametrize("name", ["alex", "alex_uint8"])
def test_batches_in_parts_give_the_numbers_of_the_whole(session: Sessions, name: str) -> None:
    runner = session(name)
    pair = images(5, 60, 150)
    whole = run_parts(runner, *pair, Part(None), depths=True)
    for part in (Part(2), Part(4), Part(1), Part(1, 1, 3)):
        assert_equal(run_parts(runner, *pair, part, depths=True), whole)


def test_float_images_are_cut_as_8_bit_ones_are(session: Sessions) -> None:
    first, second = map(as_float, images(2, 70, 260))
    whole = run_parts(session("alex"), first, second, Part(None), depths=True)
    assert_equal(run_parts(session("alex"), first, second, Part(1, 2, 3), depths=True), whole)


def test_without_depths_no_map_is_kept_and_the_distance_is_the_same(session: Sessions) -> None:
    pair = images(2, 50, 300)
    distance, layers, *depths = run_parts(session("alex"), *pair, Part(1, 1, 3), depths=False)
    assert not depths
    expected, shares, *_ = run_parts(session("alex"), *pair, Part(1, 1, 3), depths=True)
    assert np.array_equal(distance, expected)
    assert np.array_equal(layers, shares)


# How an image is cut


@settings(slow)
@given(st.integers(1, 5000), st.integers(1, 40))
def test_spans_own_each_pixel_once_and_lie_on_the_grid(side: int, count: int) -> None:
    count = min(count, -(-side // 16))
    spans = cut(side, count, onnx_files.INFO)
    assert len(spans) == count
    assert [spans[0].first, *(span.last for span in spans)] == [*(span.first for span in spans), side]
    for span in spans:
        assert span.start % 16 == span.first % 16 == 0
        assert span.first - span.start in (96, span.first)
        assert span.stop - span.last in (96, side - span.last)
        assert span.first < span.last
    owned = [span.last - span.first for span in spans[:-1]]
    assert not owned or max(owned) - min(owned) <= 16


def test_the_last_tile_owns_whatever_a_depth_has_left() -> None:
    first, last = cut(250, 2, onnx_files.INFO)
    assert (first, last) == (Span(0, 224, 0, 128), Span(32, 250, 128, 250))
    assert first.positions(16) == slice(0, 8)
    assert last.positions(16) == slice(6, None)


@settings(slow, max_examples=30)
@given(st.integers(16, 4000), st.integers(16, 4000))
def test_parts_say_how_many_pixels_they_take(height: int, width: int) -> None:
    found = list(parts(height, width, onnx_files.INFO))
    assert found[0] == Part(1)
    for part in found[:: max(1, len(found) // 5)]:
        spans = [cut(side, n, onnx_files.INFO) for side, n in ((height, part.rows), (width, part.columns))]
        areas = [(a.stop - a.start) * (b.stop - b.start) for a, b in itertools.product(*spans)]
        assert part.tiles == len(areas)
        assert max(areas) <= part.largest(height, width, onnx_files.INFO)
        assert sum(areas) <= part.computed(height, width, onnx_files.INFO) <= 4.1 * height * width
