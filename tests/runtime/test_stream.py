"""score_stream: pairs in, results out, in order, with memory and files touched as little as promised."""

import gc
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from lpips_runtime import Pair, Scorer, stream
from lpips_runtime.errors import DamagedModelError, PairingError, UsageError
from lpips_runtime.images import load_image
from lpips_runtime.stream import _AHEAD, score_stream

Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def scorer(models: Models) -> Scorer:
    return Scorer(models("squeeze_baseline"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 0.png to 9.png of 32x32 noise, of which bad.png is none and large.png is 40x40."""
    folder = tmp_path_factory.mktemp("images")
    chance = np.random.default_rng(0)
    for k in range(10):
        PILImage.fromarray(chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    PILImage.fromarray(chance.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / "large.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts, by name, the files that are decoded."""
    counted: Counter[str] = Counter()

    def load(path: Path, **options: object) -> object:
        counted[path.name] += 1
        return load_image(path, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(stream, "load_image", load)
    return counted


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lpips-decode")]


# Results


def test_results_come_in_order_with_the_right_numbers(scorer: Scorer, folder: Path) -> None:
    pairs = [(folder / f"{k % 10}.png", folder / f"{k * 7 % 10}.png") for k in range(40)]
    results = list(scorer.stream(pairs))
    assert [(result.reference, result.distorted) for result in results] == [(str(a), str(b)) for a, b in pairs]
    assert [result.distance for result in results] == [scorer.score(a, b) for a, b in pairs]
    for result in results:
        assert result.layers is not None
        assert len(result.layers) == 7
        assert sum(result.layers) == pytest.approx(result.distance, rel=1e-6)


def test_names_are_those_of_the_pair_not_of_its_paths(scorer: Scorer, folder: Path) -> None:
    (result,) = scorer.stream([Pair("shown", "too", folder / "0.png", folder / "1.png")])
    assert (result.reference, result.distorted) == ("shown", "too")
    assert result.distance == scorer.score(folder / "0.png", folder / "1.png")


def test_a_failure_in_between_is_a_result_and_the_rest_goes_on(scorer: Scorer, folder: Path) -> None:
    unpaired = Pair("a", "b", folder / "0.png", folder / "1.png", error="no partner")
    pairs = [
        (folder / "0.png", folder / "1.png"),
        (folder / "bad.png", folder / "1.png"),
        (folder / "0.png", folder / "gone.png"),
        (folder / "0.png", folder / "large.png"),
        unpaired,
        (folder / "0.png", folder / "1.png"),
    ]
    results = list(scorer.stream(pairs))
    assert [result.distance is None for result in results] == [False, True, True, True, True, False]
    assert [result.error for result in results[1:5]] == [
        f"{folder}/bad.png: not a PNG, JPEG, WebP, TIFF or BMP image; convert it to one of them",
        f"{folder}/gone.png: no such file; check the path",
        "reference is 32x32, distorted is 40x40 (width x height); "
        "LPIPS compares images of one size, resize or crop one of them",
        "no partner",
    ]
    assert results[0].distance == results[5].distance


def test_a_pair_with_an_error_opens_no_file(scorer: Scorer, folder: Path, loads: Counter[str]) -> None:
    list(scorer.stream([Pair("a", "b", folder / "0.png", folder / "1.png", error="no partner")]))
    assert not loads


def test_too_little_memory_is_a_failure_of_its_pair(
    scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path, **options: object) -> object:
        if path.name == "3.png":
            raise MemoryError
        return load_image(path, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(stream, "load_image", load)
    results = list(scorer.stream([(folder / "0.png", folder / f"{k}.png") for k in range(5)]))
    assert [result.error for result in results] == [None, None, None, "not enough memory", None]


def test_a_damaged_model_is_a_failure_of_each_pair(folder: Path, tmp_path: Path) -> None:
    nodes = [onnx_files.node("Neg", "d", "n"), onnx_files.node("Sqrt", "n", "distance")]
    (tmp_path / "m.onnx").write_bytes(onnx_files.squared_difference({"distance": nodes}))
    results = list(Scorer(tmp_path / "m.onnx").stream([(folder / "0.png", folder / "1.png")] * 3))
    assert all(result.error and "values that are not finite" in result.error for result in results)
    with pytest.raises(DamagedModelError):
        Scorer(tmp_path / "m.onnx").score(folder / "0.png", folder / "1.png")


def test_maps_carry_detail_and_pixels(scorer: Scorer, folder: Path) -> None:
    pairs = [(folder / "0.png", folder / f"{k}.png") for k in range(3)]
    for result, (reference, distorted) in zip(scorer.stream(pairs, maps=True), pairs, strict=True):
        assert result.pixels is not None
        np.testing.assert_array_equal(result.pixels, np.asarray(PILImage.open(distorted)))
        np.testing.assert_array_equal(result.detail.map, scorer.detail(reference, distorted).map)
    for result in scorer.stream(pairs):
        assert (result.detail, result.pixels) == (None, None)


def test_notes_of_both_files_are_kept(scorer: Scorer, folder: Path, tmp_path: Path) -> None:
    gray = tmp_path / "gray.png"
    PILImage.fromarray(np.full((32, 32), 40_000, np.uint16)).save(gray)
    first, second, third = scorer.stream(
        [(folder / "0.png", gray), (gray, folder / "0.png"), (folder / "0.png", folder / "0.png")]
    )
    assert [note.kind for note in first.notes] == [note.kind for note in second.notes] == ["gray16"]
    assert third.notes == ()


def test_the_background_reaches_the_files(models: Models, folder: Path, tmp_path: Path) -> None:
    PILImage.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    PILImage.new("RGB", (32, 32), (7, 8, 9)).save(tmp_path / "full.png")
    pair = (tmp_path / "clear.png", tmp_path / "full.png")
    with Scorer(models("squeeze_baseline"), background=(7, 8, 9)) as scorer:
        assert [result.distance for result in scorer.stream([pair])] == [0]
        (refused,) = score_stream(scorer, [pair])
    assert refused.error is not None
    assert "1,024 of 1,024 pixels are transparent" in refused.error


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.sampled_from([*"0123", "bad", "gone", "large"])] * 2), max_size=15))
def test_any_list_gives_as_many_results_in_its_order(
    scorer: Scorer, folder: Path, names: list[tuple[str, str]]
) -> None:
    results = list(scorer.stream((folder / f"{a}.png", folder / f"{b}.png") for a, b in names))
    assert [(Path(result.reference).stem, Path(result.distorted).stem) for result in results] == names
    for result, (a, b) in zip(results, names, strict=True):
        readable = {a, b}.isdisjoint(("bad", "gone"))
        assert (result.distance is not None) == (readable and (a == "large") == (b == "large"))
        assert a != b or result.distance in (0, None)


