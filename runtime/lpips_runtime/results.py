"""What came out of the pairs, and its four written forms: text, JSON, JSONL, CSV.

Everything written is UTF-8, and no name can break a row or the encoding. Bytes of a file name that are no
UTF-8 appear as `\\udcXX`, XX being the byte, in every form (`written_name`). CSV quotes line ends, JSON
escapes them. The text form is made for reading: it shows tabs, line ends and control characters as backslash
escapes and leaves backslashes as they are; whoever must get back the exact name takes another form.
"""

import csv
import io
import json
import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .errors import OutputError
from .output import TextSink, reason

if TYPE_CHECKING:
    from .images import Note

__all__ = [
    "FORMATS",
    "Result",
    "Summary",
    "Writer",
    "format_distance",
    "written_name",
]


@dataclass(frozen=True)
class Result:
    """One pair's outcome: its names, and either a finite `distance` or an `error`.

    `layers` are the depths' shares, which sum to the distance. Not written or compared: `notes` about the
    files, and for heatmaps `detail`, whatever the scorer hands on, and `pixels`, the distorted image as uint8
    [H,W,3]. Raises ValueError if distance and error are both set or both missing, or the distance is not
    finite.
    """

    reference: str
    distorted: str
    distance: float | None
    error: str | None = None
    layers: tuple[float, ...] | None = None
    notes: tuple["Note", ...] = field(default=(), compare=False, repr=False)
    detail: Any = field(default=None, compare=False, repr=False)
    pixels: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if (self.distance is None) == (self.error is None):
            raise ValueError(f"a result has a distance or an error, not {self.distance!r} and {self.error!r}")
        if self.distance is not None and not np.isfinite(self.distance):
            raise ValueError(f"a distance is a finite number, not {self.distance!r}; report it as an error")


class Summary:
    """Figures over all results that were added. Distances are kept as float32, 4 bytes each."""

    def __init__(self) -> None:
        self.failed = 0
        self.tiled = 0  # scored in tiles
        self.worst: Result | None = None  # the first one with the largest distance, without its images
        self._distances = array("f")

    def add(self, result: Result) -> None:
        if result.distance is None:
            self.failed += 1
            return
        self.tiled += any(note.kind == "tiled" for note in result.notes)
        self._distances.append(result.distance)
        if self.worst is None or result.distance > (self.worst.distance or 0):
            self.worst = replace(result, detail=None, pixels=None)

    @property
    def count(self) -> int:
        """All results, failed ones included."""
        return len(self._distances) + self.failed

    @property
    def mean(self) -> float | None:
        """Mean distance, computed in float64; None, as for the other figures, if nothing was scored."""
        return self._figure(np.mean)

    @property
    def median(self) -> float | None:
        return self._figure(np.median)

    @property
    def min(self) -> float | None:
        return self._figure(np.min)

    @property
    def max(self) -> float | None:
        return self._figure(np.max)

    def as_dict(self) -> dict[str, int | float | None]:
        """`count`, `failed`, `mean`, `median`, `min`, `max`, and `tiled`, how many were scored in tiles, if any.

        A figure that is a float32 has the value of its shortest decimal (see `format_distance`), so that it
        is printed like the distance that it is.
        """
        figures = {name: getattr(self, name) for name in ("mean", "median", "min", "max")}
        return {
            "count": self.count,
            "failed": self.failed,
            **{name: figure if figure is None else _shortest(figure) for name, figure in figures.items()},
            **({"tiled": self.tiled} if self.tiled else {}),
        }

    def _figure(self, of: Callable[[np.ndarray], Any]) -> float | None:
        return float(of(np.array(self._distances, np.float64))) if self._distances else None


def format_distance(distance: float) -> str:
    """The shortest decimal that reads back as the same float32, e.g. `0.72190344`, `1e-07`.

    A JSON reader goes through float64 first and gets the same float32: a decimal that rounds differently in
    two steps has eight digits or fewer, and between 1e-11 and 1e+10 there is none (all were searched).
    Raises ValueError if the number is not finite.
    """
    number = np.float32(distance)
    if not np.isfinite(number):
        raise ValueError(f"not a finite number: {distance!r}")
    return str(number)


def _shortest(figure: float) -> float:
    return float(format_distance(figure)) if np.float32(figure) == figure else figure


