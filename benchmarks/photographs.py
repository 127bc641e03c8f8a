"""Photographs that come with scikit-learn and matplotlib, and distortions of graded strength: judged data for anywhere.

No person judged these pairs. What is known of them is that a stronger distortion of one kind is not the smaller one.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from lpips_export.distortions import Change, blur, enhanced, jpeg, noise, rescaled
from lpips_runtime.errors import UsageError

from .judged import Judged

__all__ = ["GRADED", "PHOTOGRAPHS", "cut_photographs", "graded"]

# Photograph -> the package that brings it, and how many pictures it is cut into, columns x rows.
PHOTOGRAPHS = {
    "datasets/images/china.jpg": ("sklearn", 3, 2),
    "datasets/images/flower.jpg": ("sklearn", 3, 2),
    "mpl-data/sample_data/grace_hopper.jpg": ("matplotlib", 2, 3),
}


def _each(make: Callable[[float], Change], *strengths: float) -> Sequence[Change]:
    return [make(strength) for strength in strengths]


# From the weakest, which few people would see, to the strongest.
GRADED: Mapping[str, Sequence[Change]] = {
    "blur": _each(blur, 0.5, 0.8, 1.3, 2.2, 4),
    "JPEG": _each(lambda quality: jpeg(int(quality)), 90, 70, 45, 20, 8),
    "noise": _each(noise, 2, 5, 10, 20, 40),
    "contrast": _each(lambda factor: enhanced(ImageEnhance.Contrast, factor), 1.1, 1.25, 1.5, 2, 3),
    "smaller": _each(rescaled, 0.8, 0.6, 0.45, 0.3, 0.15),
}


def cut_photographs() -> Iterator[Image.Image]:
    """18 pictures of 213x213 or 256x200 pixels that share none. Raises UsageError where a package is missing."""
    for name, (package, columns, rows) in PHOTOGRAPHS.items():
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise UsageError(
                f"{Path(name).name} comes with {package}, which is not installed: pip install scikit-learn matplotlib"
            )
        with Image.open(Path(found.submodule_search_locations[0], name)) as image:
            photograph = image.convert("RGB")
        photograph.info.clear()  # its colour profile, which would only be noted to be ignored
        width, height = photograph.width // columns, photograph.height // rows
        for x in range(0, columns * width, width):
            for y in range(0, rows * height, height):
                yield photograph.crop((x, y, x + width, y + height))


def graded(pictures: Iterable[Image.Image], folder: Path) -> list[Judged]:
    """A set for each kind of distortion, a row for each picture; the files are written into `folder`."""
    originals = []
    changed: dict[str, list[Path]] = {kind: [] for kind in GRADED}
    for number, picture in enumerate(pictures):
        originals.append(_saved(picture, folder / f"{number:03}.png"))
        for at, (kind, changes) in enumerate(GRADED.items()):
            for level, change in enumerate(changes, 1):
                distorted = change(picture, np.random.default_rng([number, at, level]))
                changed[kind].append(_saved(distorted, folder / f"{number:03}_{kind}_{level}.png"))
    sets = []
    for kind, changes in GRADED.items():
        references = [original for original in originals for _ in changes]
        said = np.tile(np.arange(1.0, len(changes) + 1), (len(originals), 1))
        sets.append(Judged(kind, "strength", list(zip(references, changed[kind], strict=True)), said))
    return sets


def _saved(picture: Image.Image, path: Path) -> Path:
    picture.save(path, compress_level=1)
    return path
