"""What is to be scored, as iterators of `Pair`: one against many, two folders, a table, all of a folder.

Nothing is skipped in silence: a file without a partner or a row that names no pair comes out as a `Pair`
with an `error`, to be reported as a failed result, and what is left out by rule is told to `note`.
"""

import csv
import itertools
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePath
from typing import BinaryIO

from .contract import DISTORTED, REFERENCE
from .errors import PairingError

__all__ = ["MAX_BATCH", "SUFFIXES", "Pair", "all_pairs", "csv_pairs", "file_pairs", "folder_pairs", "images_in"]

# The same as images.EXTENSIONS (a test compares them), which would bring Pillow along.
SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".apng",
    ".jfif",
    ".jpe",
    ".mpo",
)

# Pairs that can be asked to be scored at once; twice as many small ones are decoded ahead.
MAX_BATCH = 1024

# No honest line is longer. Without a limit a file with no line ends, say /dev/zero, would fill the memory.
_LINE_BYTES = 1 << 20

_AnyPath = str | os.PathLike[str]
_Note = Callable[[str], object]


@dataclass(frozen=True)
class Pair:
    """Two images to compare: their names as results show them, and the paths that are opened.

    `error` is set if the pair cannot even be formed (no partner, ambiguous, malformed or repeated row); then
    nothing is to be opened, and the names are the best that are known.
    """

    reference: str
    distorted: str
    reference_path: Path
    distorted_path: Path
    error: str | None = None


def file_pairs(reference: _AnyPath, distorted: Sequence[_AnyPath]) -> Iterator[Pair]:
    """One reference against many distorted images, in the order given. Looks at no file."""
    return (_pair(os.fspath(reference), os.fspath(name)) for name in distorted)


def folder_pairs(reference_dir: _AnyPath, distorted_dir: _AnyPath, note: _Note) -> list[Pair]:
    """The images of two folder trees, matched by relative path, then by relative path without suffix.

    Sorted by relative path. An image without a partner in the other folder, and a stem that fits several
    images on either side, become a pair with `error`. A folder may be compared with itself. `note` is called
    with one line about each kind of entry that was left out: files with other suffixes than SUFFIXES, links
    to folders (they are not followed). Names that start with a dot are ignored.

    Raises PairingError if either is no folder, cannot be listed, or holds no image.
    """
    references, distorteds = os.fspath(reference_dir), os.fspath(distorted_dir)
    left = set(images_in(references, note))
    right = set(images_in(distorteds, note))
    rows = {name: _pair(_join(references, name), _join(distorteds, name)) for name in left & right}

    by_stem: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((left - right, right - left)):
        for name in sorted(names):
            by_stem[_stem(name)][side].append(name)

    for stem, (ours, theirs) in by_stem.items():
        if len(ours) == len(theirs) == 1:
            rows[ours[0]] = _pair(_join(references, ours[0]), _join(distorteds, theirs[0]))
        elif ours and theirs:
            rows[ours[0]] = _pair(
                _join(references, ours[0] if len(ours) == 1 else f"{stem}.*"),
                _join(distorteds, theirs[0] if len(theirs) == 1 else f"{stem}.*"),
                error=f"ambiguous: {', '.join(ours)} in {references} could pair with {', '.join(theirs)} in "
                f"{distorteds}; leave one of each, or list the pairs in a CSV file",
            )
        else:
            known, other = (references, distorteds) if ours else (distorteds, references)
            for name in ours or theirs:
                rows[name] = _pair(
                    _join(references, name),
                    _join(distorteds, name),
                    error=f"{_join(known, name)} has no partner in {other}: neither {name} nor an image "
                    f"{stem}.* that is not paired already",
                )
    return [rows[name] for name in sorted(rows)]


def all_pairs(folder: _AnyPath, note: _Note) -> Iterator[Pair]:
    """Every pair of the images in a folder tree, i < j in the order of their relative paths, one at a time.

    The folder is listed at once, and `note` told as by `folder_pairs`. Raises PairingError if it is no
    folder, cannot be listed, or holds fewer than two images.
    """
    root = os.fspath(folder)
    names = [_join(root, name) for name in sorted(images_in(root, note))]
    if len(names) < 2:
        raise PairingError(f"{root}: holds one image only, {names[0]}; all pairs need at least two")
    images = [(name, Path(name)) for name in names]
    return (Pair(a, b, path_a, path_b) for (a, path_a), (b, path_b) in itertools.combinations(images, 2))


def csv_pairs(source: _AnyPath) -> Iterator[Pair]:
    """The rows of a table of pairs, read as they are asked for. `-` is standard input.

    The table is UTF-8 CSV. Its header names the columns `reference` and `distorted`, in any order, among
    others that are ignored. Paths are relative to the table's folder (standard input: the current folder);
    names are shown as written. A row that has a field too few or too many, an empty name, or the same two
    names as an earlier row becomes a pair with `error`. Blank lines are skipped.

    The header and the first row are read at once (from a pipe: awaited). Raises PairingError if the table
    cannot be opened, has no such header or no row. What makes the rest unreadable (an open quote, bytes that
    are no text, a failing disk) raises PairingError too, but only once the rows before it have been yielded.
    """
    name = os.fspath(source)
    title = "standard input" if name == "-" else name
    pairs = _table(title, name)
    first = next(pairs, None)
    if first is None:
        raise PairingError(f"{title}: holds a header but no pair; add a line for each")
    return itertools.chain([first], pairs)


