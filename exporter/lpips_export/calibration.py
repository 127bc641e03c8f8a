"""The photographs that an INT8 graph is made from and judged on: chosen, cropped, distorted, and kept apart."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lpips_runtime.errors import InputError, PairingError, TransparencyError
from lpips_runtime.images import load_image
from lpips_runtime.pairs import images_in

from .distortions import DISTORTIONS, VARIANTS
from .errors import CalibrationError

__all__ = ["LEAST_IMAGES", "Calibration", "Pairs", "load_calibration"]

LEAST_IMAGES = 8

# Side of all crops, pixels, unless the images are smaller; and the least that says something of a photograph.
_SIDE, _LEAST_SIDE = 160, 64

# Crops taken from both parts of a small folder; a larger one gives one of each image.
_CROPS = {"calibration": 24, "held out": 16}

# Pairs on which the cost of every single convolution is measured: so many crops, each third distortion.
_COST_CROPS, _COST_STEP = 8, 3


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of crops. reference, distorted: uint8 [P, S, S, 3], RGB 0..255. source: [P], which crop the reference is;
    pairs of equal source share it. distortion: [P], keys of DISTORTIONS."""

    reference: np.ndarray
    distorted: np.ndarray
    source: np.ndarray
    distortion: Sequence[str]

    def __len__(self) -> int:
        return len(self.distorted)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a folder of photographs gives. images: uint8 [M, S, S, 3], RGB 0..255, for the ranges of activations.
    costs: pairs from the same source images. held_out: pairs from others. facts: what the manifest says of them."""

    images: np.ndarray
    costs: Pairs
    held_out: Pairs
    facts: dict


def load_calibration(folder: Path, count: int, note: Callable[[str], object]) -> Calibration:
    """Choose at most `count` images of a folder tree, the same for the same files, and set a quarter of them aside.

    Unreadable files are named and counted through `note`; equal pictures count once. Raises CalibrationError if the
    folder is missing or holds fewer than LEAST_IMAGES pictures of _LEAST_SIDE pixels, or if more than a tenth of
    the files cannot be read.
    """
    try:
        names = sorted(images_in(str(folder), note))
    except PairingError as error:
        raise CalibrationError(str(error)) from error
    pictures = _decoded(folder, names, count, note)
    held_out, calibrating = _split(pictures)
    side = min(_SIDE, *(min(picture.shape[:2]) for picture in pictures.values()))
    if side < _SIDE:
        note(f"{folder}: all are cropped to {side}x{side}, since the smallest image has no more")
    crops = _crops(calibrating, side, _CROPS["calibration"])
    judging = _crops(held_out, side, _CROPS["held out"])
    distortions = list(DISTORTIONS)
    return Calibration(
        images=np.stack(list(_for_ranges(crops))),
        costs=_pairs(crops[:: max(1, len(crops) // _COST_CROPS)][:_COST_CROPS], distortions[1::_COST_STEP]),
        held_out=_pairs(judging, distortions),
        facts={
            "images": {"calibration": len(calibrating), "held out": len(held_out)},
            "side": side,
            "sha256": hashlib.sha256("".join(sorted(pictures)).encode()).hexdigest(),
            "distortions": distortions,
        },
    )


def _decoded(folder: Path, names: Sequence[str], count: int, note: Callable[[str], object]) -> dict[str, np.ndarray]:
    """sha256 of the pixels -> picture, of `count` files spread evenly over the sorted names."""
    chosen = [names[int(at)] for at in np.linspace(0, len(names) - 1, min(count, len(names)))]
    pictures: dict[str, np.ndarray] = {}
    named: dict[str, str] = {}
    unreadable: list[str] = []
    small: list[str] = []
    for name in chosen:
        try:
            pixels = load_image(folder / name).pixels
        except InputError as error:
            unreadable.append(name)
            # The runtime advises an option of its own command.
            transparent = isinstance(error, TransparencyError)
            why = f"{folder / name}: has transparent pixels; flatten it or remove it" if transparent else error
            note(f"left out: {why}")
            continue
        if min(pixels.shape[:2]) < _LEAST_SIDE:
            small.append(name)
            continue
        sha256 = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        pictures[sha256], named[sha256] = pixels, name
    if small:
        note(f"left out: {_some(small)} smaller than {_LEAST_SIDE}x{_LEAST_SIDE}, e.g. {small[0]}")
    if len(unreadable) > len(chosen) / 10:
        raise CalibrationError(
            f"{folder}: {len(unreadable)} of {len(chosen)} images cannot be read, more than a tenth, e.g. "
            f"{unreadable[0]}; repair or remove them"
        )
    if len(pictures) < LEAST_IMAGES:
        twice = len(chosen) - len(unreadable) - len(small) - len(pictures)
        left_out = {"unreadable": len(unreadable), "too small": len(small), "equal to another": twice}
        found = f"{len(pictures)} usable image{'s' * (len(pictures) != 1)}"
        why = ", ".join(f"{number} {what}" for what, number in left_out.items() if number)
        raise CalibrationError(
            f"{folder}: {found}{f' ({why})' if why else ''}, at least {LEAST_IMAGES} are "
            f"needed of {_LEAST_SIDE}x{_LEAST_SIDE} or more; add photographs like those you will score"
        )
    large = {sha256: pixels for sha256, pixels in pictures.items() if min(pixels.shape[:2]) >= _SIDE}
    if not LEAST_IMAGES <= len(large) < len(pictures):
        return pictures
    # A thumbnail among photographs would else decide the size of all crops.
    others = [named[sha256] for sha256 in pictures if sha256 not in large]
    note(f"left out: {_some(others)} smaller than {_SIDE}x{_SIDE}, as {len(large)} are not, e.g. {others[0]}")
    return large


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} image{'s' * (len(names) != 1)}"


def _split(pictures: dict[str, np.ndarray]) -> tuple[list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]]]:
    """Every fourth picture in the order of the hashes, which no order of names can bias, is held out."""
    ordered = sorted(pictures.items())
    return ordered[::4], [item for number, item in enumerate(ordered) if number % 4]


def _crops(pictures: Sequence[tuple[str, np.ndarray]], side: int, count: int) -> list[Image.Image]:
    """A crop of each picture in turn until there are `count`, of no place twice: some pictures have few places."""
    crops, taken = [], set()
    for turn in range(-(-count // len(pictures))):
        for sha256, picture in pictures:
            rows, columns = (length - side + 1 for length in picture.shape[:2])
            if turn >= rows * columns:
                continue
            rng = np.random.default_rng([turn, int(sha256[:8], 16)])
            while (place := (sha256, int(rng.integers(0, rows)), int(rng.integers(0, columns)))) in taken:
                pass
            taken.add(place)
            _, y, x = place
            crops.append(Image.fromarray(picture[y : y + side, x : x + side]))
    return crops


def _for_ranges(crops: Sequence[Image.Image]) -> Iterator[np.ndarray]:
    distortions = list(DISTORTIONS.values())
    for number, crop in enumerate(crops):
        rng = np.random.default_rng([2, number])
        for change in (*VARIANTS.values(), distortions[number % len(distortions)]):
            yield np.asarray(change(crop, rng))


def _pairs(crops: Sequence[Image.Image], distortions: Sequence[str]) -> Pairs:
    every = [(number, crop, name) for number, crop in enumerate(crops) for name in distortions]
    changed = [
        np.asarray(DISTORTIONS[name](crop, np.random.default_rng([3, number, at])))
        for at, (number, crop, name) in enumerate(every)
    ]
    return Pairs(
        reference=np.stack([np.asarray(crop) for _, crop, _ in every]),
        distorted=np.stack(changed),
        source=np.array([number for number, _, _ in every]),
        distortion=[name for _, _, name in every],
    )
