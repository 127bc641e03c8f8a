"""Images that people have judged, as the data sets lay them out: BAPPS, TID2013, KADID-10k, or a table of one's own.

What is wrong with a table as a whole is a PairingError; what is wrong with one of its rows (an image or a judgement
that is missing or is none) is in `faults`, to be told and counted.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lpips_runtime.errors import PairingError
from lpips_runtime.pairs import images_in

__all__ = ["LAYOUTS", "Judged", "Layout", "judged"]

# As in the reference's loader: Resize(64). The files of BAPPS are patches of 64 pixels, enlarged to 256.
_BAPPS_SIDE = 64


@dataclass(frozen=True, eq=False)
class Judged:
    """One set. kind: what was asked, a key of measures.MEASURES. pairs: paths of reference and distorted, as many for
    each row as its kind has distances. said: float64 [rows], or [rows, pairs of a row]. side: pixels that the shorter
    side of every image is brought to, None for as it is. faults: rows that are not among these, and why."""

    name: str
    kind: str
    pairs: Sequence[tuple[Path, Path]]
    said: np.ndarray
    side: int | None = None
    faults: Sequence[str] = ()

    @property
    def width(self) -> int:
        """Pairs of a row."""
        return len(self.pairs) // len(self.said)

    @property
    def reference(self) -> np.ndarray:
        """int [pairs], equal where the reference is the same."""
        return np.unique([str(reference) for reference, _ in self.pairs], return_inverse=True)[1]


@dataclass(frozen=True)
class Layout:
    """mark: what a folder of this layout holds. source: where to get it. read: the folder or table -> its sets."""

    title: str
    mark: str
    source: str
    read: Callable[[Path], list[Judged]]


def judged(data: Path, layout: str | None) -> list[Judged]:
    """The sets of a folder or table; the layout is told by what lies in it, unless it is given.

    Raises PairingError if it is none of LAYOUTS, or not as the layout says.
    """
    if layout is None:
        layout = (
            "csv" if data.is_file() else next((name for name, of in LAYOUTS.items() if _holds(data, of.mark)), None)
        )
    if layout is None:
        known = "; ".join(f"{of.title} ({of.source}) holds {of.mark}" for of in LAYOUTS.values() if of.mark)
        raise PairingError(f"{data}: {'no data set known here' if data.is_dir() else 'no such folder'}; {known}")
    of = LAYOUTS[layout]
    if of.mark and not _holds(data, of.mark):
        raise PairingError(f"{data}: no {of.title}, which holds {of.mark}; get it from {of.source}")
    sets = of.read(data)
    for each in sets:
        if not each.pairs:
            why = f", e.g. {each.faults[0]}" if each.faults else ""
            raise PairingError(f"{data}: no row of {each.name} can be used{why}")
    return sets


def _holds(folder: Path, mark: str) -> bool:
    return any((folder / name).exists() for name in mark.split(" or ")) if mark else False


def _bapps(folder: Path) -> list[Judged]:
    sets = []
    for kind, parts, answers in (("2afc", ("ref", "p0", "p1"), "judge"), ("jnd", ("p0", "p1"), "same")):
        root = folder / kind / "val"
        if not (folder / kind).is_dir():
            continue
        subsets = sorted(each for each in root.iterdir() if each.is_dir()) if root.is_dir() else []
        if not subsets:
            raise PairingError(f"{root}: no folder of a set in it, such as traditional; {_BAPPS_SOURCE}")
        sets += [_bapps_set(kind, each, parts, answers) for each in subsets]
    return sets


def _bapps_set(kind: str, folder: Path, parts: Sequence[str], answers: str) -> Judged:
    files = {part: _by_stem(folder / part) for part in parts}
    files[answers] = {path.stem: path for path in (folder / answers).glob("*.npy")}
    if not files[answers]:
        raise PairingError(f"{folder / answers}: no .npy file in it, where the answers are")
    pairs, said, faults = [], [], []
    for stem in sorted(set().union(*files.values())):
        lacking = [part for part in files if stem not in files[part]]
        try:
            if lacking:
                raise PairingError(f"{folder}: {stem} is not in {' and '.join(lacking)}")
            said.append(_share(files[answers][stem]))
        except PairingError as error:
            faults.append(str(error))
            continue
        first, *others = (files[part][stem] for part in parts)
        pairs += [(first, other) for other in others]
    return Judged(f"{kind} {folder.name}", kind, pairs, np.array(said), _BAPPS_SIDE, faults)


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in sorted(images_in(str(folder), lambda _: None)):
        path = folder / name
        if path.stem in found:
            raise PairingError(f"{folder}: {found[path.stem].name} and {path.name} are both {path.stem}; leave one")
        found[path.stem] = path
    return found


def _share(path: Path) -> float:
    """The share of people that a .npy file of one number holds."""
    try:
        with open(path, "rb") as file:
            found = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PairingError(f"{path}: cannot be read as a .npy file: {str(error).splitlines()[0]}") from error
    if found.size != 1 or found.dtype.kind not in "fiu" or not 0 <= found.item() <= 1:
        raise PairingError(
            f"{path}: holds {found.dtype} of shape {found.shape}, where one number from 0 to 1 is needed"
        )
    return float(found.item())


def _tid2013(folder: Path) -> list[Judged]:
    table = folder / "mos_with_names.txt"
    # The table's names are in another case than some of the files'.
    references = _by_name(folder / "reference_images")
    distorted = _by_name(folder / "distorted_images")
    try:
        lines = table.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PairingError(f"{table}: cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not (fields := line.split()):
            continue
        if len(fields) != 2:
            raise PairingError(f"{table}, line {number}: {line[:80]!r} is no score and name")
        opinion, name = fields
        rows.append((number, references.get(f"{name[:3]}.bmp".lower()), distorted.get(name.lower()), name, opinion))
    return [_opinions("TID2013", table, rows)]


def _kadid10k(folder: Path) -> list[Judged]:
    table = folder / "dmos.csv"
    files = _by_name(folder / "images")
    rows = [
        (number, files.get(reference.lower()), files.get(distorted.lower()), distorted, opinion)
        for number, (reference, distorted, opinion) in _rows(table, ("ref_img", "dist_img", "dmos"))
    ]
    return [_opinions("KADID-10k", table, rows)]


def _table(table: Path) -> list[Judged]:
    folder = table.parent
    rows = [
        (number, folder / reference, folder / distorted, distorted, opinion)
        for number, (reference, distorted, opinion) in _rows(table, ("reference", "distorted", "mos"))
    ]
    return [_opinions(table.stem, table, rows)]


def _opinions(name: str, table: Path, rows: Sequence[tuple[int, Path | None, Path | None, str, str]]) -> Judged:
    """rows: line, paths of reference and distorted, what the line calls the latter, and the mean opinion."""
    pairs, said, faults = [], [], []
    for line, reference, distorted, called, opinion in rows:
        try:
            value = float(opinion)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise PairingError(f"{table}, line {line}: {opinion[:80]!r} is no mean opinion, which is a number")
        if reference is None or distorted is None:
            faults.append(f"{table}, line {line}: {called}: no {'reference' if reference is None else 'image'} of it")
            continue
        pairs.append((reference, distorted))
        said.append(value)
    return Judged(name, "opinion", pairs, np.array(said), faults=faults)


def _by_name(folder: Path) -> dict[str, Path]:
    """Name in lower case -> image of this folder."""
    return {name.lower(): folder / name for name in images_in(str(folder), lambda _: None)}


def _rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of a CSV file with these columns among others."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if lacking := [column for column in columns if column not in (reader.fieldnames or ())]:
                raise PairingError(f"{table}: no column {', '.join(lacking)}; the first line must name {list(columns)}")
            for row in reader:
                fields = [row[column] for column in columns]
                if not all(fields):
                    raise PairingError(f"{table}, line {reader.line_num}: a field of {list(columns)} is empty")
                yield reader.line_num, fields
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PairingError(f"{table}: cannot be read as CSV in UTF-8: {error}") from error


_BAPPS_SOURCE = "https://github.com/richzhang/PerceptualSimilarity (scripts/download_dataset_valonly.sh, 1.3 GB)"

LAYOUTS: Mapping[str, Layout] = {
    "bapps": Layout("BAPPS", "2afc or jnd", _BAPPS_SOURCE, _bapps),
    "tid2013": Layout("TID2013", "mos_with_names.txt", "http://www.ponomarenko.info/tid2013.htm (0.9 GB)", _tid2013),
    "kadid10k": Layout("KADID-10k", "dmos.csv", "http://database.mmsp-kn.de/kadid-10k-database.html", _kadid10k),
    "csv": Layout("table", "", "", _table),
}
