"""Distances of any number of judged pairs, in memory that does not grow with them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from PIL import Image

from lpips_runtime import Pair, Scorer
from lpips_runtime.errors import InputError
from lpips_runtime.images import load_image
from lpips_runtime.progress import ProgressBar

from .judged import Judged

__all__ = ["distances"]


def distances(scorer: Scorer, judged: Judged, say: Callable[[str], object]) -> np.ndarray:
    """float64 [rows, pairs of a row]; NaN where a pair cannot be scored, which `say` is told with its reason."""
    found = np.full(len(judged.pairs), np.nan)
    bar = ProgressBar(len(found))
    with ExitStack() as stack:
        pairs: Iterator[Pair] = (_pair(*paths, *paths) for paths in judged.pairs)
        folder = None
        if judged.side is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            pairs = _resized(judged.pairs, judged.side, folder)
        for at, result in enumerate(stack.enter_context(closing(scorer.stream(pairs)))):
            bar.advance()
            if result.distance is None:
                bar.clear()
                say(f"error: {result.reference}, {result.distorted}: {result.error}")
            else:
                found[at] = result.distance
            if folder is not None:
                for name in _names(at - 1):  # pair `at` shares them perhaps, later ones do not
                    (folder / name).unlink(missing_ok=True)
        bar.clear()
    return found.reshape(len(judged.said), -1)


def _names(at: int) -> tuple[str, str]:
    return f"{at}_reference.bmp", f"{at}_distorted.bmp"


def _pair(reference: Path, distorted: Path, reference_path: Path, distorted_path: Path) -> Pair:
    return Pair(str(reference), str(distorted), reference_path, distorted_path)


def _resized(pairs: Sequence[tuple[Path, Path]], side: int, folder: Path) -> Iterator[Pair]:
    """Pairs of copies in `folder`; pair N uses those of _names(N), and at most the reference of the one before."""
    latest: tuple[Path, Path] | None = None
    for at, (reference, distorted) in enumerate(pairs):
        reference_copy, distorted_copy = (folder / name for name in _names(at))
        if latest is not None and latest[0] == reference:
            reference_copy, latest = latest[1], None
        else:
            reference_copy = _copied(reference, side, reference_copy)
            latest = reference, reference_copy
        yield _pair(reference, distorted, reference_copy, _copied(distorted, side, distorted_copy))


def _copied(path: Path, side: int, copy: Path) -> Path:
    """The path of an image whose shorter side has `side` pixels: as torchvision's Resize makes it, or as it was."""
    try:
        pixels = load_image(path).pixels
    except InputError:
        return path  # the stream will say what is wrong with it
    height, width = pixels.shape[:2]
    short = min(height, width)
    if short == side:
        return path
    size = int(side * width / short), int(side * height / short)
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(copy)
    return copy