def _pair(reference: str, distorted: str, folder: str = "", error: str | None = None) -> Pair:
    return Pair(reference, distorted, Path(folder, reference), Path(folder, distorted), error)


def _join(folder: str, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118 (a Path would drop the leading "./" that the user wrote)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122


def images_in(root: str, note: _Note) -> list[str]:
    """Paths below `root`, with forward slashes, of all files that are images by their suffix, in no order.

    `note` is called as in folder_pairs. Raises PairingError if it is no folder, cannot be listed, or holds no image.
    """
    images: list[str] = []
    others: list[str] = []
    links: list[str] = []
    pending = [""]
    while pending:
        parent = pending.pop()
        for entry in _entries(_join(root, parent) if parent else root):
            path = f"{parent}/{entry.name}" if parent else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 (raises on no broken link)
                links.append(path)
            elif entry.name.lower().endswith(SUFFIXES):
                images.append(path)
            else:
                others.append(path)
    if links:
        note(f"{root}: {_count(links, 'link')} to folders not followed, e.g. {min(links)}")
    if not images:
        found = f" among {_count(others, 'file')}, e.g. {min(others)}" if others else ""
        raise PairingError(f"{root}: holds no image{found}; images end in {', '.join(SUFFIXES)}")
    if others:
        note(f"{root}: {_count(others, 'file')} left out, no image by the suffix, e.g. {min(others)}")
    return images


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except NotADirectoryError as error:
        raise PairingError(f"{folder}: is a file, where a folder of images is needed") from error
    except FileNotFoundError as error:
        raise PairingError(f"{folder}: no such folder") from error
    except OSError as error:
        raise PairingError(f"{folder}: cannot be listed: {error.strerror}") from error


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'s' * (len(things) != 1)}"


def _table(title: str, source: str) -> Iterator[Pair]:
    folder = "" if source == "-" else os.path.dirname(source)  # noqa: PTH120
    with _open(title, source) as file:
        rows = _rows(title, _lines(title, file))
        _, header = next(rows, (1, []))
        columns = _columns(title, header)
        seen: dict[bytes, int] = {}
        for line, row in rows:
            reference, distorted = (row[column] if column < len(row) else "" for column in columns)
            if len(row) != len(header):
                fault = f"{_count(row, 'field')}, where the header has {len(header)}"
            elif not reference or not distorted:
                fault = f"the name under {DISTORTED if reference else REFERENCE} is empty"
            else:
                # 16 bytes stand for the row: a million rows fit in memory, and no two meet by chance.
                same = f"{PurePath(reference)}\0{PurePath(distorted)}"  # however spelled: ./a.png is a.png
                key = blake2b(same.encode(), digest_size=16).digest()
                first = seen.setdefault(key, line)
                fault = None if first == line else f"repeats line {first}"
            yield _pair(reference, distorted, folder, fault and f"{title}, line {line}: {fault}")


def _columns(title: str, header: list[str]) -> tuple[int, int]:
    if header.count(REFERENCE) != 1 or header.count(DISTORTED) != 1:
        found = ", ".join(map(repr, header)) or "nothing"
        raise PairingError(
            f"{title}: the first line must name the columns {REFERENCE} and {DISTORTED}, once each, with "
            f"a comma between; found: {found if len(found) <= 200 else found[:200] + '...'}"
        )
    return header.index(REFERENCE), header.index(DISTORTED)


def _rows(title: str, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    # Not strict, csv would take an open quote for a name that reaches to the end of the file.
    reader = csv.reader(lines, strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        reason = str(error).partition(" - ")[0]  # after the dash it advises programmers
        raise PairingError(
            f"{title}, line {line}: not CSV: {reason}; quote names that hold a comma, a quote or a line end"
        ) from error


def _lines(title: str, file: BinaryIO) -> Iterator[str]:
    """Lines as text, each with its end. Bytes are decoded line by line, so that an error knows its line."""
    for number in itertools.count(1):
        try:
            line = file.readline(_LINE_BYTES)
        except OSError as error:
            raise PairingError(f"{title}, line {number}: cannot be read: {error.strerror}") from error
        if not line:
            return
        if b"\0" in line or len(line) == _LINE_BYTES:
            raise PairingError(f"{title}, line {number}: not text; a table of pairs is a CSV file in UTF-8")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise PairingError(f"{title}, line {number}: not UTF-8: {error.reason}; save it as UTF-8") from error


def _open(title: str, source: str) -> AbstractContextManager[BinaryIO]:
    if source == "-":
        stdin = getattr(sys.stdin, "buffer", None)
        if stdin is None:
            raise PairingError(f"{title}: is closed or no byte stream; name a file instead of -")
        try:
            # A reader of our own: a thread that waits for a line holds its lock, and at the interpreter's exit Python
            # dies of being unable to lock sys.stdin.
            return open(stdin.fileno(), "rb", closefd=False)
        except OSError:  # no file: what stands in for standard input in this process
            return nullcontext(stdin)
    try:
        return open(source, "rb")
    except IsADirectoryError as error:
        raise PairingError(f"{title}: is a folder, where a CSV file of pairs is needed") from error
    except OSError as error:
        raise PairingError(f"{title}: cannot be opened: {error.strerror}") from error
