"""Long jobs: a result file that a later run goes on with, and beside it FILE.job.json, which says what makes its rows.

Nothing is changed before it is clear that the file is of this job: that record says that the same model on the same
provider made it, in the same form, every row, written anew from the pair that is due, is to the byte what is there, and
has the checksum in FILE.job.crc32. What a kill cut off is at most the end of the last row.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .beside import beside, check_beside
from .checksums import Checksums, Summed
from .errors import ForeignResultError, OutputError
from .output import TextSink, replacing, reported
from .pairs import Pair
from .results import FORMATS, Result, written_name

__all__ = ["RESUMABLE", "Job", "alone"]

# No row of ours is longer; without a limit an open quote would take the rest of the file for one row.
_ROW_BYTES = 1 << 20

# Line ends in a row, at most, for each that its names have: an error may say a name again, with and without its suffix.
_LINE_ENDS = 4

# Distance, error and layers of a row.
_Values = tuple[float | None, str | None, tuple[float, ...] | None]


class _Form(NamedTuple):
    """How to read the rows of a form: text and whether it has layers -> values; whether quotes may hold line ends."""

    values: Callable[[str, bool], _Values]
    quoted_lines: bool


def _csv_values(text: str, layers: bool) -> _Values:
    ((_, _, distance, error, *shares),) = csv.reader(io.StringIO(text, newline=""), strict=True)
    parts = tuple(map(float, shares[0].split())) if layers else ()
    return float(distance) if distance else None, error or None, parts or None


def _jsonl_values(text: str, layers: bool) -> _Values:
    row = json.loads(text)
    shares = row["layers"] if layers else None
    return row["distance"], row["error"], None if shares is None else tuple(shares)


# Text leaves failed pairs out, and JSON is written once all is done.
RESUMABLE: Mapping[str, _Form] = {"csv": _Form(_csv_values, True), "jsonl": _Form(_jsonl_values, False)}
"""The forms that a later run can go on with."""

# What must be as it was, for the rows to be of one job: where it stands in the record, and what a person calls it.
_SAME = {
    ("format",): "--format",
    ("layers",): "--layers",
    ("background",): "--background",
    ("model", "sha256"): "model (sha256)",
    ("runtime", "provider"): "provider",
    ("runtime", "fast_math"): "--fast-math",
    ("runtime", "feature_precision"): "--feature-precision",
}


class Job:
    """A result file of this call; a context, in which no other process writes the file.

    path: the file. form: a key of RESUMABLE. layers: whether rows have the shares of the depths. made_by: goes into the
    record, JSON values; `model` and `runtime` as in Scorer.provenance. pairs: all of the job.

    Attributes: pairs, those that `earlier` has not found in the file.
    """

    def __init__(
        self, path: str, form: str, *, layers: bool, made_by: Mapping[str, Any], pairs: Iterable[Pair]
    ) -> None:
        self.pairs = iter(pairs)
        self._path = Path(path)
        self._record_path, sums = beside(path)
        self._record = {"format": form, "layers": layers, **made_by}
        self._sums = Checksums(sums)
        self._layers = layers
        self._form = RESUMABLE[form]
        self._kept = 0  # bytes of the file, up to the end of its last whole row
        self._text = io.StringIO()
        self._writer = FORMATS[form](self._text, layers=layers)
        self._header = self._text.getvalue().encode()

    def __enter__(self) -> Job:
        self._lock = ExitStack()
        self._lock.enter_context(alone(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        self._sums.close()
        self._lock.close()

    def earlier(self) -> Iterator[Result]:
        """The results in the file, failed ones too, each once it was compared with its pair. Changes nothing.

        Raises ForeignResultError for a file that is not of this job; a missing or empty one holds nothing.
        """
        try:
            file = open(self._path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be read: {error.strerror}") from error
        with file:
            rows = _rows(file, self._form.quoted_lines)
            first, whole = next(rows, (b"", False))
            if not whole and self._header.startswith(first):
                return
            self._check_record()
            if not self._header:
                rows = itertools.chain([(first, whole)], rows)
            elif first != self._header:
                raise self._foreign("its first line does not name the columns that this job writes")
            else:
                self._keep(first, "its first line")
            for number, (row, whole) in enumerate(rows, 1):
                pair = next(self.pairs, None)
                if pair is None:
                    raise self._foreign(f"it goes on after row {number - 1}, where this job ends")
                if not whole and self._is_begun(row, pair):
                    self.pairs = itertools.chain([pair], self.pairs)
                    return
                result = self._result(row, pair)
                if result is None:
                    due = f"{written_name(pair.reference)}, {written_name(pair.distorted)}"
                    raise self._foreign(f"row {number} is not one of {due}, which this job has there")
                self._keep(row, f"row {number}")
                yield result

    def begin(self) -> bool:
        """Cut off what is no whole row, for others to append; -> whether anything is left. If not, the file is anew.

        Raises ForeignResultError as check_beside does, OutputError if that cannot be done.
        """
        if self._kept:
            with reported(self._path):
                os.truncate(self._path, self._kept)
            return True
        check_beside(self._path)
        # Before the rows: old ones must never lie beside a record that is not theirs. The checksums go first, since
        # without the record nothing says that they are ours.
        for old in (self._sums.path, self._record_path):
            try:
                old.unlink(missing_ok=True)
            except NotADirectoryError:  # which whoever opens the file will say
                pass
            except OSError as error:
                raise OutputError(
                    f"{self._path}: cannot be written: an older {old.name} beside it cannot be removed "
                    f"({error.strerror})"
                ) from error
        return False

    def recorded(self, stream: TextSink) -> TextSink:
        """`stream`, the opened file, once what makes it a job lies beside it: checksums, and the record if it is anew.

        Raises OutputError if that cannot be written; the stream is as good as before then.
        """
        beside = self._sums.path
        try:
            self._sums.begin()
            if not self._kept:
                beside = self._record_path
                with replacing(beside) as file:
                    file.write(f"{json.dumps(self._record, indent=2)}\n".encode())
        except OSError as error:  # an OutputError of `replacing` too, which words it itself
            self._sums.close()
            why = error.__cause__ or error
            raise OutputError(
                f"{self._path}: {beside.name} cannot be written beside it ({getattr(why, 'strerror', None) or why})"
            ) from error
        return Summed(stream, self._sums)

    def _keep(self, row: bytes, what: str) -> None:
        if not self._sums.agrees(row):
            raise self._foreign(f"{what} is not what was written there")
        self._kept += len(row)

    def _check_record(self) -> None:
        name = self._record_path.name
        try:
            found = json.loads(self._record_path.read_bytes())
        except FileNotFoundError:
            raise self._foreign(f"beside it lies no {name}, which says what made it") from None
        except (OSError, ValueError) as error:
            raise self._foreign(f"{name}, which says what made it, cannot be read ({error})") from error
        for place, what in _SAME.items():
            there, here = _at(found, place), _at(self._record, place)
            if there != here:
                raise self._foreign(f"it was made with another {what}: {there}, this job has {here}")
        try:
            self._sums.read()
        except OSError as error:
            raise OutputError(f"{self._sums.path}: cannot be read: {error.strerror}") from error

    def _foreign(self, why: str) -> ForeignResultError:
        return ForeignResultError(
            f"{self._path}: is not of this job: {why}; name another file, or leave out --resume to write it anew"
        )

    def _result(self, row: bytes, pair: Pair) -> Result | None:
        try:
            result = Result(pair.reference, pair.distorted, *self._form.values(row.decode(), self._layers))
            return result if self._written(result) == row else None
        except (ValueError, LookupError, TypeError, csv.Error):
            return None

    def _is_begun(self, torn: bytes, pair: Pair) -> bool:
        """Whether this is the beginning of one row of the pair; what no distance and no error share comes after it."""
        rows = [
            self._written(Result(pair.reference, pair.distorted, *end)) for end in ((1, None), (2, None), (None, "x"))
        ]
        names = os.path.commonprefix(rows)  # noqa: RUF071 (of bytes, not of paths)
        # More lines than a row can have: a quote was opened, and the rows after it look like one.
        one_row = len(torn) <= _ROW_BYTES and torn.count(b"\n") <= _LINE_ENDS * (rows[0].count(b"\n") - 1)
        return one_row and torn[: len(names)] == names[: len(torn)]

    def _written(self, result: Result) -> bytes:
        self._text.seek(0)
        self._text.truncate()
        self._writer.write(result)
        return self._text.getvalue().encode()


def _rows(file: BinaryIO, quoted_lines: bool) -> Iterator[tuple[bytes, bool]]:
    """Each row, and whether it is whole: up to a line end that is not quoted. Only the last one may not be."""
    row = b""
    for line in file:
        row += line
        if line.endswith(b"\n") and not (quoted_lines and row.count(b'"') % 2):
            yield row, True
            row = b""
        elif len(row) > _ROW_BYTES:
            break
    # After a loss of power a file may end in zeros that nobody has written.
    if row := row.rstrip(b"\0"):
        yield row, False


def _at(record: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        record = record.get(key) if isinstance(record, dict) else None
    return record


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes from going on with the file meanwhile, where the system and its disk can do that.

    Raises OutputError if one does already.
    """
    with ExitStack() as stack:
        try:
            import fcntl

            file = stack.enter_context(open(path, "ab"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path}: another process is writing it; wait until that ends, or end it") from None
        except (ImportError, OSError):  # what is wrong with the file shows when it is opened to be written
            pass
        yield
