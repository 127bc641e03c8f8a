"""A report of `latency` or `scaling`: its form, and how it is written and read.

All keys that have no NotRequired are always there; what is not known is None. Times are of one call, which scores a
whole batch, in milliseconds unless a name says seconds.
"""

import json
import math
import types
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from lpips_runtime.errors import UsageError
from lpips_runtime.output import open_output, reported

from .machine import Machine, Project

__all__ = [
    "AGAINST",
    "EAGER",
    "EXPONENTS",
    "Cell",
    "Fit",
    "Predicted",
    "Quartiles",
    "Report",
    "Spread",
    "eager_of",
    "fits_well",
    "fitted",
    "is_ours",
    "measured",
    "read_report",
    "write_report",
]

# The subjects that others' times are compared with, by device: what `lpips` gives who just calls it.
EAGER = {"cpu": "eager", "cuda": "eager-cuda"}

# What `scaling` varies -> the unit of "at".
AGAINST = {
    "batch": "pairs in a call",
    "pixels": "pixels of an image",
    "threads": "threads",
    "images, all pairs": "images, all pairs of them",
    "images, one against the others": "images, one against the others",
}
# Exponents of fits are looked for between these.
EXPONENTS = (-1.5, 3.0)
# A point that is so far from the curve, relative, is not on it.
_FAR = 0.15

Against = Literal["batch", "pixels", "threads", "images, all pairs", "images, one against the others"]


class Predicted(TypedDict):
    """What a cell would take. seconds: all its calls. bytes: resident memory at its peak."""

    seconds: float
    bytes: float


class Spread(TypedDict):
    """ms of the calls that were counted: percentiles 50, 90, 99, 25 and 75, and the least."""

    p50: float
    p90: float
    p99: float
    q1: float
    q3: float
    fastest: float


class Quartiles(TypedDict):
    p50: float
    q1: float
    q3: float


class Cell(TypedDict):
    """One subject on one size, batch and number of threads.

    subject: its key. title: the same for people, which begins with "this project" for ours. exact: whether its
    distances must be those of float32. state: "absent" is not installed or does not run here, "not run" would pass the
    budget; why: the reason, empty if measured. predicted: None where nothing was.

    Only of those measured: calls: that were counted; uncounted: that were made besides, to warm up and at the beginning
    of each turn. pairs: of a call. device_ms: p50 by CUDA events; transfer_ms: of that the ways to the GPU and back,
    timed by themselves. peak_bytes: resident. first_seconds: from the start of the process to its first number. share,
    limit: of which of the report's limits it makes how much use, 1 is all; None if that was not measured, or with other
    threads. distance: of the first pair, None
    if it is no number. error: relative to the reference, worst of the batch, None if it was not compared. wrong:
    whether it should have been the reference's distance and is not. others: what others had of the cores meanwhile, 0
    to 1, None if the system does not say. steady: whether that was next to nothing. times: how many times as fast as
    the EAGER of its device, round by round; only if steady.

    Only of `scaling`: against: what is varied; at: how much of it, in the unit of AGAINST.
    """

    net: str
    width: int
    height: int
    batch: int
    threads: int
    subject: str
    title: str
    device: Literal["cpu", "cuda"]
    exact: bool
    state: Literal["measured", "absent", "not run"]
    why: str
    predicted: Predicted | None
    calls: NotRequired[int]
    uncounted: NotRequired[int]
    pairs: NotRequired[int]
    ms: NotRequired[Spread]
    device_ms: NotRequired[float | None]
    transfer_ms: NotRequired[float | None]
    pairs_per_second: NotRequired[float]
    peak_bytes: NotRequired[int]
    first_seconds: NotRequired[float]
    installed_bytes: NotRequired[int | None]
    share: NotRequired[float | None]
    limit: NotRequired[str | None]
    distance: NotRequired[float | None]
    error: NotRequired[float | None]
    wrong: NotRequired[bool]
    others: NotRequired[float | None]
    steady: NotRequired[bool]
    times: NotRequired[Quartiles]
    drift: NotRequired[float]
    against: NotRequired[Against]
    at: NotRequired[float]


_MEASURED = (
    *("calls", "uncounted", "pairs", "ms", "device_ms", "transfer_ms", "pairs_per_second", "peak_bytes"),
    *("first_seconds", "installed_bytes", "share", "limit", "distance", "error", "wrong", "others", "steady"),
)


class Fit(TypedDict):
    """ms of a call = constant_ms + per_unit_ms * at ** exponent. residual: how far a measured point is from it at most,
    relative. points: that it was fitted to."""

    net: str
    subject: str
    against: Against
    exponent: float
    constant_ms: float
    per_unit_ms: float
    residual: float
    points: int


