"""FeatureStore: what was kept comes back to the bit or not at all, whoever else reads, writes or damages the folder."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from score_command import Run, full_after, save

from lpips_runtime import Features, FeatureStore, Scorer
from lpips_runtime import store as store_module
from lpips_runtime.errors import ForeignFeaturesError, ModelNotFoundError, StoreError, UsageError
from lpips_runtime.features import Split

Models = Callable[[str], Path]
Opened = Callable[..., Scorer]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def opened(models: Models, tmp_path: Path) -> Iterator[Opened]:
    """Options of a store in `tmp_path / "store"` -> a Scorer that uses it."""
    scorers = []

    def open_one(name: str = "alex", **options: Any) -> Scorer:
        scorers.append(Scorer(models(name), threads=1, features=FeatureStore(tmp_path / "store", **options)))
        return scorers[-1]

    yield open_one
    for scorer in scorers:
        scorer.close()


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each run of a features graph took."""
    counts: list[int] = []
    original = Split._run

    def run(self: Split, batch: Any) -> Any:
        counts.append(batch.count)
        return original(self, batch)

    monkeypatch.setattr(Split, "_run", run)
    return counts


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# What is kept


def test_an_image_is_encoded_once_for_all_scorers(opened: Opened, encodings: list[int]) -> None:
    a = noise(3, 40, 40)
    first = opened().encode(a)
    again = opened().encode(a)
    assert encodings == [3]
    for one, other in zip(first.values, again.values, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (again.notes, again.single, again.height, again.width) == ((), False, 40, 40)


def test_only_what_is_missing_is_encoded_and_doubles_once(opened: Opened, encodings: list[int]) -> None:
    a = noise(4, 40, 40)
    scorer = opened()
    scorer.encode(a[1])
    found = scorer.encode(a[[0, 1, 2, 0]])
    assert encodings == [1, 2]
    np.testing.assert_array_equal(scorer.compare(found[0], found[3]), 0)
    distances = scorer.compare(found, scorer.encode(a[[3] * 4]))
    np.testing.assert_allclose(distances, scorer.score(a[[0, 1, 2, 0]], a[[3] * 4]), rtol=1e-6)


def test_large_features_are_mapped_and_small_ones_read(
    opened: Opened, encodings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_mapped(features: Features) -> bool:
        base: Any = features.values[0]
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        return isinstance(base, np.memmap)

    scorer, a = opened(), noise(40, 40)
    expected = scorer.compare(scorer.encode(a), scorer.encode(noise(40, 40, seed=1)))
    assert not is_mapped(scorer.encode(a))
    monkeypatch.setattr(store_module, "_MAPPED_BYTES", 1)
    assert is_mapped(scorer.encode(a))
    assert scorer.compare(scorer.encode(a), scorer.encode(noise(40, 40, seed=1))) == expected
    assert encodings == [1, 1]


TRUNCATE = """
import itertools, os, sys
from pathlib import Path
from lpips_runtime import Scorer, store
store._MAPPED_BYTES = 1  # as if these images were large
folder, names = Path(sys.argv[2]), sorted(Path(sys.argv[3]).iterdir())
pairs = list(itertools.combinations(names, 2))
with Scorer(sys.argv[1], threads=1) as scorer:
    expected = [result.distance for result in scorer.stream(pairs, batch_size=1)]
with Scorer(sys.argv[1], threads=1, features=folder) as scorer:
    for name in names:
        scorer.encode(name)
    kept = [scorer.encode(name).copy() for name in names]
    found = []
    for result in scorer.stream(pairs, batch_size=1):
        found.append(result.distance)
        for path in folder.rglob("*.npy"):
            os.truncate(path, 4096)
    assert found == expected, (found, expected)
    assert [scorer.compare(kept[names.index(a)], kept[names.index(b)]) for a, b in pairs] == expected
"""


def test_a_file_that_is_truncated_amid_a_job_takes_no_process_down(models: Models, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for seed in range(4):
        PILImage.fromarray(noise(96, 96, seed=seed)).save(tmp_path / "images" / f"{seed}.png")
    arguments = [sys.executable, "-c", TRUNCATE, models("alex"), tmp_path / "store", tmp_path / "images"]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_models_and_precisions_are_not_mixed_up(opened: Opened, encodings: list[int], tmp_path: Path) -> None:
    a = noise(40, 40)
    for options in ({}, {"name": "squeeze"}, {"precision": "fp16"}):
        opened(**options).encode(a)
    assert encodings == [1, 1, 1]
    assert len(files(tmp_path / "store")) == 3
    assert len({path.name for path in files(tmp_path / "store")}) == 1


def test_the_key_is_of_the_pixels_as_they_are_scored(opened: Opened, encodings: list[int], tmp_path: Path) -> None:
    pixels = noise(40, 40)
    for name in ("a.png", "b.bmp"):
        PILImage.fromarray(pixels).save(tmp_path / name)
    scorer = opened()
    for image in (tmp_path / "a.png", tmp_path / "b.bmp", pixels):
        scorer.encode(image)
    assert encodings == [1]
    assert FeatureStore.key(pixels) != FeatureStore.key(pixels.reshape(20, 80, 3))
    assert FeatureStore.key(pixels) != FeatureStore.key(np.rot90(pixels))
    assert FeatureStore.key(np.rot90(pixels)) == FeatureStore.key(np.ascontiguousarray(np.rot90(pixels)))


def test_half_precision_takes_half_the_space_and_moves_distances_little(opened: Opened, tmp_path: Path) -> None:
    a, b = noise(4, 64, 64), noise(4, 64, 64, seed=1)
    exact, half = opened(), opened(precision="fp16")
    sizes = []
    for scorer in (exact, half):
        before = sum(path.stat().st_size for path in files(tmp_path / "store"))
        scorer.compare(scorer.encode(a), scorer.encode(b))
        sizes.append(sum(path.stat().st_size for path in files(tmp_path / "store")) - before)
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.01)
    found = half.compare(half.encode(a), half.encode(b))
    np.testing.assert_allclose(found, exact.score(a, b), rtol=1e-3)
    assert half.encode(a).values[0].dtype == np.float32


def test_half_precision_gives_the_same_before_and_after_it_was_kept(opened: Opened) -> None:
    a, b = noise(40, 40), noise(40, 40, seed=1)
    first = opened(precision="fp16")
    fresh = first.compare(first.encode(a), first.encode(b))
    second = opened(precision="fp16")
    assert second.compare(second.encode(a), second.encode(b)) == fresh
    assert second.compare(second.encode(a), first.encode(a)) == 0


def test_rounded_and_exact_features_are_not_compared(opened: Opened) -> None:
    a = noise(40, 40)
    with pytest.raises(ForeignFeaturesError, match="here, their precision of the store is fp16, not fp32; encode"):
        opened().compare(opened().encode(a), opened(precision="fp16").encode(a))


# Damage


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _other_shapes(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(64, ", b"(32, ", 1))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": _cut,
    "one bit": _flip,
    "zeros": _zeros,
    "empty": lambda path: path.write_bytes(b""),
    "header only": lambda path: path.write_bytes(path.read_bytes()[:128]),
    "no header": lambda path: path.write_bytes(b"something else"),
    "header of nonsense": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((("),
    "an archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
    "plain array": lambda path: path.write_bytes(b"") or np.save(path, np.zeros(9)),
    "objects": lambda path: np.save(path, np.array([{}], object), allow_pickle=True),
    "other shapes": _other_shapes,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_encoded_again_and_replaced(
    opened: Opened, encodings: list[int], tmp_path: Path, damage: str
) -> None:
    a, b = noise(40, 40), noise(40, 40, seed=1)
    scorer = opened()
    expected = scorer.compare(scorer.encode(a), scorer.encode(b))
    (path,) = [path for path in files(tmp_path / "store") if path.stem == FeatureStore.key(a)]
    whole = path.read_bytes()
    DAMAGES[damage](path)
    encodings.clear()
    encoded = scorer.encode(a)
    assert scorer.compare(encoded, scorer.encode(b)) == expected
    (note,) = encoded.notes
    assert (note.kind, encodings) == ("store damaged", [1])
    assert note.text == "encoded again, in place of damaged files of the feature store"
    assert re.fullmatch(re.escape(str(path)) + r": is damaged \(.+\)", note.about)
    assert path.read_bytes() == whole
    assert scorer.encode(a).notes == ()


def test_a_file_under_another_images_name_is_not_taken_for_it(
    opened: Opened, encodings: list[int], tmp_path: Path
) -> None:
    a, b = noise(40, 40), noise(40, 40, seed=1)
    scorer = opened()
    scorer.encode(a)
    scorer.encode(b)
    by_key = {path.stem: path for path in files(tmp_path / "store")}
    by_key[FeatureStore.key(a)].write_bytes(by_key[FeatureStore.key(b)].read_bytes())
    encoded = scorer.encode(a)
    assert "of another image" in encoded.notes[0].about
    assert scorer.compare(encoded, scorer.encode(b)) == pytest.approx(scorer.score(a, b), rel=1e-6)


def test_a_folder_in_a_files_place_is_lived_with(opened: Opened, tmp_path: Path) -> None:
    scorer, a = opened(), noise(40, 40)
    scorer.encode(a)
    (path,) = files(tmp_path / "store")
    path.unlink()
    path.mkdir()
    encoded = scorer.encode(a)
    assert [note.kind for note in encoded.notes] == ["store damaged", "store unwritten"]
    assert scorer.compare(encoded, encoded) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_in_a_files_place_is_not_waited_for(opened: Opened, tmp_path: Path) -> None:
    scorer, a = opened(), noise(40, 40)
    expected = scorer.encode(a)
    (path,) = files(tmp_path / "store")
    path.unlink()
    os.mkfifo(path)
    found = list[Features]()
    reading = threading.Thread(target=lambda: found.append(scorer.encode(a)), daemon=True)
    reading.start()
    reading.join(20)
    assert not reading.is_alive()
    store = tmp_path / "store"
    assert [note.about or note.text for note in found[0].notes] == [
        f"{path}: is damaged (it is no regular file)",
        f"{store}: features cannot be kept there: {path.name} is no regular file; the distances are not affected",
    ]
    np.testing.assert_array_equal(found[0].values[0], expected.values[0])


# Writing that fails


def test_a_full_disk_is_told_and_leaves_the_numbers_and_no_half_file(opened: Opened, tmp_path: Path) -> None:
    scorer = opened()
    images = [noise(40, 40, seed=k) for k in range(3)]
    scorer.encode(images[0])
    with full_after(5000):
        encoded = [scorer.encode(image) for image in images]
    assert [[note.kind for note in one.notes] for one in encoded] == [[], ["store unwritten"], ["store unwritten"]]
    said = f"{tmp_path / 'store'}: features cannot be kept there: File too large; the distances are not affected"
    assert encoded[1].notes[0].text == said
    assert scorer.compare(*encoded[:2]) == pytest.approx(scorer.score(*images[:2]), rel=1e-6)
    assert len(files(tmp_path / "store")) == 1


READ_ONLY = """
import os, sys, numpy as np
from lpips_runtime import Scorer
images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
with Scorer(sys.argv[1], threads=1, features=sys.argv[2]) as scorer:
    for _ in range(2):  # what reading needs is imported too, before the interpreter's own files are out of reach
        scorer.encode(images[0])
    for folder, _, _ in os.walk(sys.argv[2], topdown=False):
        os.chmod(folder, 0o555)
    if os.geteuid() == 0:  # whom no permission stops
        os.setuid(65534)
    for image in images:
        print(*[note.text for note in scorer.encode(image).notes])
"""


def test_a_store_that_cannot_be_written_is_still_read(models: Models) -> None:
    # Not in tmp_path, whose parents are closed to others.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        arguments = [sys.executable, "-c", READ_ONLY, models("alex"), folder]
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
        for path in [Path(folder), *Path(folder).rglob("*")]:
            path.chmod(0o755)
    said = f"{folder}: features cannot be kept there: Permission denied; the distances are not affected"
    assert ended.stdout.splitlines() == ["", said], ended.stderr


@pytest.mark.parametrize("name", ["a file", "below/a file", "nul\0"])
def test_what_cannot_be_a_store_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("x")
    (tmp_path / "below").write_text("x")
    with pytest.raises(StoreError, match=r"cannot be a feature store: .*; name a folder") as caught:
        FeatureStore(tmp_path / name)
    assert caught.value.exit_code == 2


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'int8', must be one of fp32, fp16"):
        FeatureStore(tmp_path, precision="int8")


def test_a_store_needs_the_siblings(plain_model: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely.onnx"
    lonely.write_bytes(plain_model.read_bytes())
    with pytest.raises(ModelNotFoundError, match=r"lonely_features\.onnx: no such model.*--split"):
        Scorer(lonely, features=tmp_path / "store")


# Several processes

ENCODE = """
import sys, numpy as np
from lpips_runtime import Scorer
with Scorer(sys.argv[1], threads=1, features=sys.argv[2]) as scorer:
    for _ in range(int(sys.argv[3])):
        for seed in range(12):
            image = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            encoded = scorer.encode(image)
            assert not encoded.notes, encoded.notes
            print(float(sum(value.sum(dtype="f8") for value in encoded.values)))
"""


def encoding(model: Path, folder: Path, rounds: int = 1) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", ENCODE, model, folder, str(rounds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_share_a_store(models: Models, tmp_path: Path) -> None:
    together = [encoding(models("alex"), tmp_path / "store") for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in together]
    assert [process.returncode for process in together] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    assert len(files(tmp_path / "store")) == 12
    alone = encoding(models("alex"), tmp_path / "other")
    assert alone.communicate(timeout=120)[0] == ended[0][0]


def test_a_killed_writer_leaves_nothing_that_is_taken_for_features(models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    for _ in range(3):
        killed = encoding(models("alex"), folder, rounds=1000)
        while not files(folder):
            assert killed.poll() is None, killed.communicate()
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        for path in files(folder)[::2]:
            path.unlink()
    after = encoding(models("alex"), folder)
    out, err = after.communicate(timeout=120)
    assert (after.returncode, err, len(out.splitlines())) == (0, "", 12)


def test_a_lock_of_another_process_holds_up_nothing(opened: Opened, encodings: list[int], tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    scorer, a = opened(), noise(40, 40)
    scorer.encode(a)
    handles = [os.open(path, os.O_RDONLY) for path in [tmp_path / "store", *files(tmp_path / "store")]]
    try:
        for handle in handles:
            fcntl.flock(handle, fcntl.LOCK_EX)
        assert scorer.encode(a).notes == ()
        assert scorer.encode(noise(40, 40, seed=1)).notes == ()
    finally:
        for handle in handles:
            os.close(handle)
    assert encodings == [1, 1]


# The command


def test_the_command_keeps_what_it_encodes(run: Run, encodings: list[int]) -> None:
    for number in range(3):
        save(f"frames/{number}.png", number)
    call = ("--all-pairs", "frames", "--feature-store", "kept")
    code, out, err = run(*call)
    assert (code, len(out.splitlines()), len(files(Path("kept")))) == (0, 3, 3)
    assert encodings
    encodings.clear()
    assert run(*call) == (code, out, err)
    assert encodings == []
    assert run(*call, "--feature-precision", "fp16")[0] == 0
    assert len(files(Path("kept"))) == 6


def test_the_command_counts_damaged_files_and_the_pairs_that_they_are_of(run: Run) -> None:
    for number in range(4):
        save(f"frames/{number}.png", number)
    call = ("--all-pairs", "frames", "--feature-store", "kept")
    code, out, err = run(*call)
    damaged = files(Path("kept"))
    for path in damaged:
        _flip(path)
    said = (
        r"note: frames/0\.png, frames/1\.png and 2 other pairs: encoded again, in place of damaged "
        r"files of the feature store: .*/(\w+)\.npy: is damaged \(its checksum does not fit\) and 3 other files\n"
    )
    again = run(*call)
    assert again[:2] == (code, out)
    found = re.fullmatch(said + re.escape(err), again[2])
    assert found
    assert found[1] in {path.stem for path in damaged}
    _flip(damaged[0])
    assert re.search(r"store: .*/\w+\.npy: is damaged \(its checksum does not fit\)\n", run(*call)[2])
    assert run(*call) == (code, out, err)


def test_the_command_says_that_a_store_is_full(run: Run) -> None:
    with full_after(5000):
        code, out, err = run("a.png", "b.png", "--feature-store", "kept")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err == (
        f"note: a.png, b.png: {Path('kept').absolute()}: features cannot be kept there: File too large; "
        "the distances are not affected\n"
    )


def test_the_command_refuses_what_cannot_be_meant(run: Run) -> None:
    assert run("a.png", "b.png", "--feature-precision", "fp16") == (
        2,
        "",
        "error: --feature-precision is of the store; give --feature-store DIR too\n",
    )
    code, out, err = run("a.png", "b.png", "--feature-store", "a.png")
    assert (code, out, err) == (2, "", "error: a.png: cannot be a feature store: File exists; name a folder\n")
    assert run("a.png", "b.png", "--feature-store", "") == (
        2,
        "",
        "error: the folder of the feature store is ''; name one, '.' for the current folder\n",
    )
    assert not [path for path in Path().iterdir() if path.is_dir()]
