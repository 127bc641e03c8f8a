"""score_stream: pairs in, results out, in order, with memory and files touched as little as promised."""

import gc
import queue
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from lpips_runtime import Detail, Pair, Result, Scorer, lookahead, stream
from lpips_runtime.arrays import Batch
from lpips_runtime.errors import DamagedModelError, PairingError, ProviderError, UsageError
from lpips_runtime.images import load_image
from lpips_runtime.stream import _PAIRS as BATCH
from lpips_runtime.stream import score_stream

WINDOW = 4 * BATCH

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
    return [thread for thread in threading.enumerate() if thread.name.startswith("lpips-")]


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
@pytest.mark.parametrize("good", [0, 1, 12, WINDOW + 1])
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
    for count in range(1, 200):
        next(results)
        assert taken <= count + WINDOW
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
        for k in range(WINDOW + BATCH):
            yield folder / "2.png", folder / f"{3 + k % 7}.png"
        yield folder / "0.png", folder / "1.png"

    list(scorer.stream(pairs()))
    assert (loads["0.png"], loads["2.png"]) == (2, 1)


@pytest.mark.parametrize("reference", ["0.png", "bad.png"])
def test_memory_does_not_grow_with_the_stream(scorer: Scorer, folder: Path, reference: str) -> None:
    """bad.png: the one exception that all pairs share must not gather a traceback from each."""

    pairs = ((folder / reference, folder / f"{k % 10}.png") for k in range(2300))
    results = scorer.stream(pairs)
    for _ in range(200):
        next(results)
    tracemalloc.start()
    try:
        for _ in range(2000):
            next(results)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 800_000  # one image takes 3 kB, so that all would take 6 MB
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
    # Each under another path, or they would be decoded once.
    pairs = ((folder, Path(folder, *["..", folder.name] * k)) for k in range(1, 3 * WINDOW))
    with closing(scorer.stream((a / "0.png", b / "1.png") for a, b in pairs)) as results:
        next(results)
        deadline = time.monotonic() + 10
        while loads["1.png"] < WINDOW and time.monotonic() < deadline:
            time.sleep(0.01)
        assert WINDOW <= loads["1.png"] <= WINDOW + 1


# Batches


class Recorder:
    """Stands before a scorer, notes the size of each batch and the height of its images, and fails where told to."""

    def __init__(self, scorer: Scorer, fails: Callable[[Batch, Batch], Exception | None] = lambda *_: None) -> None:
        self.scorer = scorer
        self.batches: list[tuple[int, int]] = []
        self._fails = fails

    def run(self, reference: Batch, distorted: Batch, *, depths: bool = True) -> Detail:
        self.batches.append((reference.count, reference.height))
        if error := self._fails(reference, distorted):
            raise error
        return self.scorer.run(reference, distorted, depths=depths)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scorer, name)

    def stream(self, pairs: Iterable[tuple[Path, Path]], **options: Any) -> list[Result]:
        return list(score_stream(self, pairs, **options))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches do not depend on how busy the machine is."""
    monkeypatch.setattr(lookahead, "_PATIENCE", 10)


@pytest.fixture
def recorder(quick_model: Path, patient: None) -> Recorder:
    return Recorder(Scorer(quick_model))


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images {side}_{k}.png, k from 0 to 9."""
    folder = tmp_path_factory.mktemp("sizes")
    for side in (16, 20, 24, 362, 513, 725):
        for k in range(10 if side < 300 else 2):
            pixels = np.random.default_rng(k).integers(0, 256, (side, side, 3), dtype=np.uint8)
            PILImage.fromarray(pixels).save(folder / f"{side}_{k}.png", compress_level=0)
    return folder


def test_pairs_of_one_size_are_scored_together_whatever_lies_between(recorder: Recorder, sizes: Path) -> None:
    names = [(f"{side}_{k % 10}.png", f"{side}_{(k + 1) % 10}.png") for k in range(16) for side in (16, 20, 24)]
    pairs = [(sizes / a, sizes / b) for a, b in names]
    results = recorder.stream(pairs)
    assert recorder.batches == [(16, 16), (16, 20), (16, 24)]
    assert [result.distance for result in results] == [recorder.scorer.score(a, b) for a, b in pairs]


def test_failures_do_not_part_a_batch(recorder: Recorder, folder: Path) -> None:
    pairs = [(folder / f"{name}.png", folder / "1.png") for k in range(8) for name in (k, "bad", "gone", "large")]
    assert [result.error is None for result in recorder.stream(pairs)] == [True, False, False, False] * 8
    assert recorder.batches == [(8, 32), *[(1, 40)] * 8]