# Errors of the pairs, or of the call


@pytest.mark.parametrize("error", [PairingError("table.csv, line 9: not UTF-8"), OSError("disk"), KeyError("row")])
@pytest.mark.parametrize("good", [0, 1, _AHEAD, 12])
def test_what_breaks_the_pairs_comes_after_all_earlier_results(
    scorer: Scorer, folder: Path, error: Exception, good: int
) -> None:
    def pairs() -> Iterator[tuple[Path, Path]]:
        for k in range(good):
            yield folder / "0.png", folder / f"{k % 10}.png"
        raise error

    results = []
    with pytest.raises(type(error)) as caught:
        results.extend(scorer.stream(pairs()))
    assert caught.value is error
    assert [Path(result.distorted).name for result in results] == [f"{k % 10}.png" for k in range(good)]
    assert not decoders()


@pytest.mark.parametrize("pair", [("a.png",), ("a", "b", "c"), 7, None, (b"a.png", "b.png"), (1, 2)])
def test_what_is_no_pair_is_a_wrong_call(scorer: Scorer, folder: Path, pair: object) -> None:
    results = scorer.stream([(folder / "0.png", folder / "1.png"), pair])  # pyright: ignore[reportArgumentType]
    assert next(results).distance is not None
    with pytest.raises(UsageError, match="is no pair; give a Pair, or the paths of two image files"):
        next(results)


def test_a_wrong_background_is_a_wrong_call_not_a_failed_pair(scorer: Scorer, folder: Path) -> None:
    with pytest.raises(UsageError, match="is not a colour"):
        list(score_stream(scorer, [(folder / "0.png", folder / "1.png")], background=(0, 0, 999)))


def test_an_unforeseen_error_ends_the_stream(scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path, **options: object) -> object:
        raise ZeroDivisionError(path.name)

    monkeypatch.setattr(stream, "load_image", load)
    with pytest.raises(ZeroDivisionError, match=r"0\.png"):
        list(scorer.stream([(folder / "0.png", folder / "1.png")]))
    assert not decoders()


