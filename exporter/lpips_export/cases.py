"""The image pairs that every artifact is validated on.

Synthetic, so that nothing has to be shipped, and chosen for what has gone wrong in exports of LPIPS: sizes at and off
the strides, batches, flat and smooth fields, pairs that are equal or nearly so. All from fixed seeds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Case", "validation_cases"]


@dataclass(frozen=True)
class Case:
    """One batch of pairs. reference, distorted: float32 [N, 3, H, W], RGB in [-1, 1]."""

    name: str
    reference: np.ndarray
    distorted: np.ndarray


def _noise(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    return rng.uniform(-1, 1, (count, 3, height, width))


def _smooth(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """A few low-frequency cosines per channel: what sky, skin and out-of-focus walls look like to a network."""
    y = np.linspace(0, 1, height)[:, None]
    x = np.linspace(0, 1, width)[None, :]
    field = np.zeros((count, 3, height, width))
    for _ in range(4):
        fy, fx, phase = rng.uniform(0, 3, (3, count, 3, 1, 1))
        field += rng.uniform(0, 0.5, (count, 3, 1, 1)) * np.cos(2 * np.pi * (fy * y + fx * x + phase))
    return np.clip(field, -1, 1)


def _photo_like(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    return np.clip(_smooth(rng, count, height, width) + 0.15 * rng.standard_normal((count, 3, height, width)), -1, 1)


def _distort(rng: np.random.Generator, image: np.ndarray, amount: float) -> np.ndarray:
    return np.clip(image + amount * rng.standard_normal(image.shape), -1, 1)


def _noisy(image: Callable, count: int, height: int, width: int, amount: float) -> Callable:
    def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        reference = image(rng, count, height, width)
        return reference, _distort(rng, reference, amount)

    return pair


def _unrelated(image: Callable, count: int, height: int, width: int) -> Callable:
    def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return image(rng, count, height, width), image(rng, count, height, width)

    return pair


def _black_on_white(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    reference = np.ones((2, 3, 64, 80))
    distorted = reference.copy()
    distorted[0] = -1
    distorted[1, :, 20:40, 24:56] = -1
    return reference, distorted


def _flat(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    levels = rng.uniform(-1, 1, (2, 3, 3, 1, 1))
    return np.broadcast_to(levels[0], (3, 3, 64, 64)), np.broadcast_to(levels[1], (3, 3, 64, 64))


def _identical(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    image = _photo_like(rng, 3, 70, 64)
    return image, image.copy()


def _one_pixel(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    # On the 8-bit grid, off its ends: a level more is a level more for uint8 graphs too.
    reference = np.rint(_smooth(rng, 2, 64, 64) * 100 + 127) / 127.5 - 1
    distorted = reference.copy()
    distorted[:, 1, 31, 33] += 1 / 127.5
    return reference, distorted


def _dark(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    reference = rng.integers(0, 12, (2, 3, 64, 72)) / 127.5 - 1
    distorted = reference + (rng.random(reference.shape) < 0.02) / 127.5
    return reference, distorted


def _pairs(smallest: int) -> dict[str, Callable]:
    return {
        "smallest side": _noisy(_photo_like, 1, smallest, smallest, 0.2),
        "smallest height, odd width": _noisy(_photo_like, 2, smallest, smallest + 14, 0.2),
        "photo-like, batch of 3": _noisy(_photo_like, 3, 64, 64, 0.1),
        "photo-like, odd": _noisy(_photo_like, 1, 65, 97, 0.3),
        "photo-like, tall": _noisy(_photo_like, 1, 203, 48, 0.05),
        "photo-like, wide, batch of 3": _noisy(_photo_like, 3, 40, 161, 0.2),
        "large": _noisy(_photo_like, 1, 384, 512, 0.1),
        "noise": _unrelated(_noise, 2, 64, 64),
        "smooth fields": _unrelated(_smooth, 8, 64, 64),
        "noise on smooth fields": _noisy(_smooth, 2, 80, 64, 0.02),
        "flat fields": _flat,
        "black on white": _black_on_white,
        "identical": _identical,
        "one pixel changed by 1/255": _one_pixel,
        "dark and nearly equal": _dark,
    }


def validation_cases(smallest: int, image_input: str) -> Iterator[Case]:
    """The cases for a net whose smallest side is `smallest`; for uint8 graphs all values lie on the 8-bit grid."""
    for number, (name, pair) in enumerate(_pairs(smallest).items()):
        reference, distorted = pair(np.random.default_rng([2018, number]))
        if image_input == "uint8":
            reference, distorted = (np.rint((x + 1) * 127.5) / 127.5 - 1 for x in (reference, distorted))
        yield Case(name, reference.astype(np.float32), distorted.astype(np.float32))
        if name == "photo-like, odd":
            yield Case("the same, swapped", distorted.astype(np.float32), reference.astype(np.float32))
