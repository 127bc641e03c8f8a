"""What a call of lpips-score compares: files, folders, a table, all pairs of a folder."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterable, Iterator

from . import pairs as sources
from .errors import UsageError
from .pairs import Pair
from .say import say

__all__ = ["find_pairs"]


def find_pairs(options: argparse.Namespace) -> tuple[Iterable[Pair], int | None, bool]:
    """What to score, how many pairs that is (None: not known yet), and whether it is a single pair of files."""

    def note(text: str) -> None:
        say(f"note: {text}")

    if options.pairs is not None:
        return sources.csv_pairs(options.pairs), None, False
    if options.all_pairs is not None:
        return *_counted(sources.all_pairs(options.all_pairs, note)), False
    folders = [os.path.isdir(name) for name in (options.reference, *options.distorted)]  # noqa: PTH112
    if not any(folders):
        return (
            sources.file_pairs(options.reference, options.distorted),
            len(options.distorted),
            len(options.distorted) == 1,
        )
    if not all(folders) or len(folders) != 2:
        raise UsageError(
            "give two folders, or a reference image and one or more distorted images; "
            f"{[options.reference, *options.distorted][folders.index(True)]} is a folder"
        )
    found = sources.folder_pairs(options.reference, options.distorted[0], note)
    return found, len(found), False


def _counted(found: Iterator[Pair]) -> tuple[Iterator[Pair], int]:
    """All pairs of n images and how many those are: the first image comes first, with each of the n - 1 others."""
    head: list[Pair] = []
    others = 0
    for pair in found:
        head.append(pair)
        if pair.reference != head[0].reference:
            break
        others += 1
    return itertools.chain(head, found), others * (others + 1) // 2