# Frugality


def test_nothing_is_touched_before_the_first_result_is_asked_for(
    scorer: Scorer, folder: Path, loads: Counter[str]
) -> None:
    taken = []
    results = scorer.stream((taken.append(k) or (folder / "0.png", folder / "1.png")) for k in range(3))
    assert (taken, decoders(), dict(loads)) == ([], [], {})
    results.close()


def test_pairs_are_taken_only_a_few_ahead(scorer: Scorer, folder: Path) -> None:
    taken = 0

    def pairs() -> Iterator[tuple[Path, Path]]:
        nonlocal taken
        while True:
            taken += 1
            yield folder / "0.png", folder / "1.png"

    results = scorer.stream(pairs())
    for count in range(1, 30):
        next(results)
        assert taken <= count + _AHEAD
    results.close()


def test_a_reference_of_many_is_decoded_once(scorer: Scorer, folder: Path, loads: Counter[str]) -> None:
    pairs = [(folder / "0.png", folder / f"{1 + k % 9}.png") for k in range(45)]
    assert len(list(scorer.stream(pairs))) == 45
    assert loads["0.png"] == 1


def test_a_reference_that_cannot_be_read_is_tried_once_and_reported_for_all(
    scorer: Scorer, folder: Path, loads: Counter[str]
) -> None:
    results = list(scorer.stream((folder / "bad.png", folder / "1.png") for _ in range(30)))
    assert {result.error for result in results} == {
        f"{folder}/bad.png: not a PNG, JPEG, WebP, TIFF or BMP image; convert it to one of them"
    }
    assert loads["bad.png"] == 1


def test_an_image_no_longer_needed_is_let_go(scorer: Scorer, folder: Path, loads: Counter[str]) -> None:
    def pairs() -> Iterator[tuple[Path, Path]]:
        yield folder / "0.png", folder / "1.png"
        for k in range(20):
            yield folder / "2.png", folder / f"{3 + k % 7}.png"
        yield folder / "0.png", folder / "1.png"

    list(scorer.stream(pairs()))
    assert (loads["0.png"], loads["2.png"]) == (2, 1)


@pytest.mark.parametrize("reference", ["0.png", "bad.png"])
def test_memory_does_not_grow_with_the_stream(scorer: Scorer, folder: Path, reference: str) -> None:
    """bad.png: the one exception that all pairs share must not gather a traceback from each."""

    pairs = ((folder / reference, folder / f"{k % 10}.png") for k in range(1300))
    results = scorer.stream(pairs)
    for _ in range(200):
        next(results)
    tracemalloc.start()
    try:
        for _ in range(1000):
            next(results)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 150_000  # one image takes 3 kB, so that all would take 3 MB
    finally:
        tracemalloc.stop()


def test_closing_early_leaves_no_thread(scorer: Scorer, folder: Path) -> None:
    results = scorer.stream((folder / "0.png", folder / "1.png") for _ in range(100))
    next(results)
    assert decoders()
    results.close()
    assert not decoders()
    with pytest.raises(StopIteration):
        next(results)


def test_a_stream_that_is_dropped_leaves_no_thread(scorer: Scorer, folder: Path) -> None:
    for _ in scorer.stream((folder / "0.png", folder / "1.png") for _ in range(100)):
        break
    gc.collect()
    assert not decoders()


def test_finished_streams_leave_no_thread(scorer: Scorer, folder: Path) -> None:
    assert list(scorer.stream([])) == []
    assert len(list(scorer.stream([(folder / "0.png", folder / "1.png")]))) == 1
    assert not decoders()


def test_streams_can_run_side_by_side(scorer: Scorer, folder: Path) -> None:
    pairs = [(folder / "0.png", folder / f"{k}.png") for k in range(10)]
    one, other = scorer.stream(pairs), scorer.stream(reversed(pairs))
    together = [(next(one).distance, next(other).distance) for _ in pairs]
    assert [a for a, _ in together] == [b for _, b in together][::-1]


def test_decoding_runs_while_a_result_is_looked_at(scorer: Scorer, folder: Path, loads: Counter[str]) -> None:
    results = scorer.stream((folder / f"{k}.png", folder / "0.png") for k in range(10))
    next(results)
    deadline = time.monotonic() + 10
    while len(loads) < _AHEAD and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(loads) >= _AHEAD
    results.close()