@pytest.mark.parametrize(("side", "batch"), [(16, 16), (362, 4), (513, 1), (725, 1)])
def test_the_larger_the_images_the_smaller_the_batch(recorder: Recorder, sizes: Path, side: int, batch: int) -> None:
    recorder.stream([(sizes / f"{side}_0.png", sizes / f"{side}_1.png")] * 16)
    assert recorder.batches == [(batch, side)] * (16 // batch)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batch_size_says_how_many(recorder: Recorder, sizes: Path, batch_size: int) -> None:
    recorder.stream([(sizes / "16_0.png", sizes / "16_1.png")] * 240, batch_size=batch_size)
    assert [count for count, _ in recorder.batches] == {1: [1] * 240, 3: [3] * 80, 100: [100, 100, 40]}[batch_size]


@pytest.mark.parametrize("batch_size", [0, -1, 1025, 1.5, "8"])
def test_a_batch_size_that_is_none(scorer: Scorer, batch_size: Any) -> None:
    with pytest.raises(UsageError, match=f"batch_size is {batch_size!r}, it must be a whole number from 1 to 1024"):
        scorer.stream([], batch_size=batch_size)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([16, 20, 24]), *[st.integers(0, 9)] * 2), max_size=100), st.integers(1, 7))
def test_a_pair_has_the_same_numbers_in_any_batch(
    quick_model: Path, sizes: Path, rows: list[tuple[int, int, int]], batch_size: int
) -> None:
    pairs = [(sizes / f"{side}_{a}.png", sizes / f"{side}_{b}.png") for side, a, b in rows]
    scorer = Scorer(quick_model)
    assert list(scorer.stream(pairs, batch_size=batch_size)) == list(scorer.stream(pairs, batch_size=1))


@pytest.mark.parametrize("name", ["alex", "squeeze_baseline", "alex_uint8"])
def test_real_nets_give_a_pair_the_same_numbers_in_any_batch(models: Models, name: str) -> None:
    chance = np.random.default_rng(1)
    references = chance.integers(0, 256, (7, 45, 50, 3), dtype=np.uint8)
    distorted = np.clip(references + chance.integers(-30, 30, references.shape), 0, 255).astype(np.uint8)
    with Scorer(models(name)) as scorer:
        together = scorer.detail(references, distorted)
        for k in range(7):
            alone = scorer.detail(references[k], distorted[k])
            assert alone.distance[0] == together.distance[k]
            np.testing.assert_array_equal(alone.layers[0], together.layers[k])
            np.testing.assert_array_equal(alone.map[0], together.pair(k).map[0])


def too_many(most: int, error: Exception) -> Callable[[Batch, Batch], Exception | None]:
    return lambda reference, _: error if reference.count > most else None


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("error", [MemoryError(), ProviderError("Failed to allocate memory")])
def test_a_batch_too_large_for_the_memory_is_halved_and_so_are_later_ones(
    quick_model: Path, sizes: Path, error: Exception
) -> None:
    recorder = Recorder(Scorer(quick_model), too_many(5, error))
    results = recorder.stream([(sizes / "16_0.png", sizes / "16_1.png")] * 48)
    assert all(result.error is None for result in results)
    counts = [count for count, _ in recorder.batches]
    assert counts[:7] == [16, 8, 4, 4, 8, 4, 4]
    assert set(counts[7:]) == {4}


@pytest.mark.usefixtures("patient")
def test_after_that_batches_of_larger_images_are_smaller_still(quick_model: Path, sizes: Path) -> None:
    recorder = Recorder(Scorer(quick_model), too_many(8, MemoryError()))
    recorder.stream([(sizes / f"{side}_0.png", sizes / f"{side}_1.png") for side in [16] * 16 + [24] * 16])
    assert recorder.batches == [(16, 16), (8, 16), (8, 16), *[(3, 24)] * 5, (1, 24)]


def test_a_pair_that_does_not_fit_alone_is_that_pairs_failure(quick_model: Path, sizes: Path) -> None:
    recorder = Recorder(Scorer(quick_model), too_many(0, MemoryError()))
    results = recorder.stream([(sizes / "16_0.png", sizes / "16_1.png")] * 3)
    assert [result.error for result in results] == ["not enough memory"] * 3


@pytest.mark.usefixtures("patient")
def test_one_bad_pair_takes_no_other_of_its_batch_down_and_batches_stay_large(quick_model: Path, sizes: Path) -> None:
    bad = np.asarray(PILImage.open(sizes / "16_7.png"))

    def fails(reference: Batch, _: Batch) -> Exception | None:
        return ProviderError("no") if (reference.pixels == bad).all(axis=(1, 2, 3)).any() else None

    recorder = Recorder(Scorer(quick_model), fails)
    results = recorder.stream([(sizes / f"16_{k}.png", sizes / "16_1.png") for k in [*range(10), *[0] * 22]])
    assert [result.error is None for result in results] == [k != 7 for k in range(32)]
    assert results[7].error == "no"
    assert recorder.batches[-1] == (16, 16)


def test_little_memory_for_real_halves_the_batch(models: Models, tmp_path: Path) -> None:
    """In a process that may take a little more than it has: ONNX Runtime runs short with 16 pairs, not with one."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "RLIMIT_AS") or not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc and a limit of the address space")
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for name in "ab":
        PILImage.fromarray(pixels[::-1] if name == "b" else pixels).save(tmp_path / f"{name}.png")
    program = """
import resource, sys
from lpips_runtime import Scorer, lookahead
lookahead._PATIENCE = 10
model, small, a, b = sys.argv[1:]
counts = []
class Counted(Scorer):
    def run(self, reference, distorted, **options):
        counts.append(reference.count)
        return super().run(reference, distorted, **options)
