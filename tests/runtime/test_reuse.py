"""Jobs that compare an image again encode it once: the same numbers, in the memory that was allowed."""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
from PIL import Image as PILImage
from score_command import Run, save

from lpips_runtime import FeatureStore, Result, Scorer, reuse, stream
from lpips_runtime.features import Features, Split
from lpips_runtime.images import Image, load_image
from lpips_runtime.memory import SPLIT_COSTS
from lpips_runtime.reuse import Reuse

Models = Callable[[str], Path]
COUNT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 0.png to 7.png and another.png of 48x40 noise, written an hour ago, and odd.png, which is larger."""
    folder = tmp_path_factory.mktemp("images")
    for k in range(COUNT):
        write(folder / f"{k}.png", k)
    write(folder / "another.png", 98)
    write(folder / "odd.png", 99, size=(50, 40))
    return folder


def write(path: Path, seed: int, size: tuple[int, int] = (48, 40), age: float = 3600) -> Path:
    PILImage.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


def every(folder: Path) -> list[tuple[Path, Path]]:
    return list(itertools.combinations((folder / f"{k}.png" for k in range(COUNT)), 2))


def one_against_others(folder: Path) -> list[tuple[Path, Path]]:
    return [(folder / "0.png", folder / f"{k}.png") for k in range(1, COUNT)]


@pytest.fixture(params=["alex", "squeeze"])
def scorer(models: Models, request: pytest.FixtureRequest) -> Any:
    with Scorer(models(request.param), threads=1) as scorer:
        yield scorer


@pytest.fixture
def alex(models: Models) -> Any:
    with Scorer(models("alex"), threads=1) as scorer:
        yield scorer


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images were decoded and encoded, one by one and in pairs."""
    counted: Counter[str] = Counter()

    def load(path: Path, **options: Any) -> Image:
        counted["decoded"] += 1
        return load_image(path, **options)

    def encode(self: Split, batch: Any, **options: Any) -> Features:
        counted["encoded"] += batch.count
        return originals[0](self, batch, **options)

    def run(self: Scorer, reference: Any, distorted: Any, **options: Any) -> Any:
        counted["in pairs"] += 2 * reference.count
        return originals[1](self, reference, distorted, **options)

    originals = Split.encode, Scorer.run
    monkeypatch.setattr(stream, "load_image", load)
    monkeypatch.setattr(Split, "encode", encode)
    monkeypatch.setattr(Scorer, "run", run)
    return counted


def lonely(models: Models, folder: Path) -> Path:
    """The model without its siblings."""
    return Path(shutil.copy(models("alex"), folder / "lonely.onnx"))


def expected(scorer: Scorer, pairs: list[tuple[Path, Path]]) -> list[float]:
    return [float(scorer.score(*pair)) for pair in pairs]


def distances(results: list[Result]) -> list[float]:
    assert [result.error for result in results] == [None] * len(results)
    return [result.distance or 0.0 for result in results]


# What is computed


@pytest.mark.parametrize("pairs", [every, one_against_others])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_each_image_of_a_job_is_encoded_and_decoded_once(
    scorer: Scorer, folder: Path, work: Counter[str], pairs: Callable[[Path], list[tuple[Path, Path]]], batch_size: int
) -> None:
    job = pairs(folder)
    results = list(scorer.stream(job, batch_size=batch_size))
    if batch_size == 1:  # no pair knows of the next one: the first is left to the pair graph
        assert work["in pairs"] == 2
        assert work["encoded"] <= COUNT
    else:
        assert work == {"decoded": COUNT, "encoded": COUNT}
    np.testing.assert_allclose(distances(results), expected(scorer, job), rtol=1e-6)
    assert {note for result in results for note in result.notes} == set()


def test_pairs_without_repetition_are_left_to_the_pair_graph(alex: Scorer, folder: Path, work: Counter[str]) -> None:
    job = [(folder / f"{k}.png", folder / f"{k + 1}.png") for k in range(0, COUNT, 2)]
    assert distances(list(alex.stream(job))) == expected(alex, job)
    assert work["encoded"] == 0


def test_one_image_that_came_twice_among_many_does_not_change_the_way(
    alex: Scorer, folder: Path, work: Counter[str]
) -> None:
    job = [(folder / f"{k}.png", folder / f"{k + 1}.png") for k in range(0, COUNT, 2)]
    job.append((folder / "0.png", folder / "another.png"))
    list(alex.stream(job))
    assert work["encoded"] == 0


def test_an_image_that_comes_back_much_later_is_encoded_then_and_kept(
    alex: Scorer, folder: Path, work: Counter[str]
) -> None:
    again = [(folder / "0.png", folder / f"{k}.png") for k in (3, 5, 7)]
    job = [(folder / f"{k}.png", folder / f"{k + 1}.png") for k in range(0, COUNT, 2)] + again
    results = list(alex.stream(job, batch_size=1))
    assert work["in pairs"] == COUNT
    assert work["encoded"] == 4
    np.testing.assert_allclose(distances(results), expected(alex, job), rtol=1e-6)