class Report(TypedDict):
    """command, arguments: what was called. date: ISO 8601. project: that measured and was measured. models: the name of
    each file -> its SHA-256. limits: GFLOP/s of matrix products, the best of what physical.limits found in this run.
    notes: what a reader must know, an unsteady machine say; a line each. fits: of `scaling`."""

    command: Literal["latency", "scaling"]
    arguments: list[str]
    date: str
    project: Project
    models: dict[str, str]
    machine: Machine
    limits: dict[str, float | None]
    notes: list[str]
    cells: list[Cell]
    fits: NotRequired[list[Fit]]


def measured(cell: Cell) -> bool:
    return cell["state"] == "measured"


def is_ours(cell: Cell) -> bool:
    return cell["title"].startswith("this project")


def eager_of(cell: Cell, cells: list[Cell]) -> Cell | None:
    """The measured cell of `lpips` on the same device among those of the same size."""
    name = EAGER[cell["device"]]
    return next((other for other in cells if other["subject"] == name and measured(other)), None)


def fitted(fit: Fit, at: Any) -> Any:
    """ms that the fit says; at: a number or an array."""
    return fit["constant_ms"] + fit["per_unit_ms"] * at ** fit["exponent"]


def fits_well(fit: Fit) -> bool:
    """Whether the exponent says how it grows: no point is far from the curve, and none steeper was left untried."""
    low, high = EXPONENTS
    return fit["residual"] <= _FAR and low < fit["exponent"] < high


def write_report(path: Path, report: Report) -> None:
    """Whole or not at all. Raises OutputError if it cannot be written, ValueError if a number in it is none."""
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    with open_output(path, atomic=True) as file, reported(path):
        file.write(text)


def read_report(path: Path) -> Report:
    """Raises UsageError, with what is wrong in it, if the file cannot be read or holds no report."""
    try:
        report = json.loads(path.read_bytes(), parse_constant=_no_number)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no report: {error}") from error
    if fault := _fault(report, Report, "") or next(_faults(report), ""):
        raise UsageError(f"{path}: is no report of latency or scaling: {fault}")
    return report


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _faults(report: Report) -> Any:
    """What the types do not say, in words."""
    for number, cell in enumerate(report["cells"]):
        at = f"cells[{number}]"
        wanted = [
            *(_MEASURED if measured(cell) else ()),
            *(("against", "at") if report["command"] == "scaling" else ()),
        ]
        yield from (f"{at} has no {key!r}" for key in wanted if key not in cell)
        if not measured(cell):
            yield from (f"{at} is {cell['state']} and has {key!r}" for key in _MEASURED if key in cell)
        values = {"at": cell.get("at", 1), **{f"ms.{name}": value for name, value in cell.get("ms", {}).items()}}
        yield from (f"{at}.{name} is {value!r}, not above 0" for name, value in values.items() if not value > 0)
        if (cell.get("error") or 0) < 0:
            yield f"{at}.error is {cell.get('error')!r}, below 0"


def _fault(value: Any, kind: Any, at: str) -> str:
    """How a value is not of a type, empty if it is. at: where it is in the report."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        if not isinstance(value, dict):
            return f"{at or 'it'} is no object"
        hints = get_type_hints(kind)
        missing = [
            f"{at + ' has' if at else 'it has'} no {key!r}" for key in kind.__required_keys__ if key not in value
        ]
        found = (_fault(value[key], hint, f"{at}.{key}".strip(".")) for key, hint in hints.items() if key in value)
        return next(iter(sorted(missing)), "") or next(filter(None, found), "")
    if origin is list:
        if not isinstance(value, list):
            return f"{at} is no list"
        return next(filter(None, (_fault(each, inner[0], f"{at}[{n}]") for n, each in enumerate(value))), "")
    if origin is dict:
        if not isinstance(value, dict):
            return f"{at} is no object"
        return next(filter(None, (_fault(each, inner[1], f"{at}[{key!r}]") for key, each in value.items())), "")
    if origin in (Union, types.UnionType):
        faults = [_fault(value, each, at) for each in inner]
        return "" if "" in faults else faults[0]
    if origin is Literal:
        return "" if value in inner else f"{at} is {value!r}, not one of {', '.join(map(repr, inner))}"
    # A whole number is a float too, but neither is a truth value.
    wanted = (int, float) if kind is float else kind
    if isinstance(value, float) and not math.isfinite(value):
        return f"{at} is {value!r}, no number"
    fits = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
    return "" if fits else f"{at} is {value!r}, not {getattr(kind, '__name__', kind)}"