scorer = Counted(model, provider="cpu", threads=1)
alone = scorer.score(a, b)
results = scorer.stream([(small, small)] + [(a, b)] * 48, batch_size=16)
assert next(results).distance == 0  # all threads run
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 60 * 2**20,) * 2)
del counts[:]
assert [result.distance for result in results] == [alone] * 48
assert counts[0] == 16 and max(counts[-3:]) < 16, counts
"""
    PILImage.fromarray(pixels[:40, :40]).save(tmp_path / "small.png")
    files = [tmp_path / f"{name}.png" for name in ("small", "a", "b")]
    ended = subprocess.run(
        [sys.executable, "-c", program, str(models("alex_uint8")), *map(str, files)],  # it has no siblings
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr


# Sources that block


class Pipe:
    """An iterable of pairs that blocks until it is given some."""

    def __init__(self) -> None:
        self._pairs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.give = self._pairs.put

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pairs.get, None)


def test_no_result_waits_for_a_source_that_blocks(scorer: Scorer, folder: Path) -> None:
    pipe = Pipe()
    results = scorer.stream(pipe)
    for count in (1, 5, 1, BATCH + 1):
        for k in range(count):
            pipe.give((folder / "0.png", folder / f"{k % 10}.png"))
        for k in range(count):
            assert Path(next(results).distorted).name == f"{k % 10}.png"
    pipe.give(None)
    assert list(results) == []
    assert not decoders()


def test_a_reference_of_many_is_decoded_once_however_slowly_they_come(
    scorer: Scorer, folder: Path, loads: Counter[str]
) -> None:
    pipe = Pipe()
    results = scorer.stream(pipe)
    for k in range(5):
        pipe.give((folder / "0.png", folder / f"{k + 1}.png"))
        assert next(results).distance is not None
    pipe.give(None)
    assert list(results) == []
    assert loads["0.png"] == 1


def test_a_stream_closes_while_its_source_blocks(scorer: Scorer, folder: Path) -> None:
    pipe = Pipe()
    results = scorer.stream(pipe)
    pipe.give((folder / "0.png", folder / "1.png"))
    next(results)
    results.close()
    pipe.give((folder / "0.png", folder / "1.png"))  # the last thing that is asked of it
    deadline = time.monotonic() + 10
    while decoders() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not decoders()


def test_an_interrupt_of_the_source_is_one_of_the_stream(scorer: Scorer, folder: Path) -> None:
    def pairs() -> Iterator[tuple[Path, Path]]:
        yield folder / "0.png", folder / "1.png"
        raise KeyboardInterrupt

    results = scorer.stream(pairs())
    next(results)
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert not decoders()


def test_what_is_no_iterable_is_a_wrong_call(scorer: Scorer) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        next(scorer.stream(7))  # pyright: ignore[reportArgumentType]


def test_closing_the_scorer_amid_a_stream_is_a_wrong_call(models: Models, folder: Path) -> None:
    scorer = Scorer(models("squeeze_baseline"))
    results = scorer.stream((folder / "0.png", folder / "1.png") for _ in range(10 * WINDOW))
    next(results)
    scorer.close()
    with pytest.raises(UsageError, match="this Scorer is closed"):
        list(results)
    assert not decoders()


def test_bytes_bound_the_window_too(scorer: Scorer, sizes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookahead, "_BYTES", 10 * 725 * 725 * 3)
    taken = 0

    def pairs() -> Iterator[tuple[Path, Path]]:
        nonlocal taken
        while True:
            taken += 1
            yield sizes / "725_0.png", sizes / "725_1.png"

    results = scorer.stream(pairs())
    next(results)
    time.sleep(0.3)
    assert 4 <= taken <= 8  # five pairs are waiting, one is out
    results.close()


_INTERRUPTED = """
import sys, threading, time
from lpips_runtime import Scorer, lookahead, stream

decoding, interrupted = [], []

class Interrupted(threading.Condition):
    def __enter__(self):
        held = super().__enter__()
        # Once, and while a decoder is at work that will want the lock.
        if threading.current_thread() is threading.main_thread() and decoding and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt  # as a signal handler does that runs before the `with` has begun
        return held

class Threading:
    Condition = Interrupted

    def __getattr__(self, name):
        return getattr(threading, name)

def slowly(path, **options):
    decoding.append(path)
    time.sleep(0.2)
    decoding.remove(path)
    return load(path, **options)

lookahead.threading = Threading()
load, stream.load_image = stream.load_image, slowly
model, *images = sys.argv[1:]
try:
    list(Scorer(model).stream(zip(images, images[1:]), batch_size=1))
except KeyboardInterrupt:
    print("ended")
"""


def test_an_interrupt_in_the_midst_of_locking_ends_the_stream(quick_model: Path, folder: Path) -> None:
    call = [sys.executable, "-c", _INTERRUPTED, str(quick_model), *(str(folder / f"{k}.png") for k in range(10))]
    assert subprocess.run(call, capture_output=True, text=True, check=True, timeout=60).stdout == "ended\n"