def test_maps_and_pixels_come_with_reused_features_too(alex: Scorer, folder: Path, work: Counter[str]) -> None:
    job = one_against_others(folder)
    results = list(alex.stream(job, maps=True))
    assert work["encoded"] == COUNT
    for (reference, distorted), result in zip(job, results, strict=True):
        np.testing.assert_allclose(result.detail.map, alex.detail(reference, distorted).map, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(result.pixels, load_image(distorted).pixels)


def test_pairs_that_cannot_be_scored_fail_alone_and_as_before(alex: Scorer, folder: Path) -> None:
    job = [(folder / "0.png", folder / name) for name in ("1.png", "odd.png", "2.png", "gone.png", "3.png")]
    results = list(alex.stream(job))
    assert [result.error for result in results] == [
        None,
        "reference is 40x48, distorted is 40x50 (width x height); "
        "LPIPS compares images of one size, resize or crop one of them",
        None,
        f"{folder}/gone.png: no such file; check the path",
        None,
    ]


def test_a_file_that_changes_amid_the_job_is_read_again(alex: Scorer, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.png", 0), tmp_path / "b.png"
    found, true = [], []

    def job() -> Any:
        for seed in range(1, 9):
            write(b, seed, age=0 if seed % 2 else 3600 + seed)
            true.append(alex.score(a, b))
            yield a, b
            while len(found) < seed:  # asked for ahead, by another thread
                pass

    for result in alex.stream(job(), batch_size=1):
        found.append(result.distance)
    np.testing.assert_allclose(found, true, rtol=1e-6)


# In which memory


def test_the_cache_keeps_to_its_bytes(
    alex: Scorer, folder: Path, work: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = alex.encode(folder / "0.png").nbytes + 48 * 40 * 3
    held = []
    original = reuse._Cache.add

    def add(self: reuse._Cache, *arguments: Any) -> None:
        original(self, *arguments)
        held.append((self._bytes, sum(f.nbytes + i.pixels.nbytes for i, f in self._kept.values())))

    monkeypatch.setattr(reuse._Cache, "add", add)
    monkeypatch.setattr(stream, "Reuse", lambda *arguments: Reuse(*arguments, limit=5 * one))
    job = every(folder)
    results = list(alex.stream(job))
    assert max(said for said, _ in held) == 5 * one
    assert all(said == true for said, true in held)
    assert work["encoded"] > COUNT
    np.testing.assert_allclose(distances(results), expected(alex, job), rtol=1e-6)


def test_images_too_large_for_the_cache_are_left_to_the_pair_graph_and_it_is_said(
    alex: Scorer, folder: Path, work: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = alex.encode(folder / "0.png").nbytes
    work.clear()
    monkeypatch.setattr(stream, "Reuse", lambda *arguments: Reuse(*arguments, limit=2 * one))
    job = every(folder)
    results = list(alex.stream(job))
    assert work["encoded"] == 0
    assert distances(results) == expected(alex, job)
    assert [note.kind for note in results[-1].notes] == ["unkept"]


@pytest.mark.parametrize("name", ["alex", "squeeze"])
def test_features_are_no_larger_than_is_reckoned_with(models: Models, name: str) -> None:
    with Scorer(models(name)) as scorer:
        found = scorer.encode(np.zeros((256, 320, 3), np.uint8)).nbytes / (256 * 320)
        assert 0.9 * SPLIT_COSTS[name].kept < found <= SPLIT_COSTS[name].kept


# Without siblings


def test_what_split_would_save_is_said_once_it_is_worth_it(models: Models, folder: Path, tmp_path: Path) -> None:
    with Scorer(lonely(models, tmp_path), threads=1) as scorer:
        short = list(scorer.stream(one_against_others(folder)[:4]))
        assert {note for result in short for note in result.notes} == set()
        job = every(folder)
        long = list(scorer.stream(job))
        assert distances(long) == expected(scorer, job)
    (note,) = long[-1].notes
    assert note.kind == "unsplit"
    assert "lpips-export --split" in note.text


def test_siblings_of_another_export_are_said_and_not_used(models: Models, folder: Path, tmp_path: Path) -> None:
    for kind, version in (("", "0.1"), ("_features", "0.0"), ("_compare", "0.1")):
        onnx_files.relabelled(models(f"alex{kind}"), tmp_path / f"m{kind}.onnx", version=version)
    job = every(folder)
    with Scorer(tmp_path / "m.onnx", threads=1) as scorer:
        results = list(scorer.stream(job))
        assert distances(results) == expected(scorer, job)
    (note,) = results[-1].notes
    assert "m_features.onnx: does not belong to m.onnx, its version is 0.0, not 0.1" in note.text


def test_the_command_says_it_on_stderr(run: Run, models: Models, here: Path) -> None:
    for number in range(COUNT):
        save(f"frames/{number}.png", number)
    _, with_siblings, quiet = run("--all-pairs", "frames")
    assert "note" not in quiet
    _, without, told = run("--all-pairs", "frames", "-m", lonely(models, here))
    assert "lpips-export --split" in told
    assert [line.split("\t")[1:] for line in without.splitlines()] == [
        line.split("\t")[1:] for line in with_siblings.splitlines()
    ]


# The same numbers, however the job is cut


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """All pairs of 5 images and a copy of each, of two sizes in turn, shuffled."""
    folder = tmp_path_factory.mktemp("twins")
    job = []
    for size in ((48, 40), (72, 56)):
        paths = [write(folder / f"{k}{copy}_{size[0]}.png", k, size) for k in range(5) for copy in "ab"]
        job += itertools.combinations(paths, 2)
    return [job[k] for k in np.random.default_rng(0).permutation(len(job))]


def numbers(results: list[Result]) -> list[tuple[float | None, Any]]:
    distances(results)
    return [(result.distance, result.layers) for result in results]


def is_twin(pair: tuple[Path, Path]) -> bool:
    return pair[0].name[0] == pair[1].name[0]


def test_equal_files_are_at_exactly_zero_whenever_they_were_encoded(
    scorer: Scorer, twins: list[tuple[Path, Path]]
) -> None:
    results = list(scorer.stream(twins))
    assert [result.distance == 0 for result in results] == [is_twin(pair) for pair in twins]
    batch = scorer.encode(np.stack([load_image(path).pixels for path in {p for pair in twins[:1] for p in pair}] * 3))
    assert scorer.compare(batch[0], batch[len(batch) - 2]) == 0


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("start", [0, 1, 37])
def test_numbers_depend_on_neither_batches_nor_on_where_a_job_is_resumed(
    scorer: Scorer, twins: list[tuple[Path, Path]], batch_size: int, start: int
) -> None:
    whole = numbers(list(scorer.stream(twins)))
    assert numbers(list(scorer.stream(twins[start:], batch_size=batch_size))) == whole[start:]


def test_the_bits_are_those_of_the_pair_graph(scorer: Scorer, twins: list[tuple[Path, Path]]) -> None:
    for pair, (distance, layers) in zip(twins, numbers(list(scorer.stream(twins))), strict=True):
        detail = scorer.detail(*pair)
        assert (distance, layers) == (float(detail.distance[0]), tuple(map(float, detail.layers[0])))


def test_where_bits_may_differ_images_are_always_encoded_one_by_one(
    alex: Scorer, folder: Path, work: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reuse, "_alike", False)
    list(alex.stream([(folder / f"{k}.png", folder / f"{k + 1}.png") for k in range(0, COUNT, 2)]))
    assert work == {"decoded": COUNT, "encoded": COUNT}


# Notes


def test_a_damaged_file_of_the_store_is_told_for_its_image_alone_and_once(
    models: Models, folder: Path, tmp_path: Path
) -> None:
    job = every(folder)
    with Scorer(models("alex"), threads=1, features=tmp_path / "kept") as scorer:
        list(scorer.stream(job))
        key = FeatureStore.key(load_image(folder / "2.png").pixels)
    (damaged,) = (tmp_path / "kept").rglob(f"{key}.npy")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with Scorer(models("alex"), threads=1, features=tmp_path / "kept") as scorer:
        told = [(pair[1].name, note.kind) for pair, r in zip(job, scorer.stream(job), strict=True) for note in r.notes]
    assert told == [("2.png", "store damaged")]


def test_tiles_are_told_and_that_the_store_is_not_used_for_them(models: Models, tmp_path: Path) -> None:
    job = [(write(tmp_path / "a.png", 0, (1100, 1300)), write(tmp_path / f"{k}.png", k, (1100, 1300))) for k in (1, 2)]
    with Scorer(models("alex"), features=tmp_path / "kept", max_memory="250MB") as scorer:
        kinds = [[note.kind for note in result.notes] for result in scorer.stream(job)]
    assert kinds == [["tiled", "unstored"]] * 2
    assert not list((tmp_path / "kept").rglob("*.npy"))


def test_no_siblings_are_missed_where_images_are_cut_into_tiles(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "_WORTH_A_WORD", 1)
    a = write(tmp_path / "a.png", 0, (1100, 1300))
    with Scorer(lonely(models, tmp_path), max_memory="250MB") as scorer:
        results = list(scorer.stream([(a, a)] * 2))
    assert [[note.kind for note in result.notes] for result in results] == [["tiled"]] * 2


@pytest.mark.parametrize(
    ("provider", "device", "host"), [("cpu", 0, True), ("openvino", 0, True), ("openvino", 1, False)]
)
def test_only_the_cpu_is_where_features_lie(
    alex: Scorer,
    folder: Path,
    work: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    device: int,
    host: bool,
) -> None:
    monkeypatch.setattr(Reuse, "_device", (provider, device))
    list(alex.stream(every(folder)))
    assert ("encoded" in work) is host
