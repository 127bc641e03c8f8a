"""Where the heatmaps of results go: a file for one pair, a folder with a file for each of several.

Import this module only where heatmaps are wanted, as heatmap.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OutputError, UsageError
from .heatmap import HEATMAP_FORMATS, render, save_heatmap

if TYPE_CHECKING:
    from .contract import ModelInfo
    from .pairs import Pair
    from .results import Result

__all__ = ["check_target", "outside", "to_file", "to_folder"]


def check_target(target: str, single: bool) -> None:
    """Raise UsageError unless `target` may be a picture (of a single pair) or a folder of them, before any is drawn."""
    if single and not target.lower().endswith(tuple(HEATMAP_FORMATS)):
        raise UsageError(
            f"--heatmap {target}: one pair is drawn to a file, and no picture format goes by that suffix; "
            f"use one of {', '.join(HEATMAP_FORMATS)}"
        )
    if single and os.path.isdir(target):  # noqa: PTH112
        raise UsageError(f"--heatmap {target}: is a folder; one pair is drawn to a file, name it")
    if not single and os.path.isfile(target):  # noqa: PTH113
        raise UsageError(f"--heatmap {target}: is a file; several pairs are drawn into a folder, name it")


def outside(pairs: Iterable[Pair], folder: Path) -> Iterator[Pair]:
    """The pairs, but a UsageError for an image within the folder of the heatmaps: one of them might overwrite it."""
    real = Path(os.path.realpath(folder))
    for pair in pairs:
        for path in (pair.reference_path, pair.distorted_path):
            if pair.error is None and real in Path(os.path.realpath(path)).parents:
                raise UsageError(
                    f"--heatmap {folder}: {path} lies in it, and might be overwritten; name a folder apart"
                )
        yield pair


def to_file(info: ModelInfo, path: Path) -> Callable[[Result], None]:
    """What draws a result, one with `detail` and `pixels`, to `path`."""
    return lambda result: _draw(info, path, result)


def to_folder(info: ModelInfo, folder: Path, base: Path) -> Callable[[Result], None]:
    """What draws each result to a PNG of its own in `folder`, named after the images.

    base: folder of the distorted images; folders below it are made in `folder` too.
    """
    taken: set[Path] = set()
    _make(folder)

    def draw(result: Result) -> None:
        distorted, stem = Path(result.distorted), Path(result.reference).stem
        below = distorted.relative_to(base).parent if distorted != base and distorted.is_relative_to(base) else Path()
        if ".." in below.parts or below.is_absolute():
            below = Path()
        name = stem if distorted.stem == stem else f"{stem}__{distorted.stem}"
        path, number = folder / below / f"{name}.png", 2
        while path in taken:
            path, number = path.with_name(f"{name}-{number}.png"), number + 1
        taken.add(path)
        _make(path.parent)
        _draw(info, path, result)

    return draw


def _draw(info: ModelInfo, path: Path, result: Result) -> None:
    assert result.detail is not None
    assert result.pixels is not None
    assert result.distance is not None
    title = f"LPIPS {info.net} v{info.version}: {result.distance:.4f}"
    save_heatmap(path, render(result.detail.map[0], result.pixels, title=title))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be a folder of heatmaps: {error.strerror}") from error
