"""What a folder of photographs becomes: which are chosen, what is cut from them, and what is kept apart."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from int8_graph import cut_photographs
from PIL import Image

from lpips_export import calibration
from lpips_export.calibration import LEAST_IMAGES, Calibration, Pairs, load_calibration
from lpips_export.distortions import DISTORTIONS, VARIANTS
from lpips_export.errors import CalibrationError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One crop of each picture: enough to see where crops come from."""
    monkeypatch.setattr(calibration, "_CROPS", {"calibration": 1, "held out": 1})


def load(folder: Path, count: int = 64, notes: list[str] | None = None) -> Calibration:
    return load_calibration(folder, count, ([] if notes is None else notes).append)


def everything(found: Calibration) -> list[np.ndarray]:
    parts = [found.images]
    for pairs in (found.costs, found.held_out):
        parts += [pairs.reference, pairs.distorted, pairs.source, np.array(pairs.distortion)]
    return parts


def same(one: Calibration, other: Calibration) -> bool:
    alike = [np.array_equal(*parts) for parts in zip(everything(one), everything(other), strict=True)]
    return all(alike) and one.facts == other.facts


def mark(picture: int) -> tuple[int, int]:
    """Red and green of all pixels of a painted picture, far from those of any other."""
    return 10 + 40 * (picture % 6), 10 + 40 * (picture // 6)


def paint(folder: Path, count: int, size: tuple[int, int] = (70, 64), start: int = 0) -> Path:
    """Pictures that tell by red and green which one a pixel is from; blue varies, so that no two crops are equal."""
    folder.mkdir(exist_ok=True)
    for picture in range(start, start + count):
        pixels = np.random.default_rng(picture).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        pixels[..., :2] = mark(picture)
        Image.fromarray(pixels).save(folder / f"{picture:03}.png")
    return folder


def painted_on(images: np.ndarray) -> set[tuple[int, int]]:
    """The marks in uint8 [N, H, W, 3], each image of which must be of one source."""
    found: set[tuple[int, int]] = set()
    for image in images:
        colours = np.unique(image[..., :2].reshape(-1, 2), axis=0)
        assert len(colours) == 1, "a crop shows one picture"
        found.add((int(colours[0][0]), int(colours[0][1])))
    return found


def as_they_are(found: Calibration) -> np.ndarray:
    """Of the images for ranges, those that are a crop as it was cut, which is the first of each group."""
    assert next(iter(VARIANTS)) == "as it is"
    return found.images[:: len(VARIANTS) + 1]


# --- which files, and always the same


def test_the_same_files_give_the_same_crops_whatever_the_folder_is_called(photographs: Path, tmp_path: Path) -> None:
    other = tmp_path / "another" / "place"
    shutil.copytree(photographs, other)
    for age, path in enumerate(sorted(other.iterdir(), reverse=True)):
        os.utime(path, (10**9 + age, 10**9 + age))
    assert same(load(photographs), load(other))


@pytest.mark.usefixtures("few")
def test_neither_the_names_nor_the_folders_of_the_files_decide_when_all_are_used(
    photographs: Path, tmp_path: Path
) -> None:
    for number, path in enumerate(sorted(photographs.iterdir(), reverse=True)):
        copy = tmp_path / f"sub{number % 3}" / f"renamed-{number}{path.suffix}"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    assert same(load(photographs), load(tmp_path))


@pytest.mark.usefixtures("few")
def test_another_picture_gives_another_calibration(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path, dirs_exist_ok=True)
    with Image.open(tmp_path / "00.png") as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "00.png")
    assert load(tmp_path).facts["sha256"] != load(photographs).facts["sha256"]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("count", [8, 11, 64])
def test_at_most_count_are_used_from_the_first_to_the_last(count: int, tmp_path: Path) -> None:
    found = load(paint(tmp_path, 24), count)
    used = painted_on(as_they_are(found)) | painted_on(found.held_out.reference)
    assert len(used) == min(count, 24) == sum(found.facts["images"].values())
    assert {mark(0), mark(23)} <= used, "spread over the folder: photographs of one day have names alike"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("count", [LEAST_IMAGES, 9, 11, 12, 13])
