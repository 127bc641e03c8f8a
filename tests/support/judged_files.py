"""Files of data sets of judged images."""

from pathlib import Path

import numpy as np
from PIL import Image


def image(path: Path, side: int = 64, seed: int = 0) -> Path:
    """An image of noise, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def answer(path: Path, value: object) -> None:
    """What people said, as BAPPS has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(value, dtype=np.float32))