def written_name(name: str) -> str:
    """`name` as CSV, JSON and JSONL hold it: undecodable bytes of a file name become the text `\\udcXX`."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


class Writer:
    """Base of the written forms. `rows` counts the results that the stream has taken and flushed.

    `layers` adds the shares of the depths; `provenance` holds `model` and `runtime`, what made the numbers
    (JSON only); `single` says that there is one pair (text prints its bare number); `resumed` that the
    stream continues a file of earlier rows. Raises OutputError if the stream fails, from the constructor too;
    BrokenPipeError passes, since a reader who has seen enough is no failure.
    """

    atomic: ClassVar[bool] = False
    """Whether all is written at the end; give it to `open_output`."""

    def __init__(
        self,
        stream: TextSink,
        layers: bool = False,
        provenance: Mapping[str, Any] | None = None,
        single: bool = False,
        resumed: bool = False,
    ) -> None:
        self.rows = 0
        self._stream = stream
        self._layers = layers
        self._provenance = provenance or {"model": {}, "runtime": {}}
        self._single = single
        self._begin(resumed)

    def write(self, result: Result) -> None:
        """Take one result. All forms but JSON hand it to the system before they return."""
        raise NotImplementedError

    def finish(self, summary: Summary, complete: bool = True) -> None:
        """Write what follows the rows. `complete` is False if pairs were left unscored."""

    def _begin(self, resumed: bool) -> None:
        """Write what precedes the rows."""

    def _emit(self, text: str, rows: int) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            destination = getattr(self._stream, "destination", "the output")
            raise OutputError(
                f"{destination}: cannot be written: {reason(error)}; rows safely written: {self.rows}"
            ) from error
        self.rows += rows


class _TextWriter(Writer):
    def write(self, result: Result) -> None:
        if result.distance is None:
            return
        names = () if self._single else (_visible(result.reference), _visible(result.distorted))
        shares = (result.layers or ()) if self._layers else ()
        row = [format_distance(result.distance), *names, *map(format_distance, shares)]
        self._emit("\t".join(row) + "\n", rows=1)


class _CsvWriter(Writer):
    def _begin(self, resumed: bool) -> None:
        if not resumed:
            columns = ["reference", "distorted", "distance", "error"]
            self._emit(_csv_row(columns + ["layers"] * self._layers), rows=0)

    def write(self, result: Result) -> None:
        distance = "" if result.distance is None else format_distance(result.distance)
        row = [result.reference, result.distorted, distance, result.error or ""]
        if self._layers:
            row.append(" ".join(map(format_distance, result.layers or ())))
        self._emit(_csv_row(row), rows=1)


class _JsonlWriter(Writer):
    def write(self, result: Result) -> None:
        self._emit(_json(self._row(result)) + "\n", rows=1)

    def _row(self, result: Result) -> dict[str, Any]:
        row: dict[str, Any] = {
            "reference": result.reference,
            "distorted": result.distorted,
            "distance": None if result.distance is None else float(format_distance(result.distance)),
            "error": result.error,
        }
        if self._layers:
            shares = result.layers
            row["layers"] = None if shares is None else [float(format_distance(share)) for share in shares]
        return row


class _JsonWriter(_JsonlWriter):
    atomic = True

    def _begin(self, resumed: bool) -> None:
        self._written: list[str] = []

    def write(self, result: Result) -> None:
        self._written.append(_json(self._row(result)))

    def finish(self, summary: Summary, complete: bool = True) -> None:
        figures = summary.as_dict() | ({} if complete else {"complete": False})
        head = {
            "model": self._provenance["model"],
            "runtime": self._provenance["runtime"],
            "summary": figures,
        }
        rows = ",\n".join(f"    {row}" for row in self._written)
        body = f"[\n{rows}\n  ]" if rows else "[]"
        opening = _json(head, indent=2).removesuffix("\n}")
        self._emit(f'{opening},\n  "results": {body}\n}}\n', rows=len(self._written))


FORMATS: dict[str, type[Writer]] = {
    "text": _TextWriter,
    "json": _JsonWriter,
    "jsonl": _JsonlWriter,
    "csv": _CsvWriter,
}

# Control characters, what some readers take for line ends (U+0085, U+2028, U+2029), and undecodable bytes.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _visible(name: str) -> str:
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), name)


def _csv_row(values: list[str]) -> str:
    # csv quotes only the line ends that it is told to write, so it is told both, and one is taken off again.
    row = io.StringIO()
    csv.writer(row, lineterminator="\r\n").writerow(map(written_name, values))
    return row.getvalue().removesuffix("\r\n") + "\n"


# All of these stand inside strings only. The first three are legal JSON, but break lines for some readers.
_JSON_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}
_JSON_ESCAPES |= {code: f"\\\\u{code:04x}" for code in range(0xD800, 0xE000)}


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).translate(_JSON_ESCAPES)