def test_a_quarter_of_the_sources_at_least_two_are_held_out_and_seen_nowhere_else(count: int, tmp_path: Path) -> None:
    found = load(paint(tmp_path, count))
    calibrating = painted_on(as_they_are(found)) | painted_on(found.costs.reference)
    held_out = painted_on(found.held_out.reference)
    assert not calibrating & held_out
    assert calibrating | held_out == {mark(picture) for picture in range(count)}
    assert found.facts["images"] == {"calibration": len(calibrating), "held out": len(held_out)}
    assert len(held_out) == -(-count // 4) >= 2


@pytest.mark.usefixtures("few")
def test_equal_pictures_count_once_and_are_never_on_both_sides(tmp_path: Path) -> None:
    paint(tmp_path, 9)
    for picture in range(9):
        with Image.open(tmp_path / f"{picture:03}.png") as image:
            image.save(tmp_path / f"twin-{picture}.bmp")
    found = load(tmp_path)
    assert sum(found.facts["images"].values()) == 9
    assert not painted_on(as_they_are(found)) & painted_on(found.held_out.reference)


def test_eight_files_of_seven_pictures_are_too_few(tmp_path: Path) -> None:
    paint(tmp_path, 7)
    shutil.copy(tmp_path / "003.png", tmp_path / "twin.png")
    message = r"7 usable images \(1 equal to another\), at least 8 are needed of 64x64 or more; add photographs"
    with pytest.raises(CalibrationError, match=message):
        load(tmp_path)


# --- what is cut from them


def test_all_crops_have_one_side_and_are_cut_from_the_pictures(photographs: Path) -> None:
    found = load(photographs)
    side = calibration._SIDE
    assert found.facts["side"] == side == 160
    for images in (found.images, found.costs.reference, found.held_out.distorted):
        assert images.shape[1:] == (side, side, 3)
        assert images.dtype == np.uint8
    pictures = []
    for path in sorted(photographs.iterdir()):
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    crop = found.held_out.reference[0]
    windows = [np.lib.stride_tricks.sliding_window_view(picture[..., 0], (side, side)) for picture in pictures]
    assert any((window[:, :, 0, 0] == crop[0, 0, 0]).any() and found_in(window, crop[..., 0]) for window in windows)


def found_in(windows: np.ndarray, crop: np.ndarray) -> bool:
    return any(np.array_equal(windows[int(y), int(x)], crop) for y, x in np.argwhere(windows[:, :, 0, 0] == crop[0, 0]))


@pytest.mark.usefixtures("few")
def test_smaller_images_make_smaller_crops(tmp_path: Path) -> None:
    paint(tmp_path, 8, size=(300, 200))
    assert load(tmp_path).facts["side"] == 160
    paint(tmp_path, 1, size=(300, 101), start=7)
    found = load(tmp_path)
    assert found.facts["side"] == 101
    assert found.images.shape[1:] == (101, 101, 3)


def test_a_small_folder_gives_several_crops_of_each_picture_that_differ(tmp_path: Path) -> None:
    found = load(paint(tmp_path, 8, size=(220, 200)))
    # 6 pictures in whole turns until there are 24 crops, 2 until there are 16.
    assert len(as_they_are(found)) == 24
    assert len(np.unique(found.held_out.source)) == 16
    for images in (as_they_are(found), found.held_out.reference[:: len(DISTORTIONS)]):
        assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize(("size", "places"), [((64, 64), 1), ((65, 64), 2), ((65, 65), 4)])
def test_a_picture_gives_no_more_crops_than_it_has_places_and_none_twice(
    size: tuple[int, int], places: int, tmp_path: Path
) -> None:
    paint(tmp_path, 7, size=size)
    found = load(paint(tmp_path, 1, start=7, size=(64, 64)))  # the smallest, with one place, decides the side
    for images in (as_they_are(found), found.held_out.reference[:: len(DISTORTIONS)]):
        sources = [painted_on(image[np.newaxis]).pop() for image in images]
        own = {source: sources.count(source) for source in sources}
        turns = {6: 4, 2: 8}[len(own)]  # of 24 crops for calibration and 16 held out
        assert own == {source: 1 if source == mark(7) else min(places, turns) for source in own}
        assert len({image.tobytes() for image in images}) == len(images)


def test_the_images_for_ranges_are_each_crop_all_variants_of_it_and_one_distorted_version(tmp_path: Path) -> None:
    found = load(paint(tmp_path, 8))
    assert len(found.images) == 24 * (len(VARIANTS) + 1)
    group = found.images[: len(VARIANTS) + 1]
    assert len({image.tobytes() for image in group}) == len(group), "none of them twice"
    negative = list(VARIANTS).index("negative")
    assert np.array_equal(group[negative], 255 - group[0])


def test_each_held_out_crop_meets_every_distortion_and_each_cost_crop_some(photographs: Path) -> None:
    found = load(photographs)
    assert kinds_of_each_source(found.held_out) == {tuple(DISTORTIONS)}
    assert len(found.held_out) == len(DISTORTIONS) * len(np.unique(found.held_out.source))
    (kinds,) = kinds_of_each_source(found.costs)
    assert set(kinds) < set(DISTORTIONS)
    assert len(np.unique(found.costs.source)) == calibration._COST_CROPS
    for pairs in (found.costs, found.held_out):
        assert all((one != other).any() for one, other in zip(pairs.reference, pairs.distorted, strict=True))


def kinds_of_each_source(pairs: Pairs) -> set[tuple[str, ...]]:
    """Also proves that pairs of one source share their reference."""
    kinds = set()
    for source in np.unique(pairs.source):
        own = np.flatnonzero(pairs.source == source)
        assert (pairs.reference[own] == pairs.reference[own[0]]).all()
        kinds.add(tuple(pairs.distortion[int(at)] for at in own))
    return kinds


# --- folders that will not do


def empty(folder: Path) -> None:
    folder.mkdir()


def a_text(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("none here")


def missing(folder: Path) -> None:
    pass


def a_file(folder: Path) -> None:
    folder.write_bytes(b"")


def one_image(folder: Path) -> None:
    paint(folder, 1)


def seven_images(folder: Path) -> None:
    paint(folder, 7)


def small_images(folder: Path) -> None:
    paint(folder, 12, size=(200, 63))


def two_small_images(folder: Path) -> None:
    paint(folder, 7)
    paint(folder, 2, size=(63, 64), start=7)


BAD: dict[Callable[[Path], None], str] = {
    empty: r"holds no image; images end in \.png",
    a_text: r"holds no image among 1 file, e\.g\. notes\.txt; images end in \.png",
    missing: "no such folder",
    a_file: "is a file, where a folder of images is needed",
    one_image: r"1 usable image, at least 8 are needed of 64x64 or more; add photographs like those you will score",
    seven_images: "7 usable images, at least 8 are needed of 64x64 or more",
    small_images: r"0 usable images \(12 too small\), at least 8 are needed of 64x64 or more",
    two_small_images: r"7 usable images \(2 too small\), at least 8",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_folder_that_will_not_do_is_named_with_what_is_wrong(make: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    make(folder)
    with pytest.raises(CalibrationError, match=f"^{folder}: {BAD[make]}") as caught:
        load(folder)
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 1


def truncated(folder: Path, name: str) -> None:
    data = (folder / "000.png").read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


def no_image(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"not a picture at all")


def transparent(folder: Path, name: str) -> None:
    """What lies behind it is anybody's guess, so the loader refuses it."""
    pixels = np.random.default_rng(1).integers(0, 256, (96, 96, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("spoil", [truncated, no_image, transparent], ids=lambda spoil: spoil.__name__)
def test_unreadable_files_are_named_and_tolerated_up_to_a_tenth(
    spoil: Callable[[Path, str], None], tmp_path: Path
) -> None:
    paint(tmp_path, 9)
    spoil(tmp_path, "bad0.png")  # one of ten
    notes: list[str] = []
    found = load(tmp_path, notes=notes)
    assert sum(found.facts["images"].values()) == 9
    (note,) = (note for note in notes if note.startswith("left out"))
    assert note.startswith(f"left out: {tmp_path / 'bad0.png'}: ")

    spoil(tmp_path, "bad1.png")  # two of eleven
    message = (
        rf"^{tmp_path}: 2 of 11 images cannot be read, more than a tenth, e\.g\. bad0\.png; repair or remove them$"
    )
    with pytest.raises(CalibrationError, match=message):
        load(tmp_path)


@pytest.mark.usefixtures("few")
def test_a_transparent_picture_is_left_out_with_an_advice_that_can_be_followed(tmp_path: Path) -> None:
    paint(tmp_path, 9)
    transparent(tmp_path, "bad.png")
    notes: list[str] = []
    load(tmp_path, notes=notes)
    assert f"left out: {tmp_path / 'bad.png'}: has transparent pixels; flatten it or remove it" in notes


@pytest.mark.usefixtures("few")
def test_a_tenth_is_of_the_chosen_images(tmp_path: Path) -> None:
    paint(tmp_path, 18)
    for name in ("000.png", "001.png"):
        no_image(tmp_path, name)
    notes: list[str] = []
    with pytest.raises(CalibrationError, match="2 of 18 images cannot be read"):
        load(tmp_path, notes=notes)
    assert len(notes) == 2, "both are named"
    paint(tmp_path, 2, start=18)
    assert sum(load(tmp_path).facts["images"].values()) == 18


@pytest.mark.usefixtures("few")
def test_what_is_left_out_for_its_size_is_said(tmp_path: Path) -> None:
    paint(tmp_path, 8)
    paint(tmp_path, 2, size=(64, 40), start=8)
    notes: list[str] = []
    assert sum(load(tmp_path, notes=notes).facts["images"].values()) == 8
    small = f"{tmp_path}: all are cropped to 64x64, since the smallest image has no more"
    assert notes == ["left out: 2 images smaller than 64x64, e.g. 008.png", small]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("photographs", "side"), [(8, 160), (7, 64)])
def test_a_thumbnail_does_not_decide_the_size_unless_it_is_needed(photographs: int, side: int, tmp_path: Path) -> None:
    paint(tmp_path, photographs, size=(180, 160))
    paint(tmp_path, 1, start=photographs)
    notes: list[str] = []
    assert load(tmp_path, notes=notes).facts["side"] == side
    thumbnail = f"left out: 1 image smaller than 160x160, as 8 are not, e.g. {photographs:03}.png"
    assert (thumbnail in notes) == (side == 160)


# --- distortions

CHANGES = {**DISTORTIONS, **VARIANTS}

CROP = Image.fromarray(
    np.add.outer(np.arange(72) * 2, np.random.default_rng(3).integers(0, 90, (80, 3))).astype(np.uint8)
)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_deterministic_and_keeps_size_and_mode(name: str) -> None:
    change = CHANGES[name]
    before = CROP.tobytes()
    one, other = (change(CROP, np.random.default_rng(5)) for _ in range(2))
    assert (one.size, one.mode) == (CROP.size, "RGB")
    assert one.tobytes() == other.tobytes()
    assert CROP.tobytes() == before, "the image that is given stays as it was"
    assert (one.tobytes() == before) == (name == "as it is"), "all but one change the picture"


def test_no_two_changes_are_the_same() -> None:
    changed = {change(CROP, np.random.default_rng(5)).tobytes() for change in CHANGES.values()}
    assert len(changed) == len(DISTORTIONS) + len(VARIANTS)


def test_the_generator_decides_what_is_random_and_nothing_else() -> None:
    for name, change in DISTORTIONS.items():
        one, other = (change(CROP, np.random.default_rng(seed)).tobytes() for seed in (5, 6))
        assert (one != other) == name.startswith("noise"), name


def test_distortions_are_weak_to_strong() -> None:
    """Names promise a strength; the mean change of a photograph's pixels follows it."""

    def strength(name: str) -> float:
        changed = np.asarray(DISTORTIONS[name](photo, np.random.default_rng(5)), np.float64)
        return float(np.abs(changed - np.asarray(photo, np.float64)).mean())

    photo = next(cut_photographs())
    for weak, strong in [
        *(("blur 0.7", "blur 1.5"), ("jpeg 75", "jpeg 40"), ("jpeg 40", "jpeg 15"), ("noise 3", "noise 10")),
    ]:
        assert 0 < strength(weak) < strength(strong)
