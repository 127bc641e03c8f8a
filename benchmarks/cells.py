"""From subjects that took turns to the cells of a report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from .budget import Budget, Forecast
from .job import Job
from .physical import FLOAT32, share
from .schema import EAGER, Cell, Predicted, Quartiles, Spread, measured
from .speed import SAME
from .subjects import disk_bytes, find, reference
from .turns import Turns, take_turns

__all__ = ["measure", "set_shares", "spread", "unsteady"]

# What a distance in half or bfloat16 may differ by and still be of use, relative.
_FAST = 0.05
# A machine is unsteady if the middle half of the calls of its median subject spreads by more, relative to their median,
# or if the calls of that subject drift by more from the first third of the rounds to the last.
_UNSTEADY = 0.1
# A spread of the calls that others are compared with, relative to their median, that is worth words of its own.
_WIDE = 0.3
# What others may have of the cores without ratios being withheld.
_OTHERS = 0.05
# Rounds from which on there are ratios round by round, whose quartiles say how sure they are; and drift is told.
_TO_COMPARE, _TO_DRIFT = 4, 6
# The rate of `limits` that a subject is held against, by its name; the others have float32's of their device.
_RATES = {
    "fast-math": "bfloat16",
    "compile-bf16": "bfloat16",
    "openvino-direct-fast": "bfloat16",
    **dict.fromkeys(
        ("cuda-fast", "eager-cuda", "compile-cuda", "torchmetrics-cuda", "piq-cuda", "plain-cuda"), "cuda tf32"
    ),
    **dict.fromkeys(("cuda-half", "eager-cuda-half", "compile-cuda-half", "tensorrt-half", "rtx-half"), "cuda half"),
}
# Those whose type torch multiplies no matrices in.
_NOT_MEASURED = {"int8", "tensorrt-int8"}


def measure(
    of: Mapping[str, tuple[str, Job]],
    rounds: int,
    budget: Budget,
    forecast: Forecast,
    told: Callable[[str], object] = lambda _: None,
    until: float = math.inf,
) -> list[Cell]:
    """The cells of subjects that take turns, in their order, without shares. of, told, until: as of take_turns."""
    predicted = {name: forecast.predict(*one, rounds) for name, one in of.items()}
    why = budget.passed(predicted, _first(of, predicted), until - time.monotonic())
    run = {name: one for name, one in of.items() if name not in why}
    found = take_turns(run, rounds, told, until, budget.seconds) if run else {}
    cells: list[Cell] = []
    for name, (subject, job) in of.items():
        turns = found.get(name, Turns())
        cell: Any = _head(subject, job)
        if name in why:
            cell |= {"state": "not run", "why": why[name], "predicted": predicted[name]}
        elif turns.absent or not turns.seconds:
            cell |= {"state": "absent", "why": turns.absent or "no round was asked for"}
        else:
            truth, eager = (
                next((found.get(other) for other, one in of.items() if one == (wanted, job)), None)
                for wanted in (reference(subject), EAGER[cell["device"]])
            )
            cell |= _measured(subject, job, turns, truth, eager)
        forecast.learn(subject, job, cell)
        cells.append(cell)
    return cells


def _first(of: Mapping[str, tuple[str, Job]], predicted: Mapping[str, Predicted]) -> list[str]:
    """The order in which subjects get what the budget has: what the others are held against, then those of the least
    memory, so that the fewest are left out."""
    held = {reference(subject) for subject, _ in of.values()} | set(EAGER.values())
    return sorted(of, key=lambda name: (of[name][0] not in held, predicted[name]["bytes"]))


def _head(subject: str, job: Job) -> Cell:
    row, (height, width) = find(subject), job.shape
    return {
        "net": job.net,
        "width": width,
        "height": height,
        "batch": job.batch,
        "threads": job.threads,
        "subject": subject,
        "title": row.title,
        "device": row.device,
        "exact": row.exact,
        "state": "measured",
        "why": "",
        "predicted": None,
    }


def _measured(subject: str, job: Job, turns: Turns, truth: Turns | None, eager: Turns | None) -> Any:
    row = find(subject)
    pairs, _ = row.counts(job.batch)
    # A reference that is no number makes itself wrong, not those that are held against it.
    answers, error = np.stack([turns.distances, *turns.later]), None
    if _comparable(truth, turns) and np.isfinite(truth.distances).all():
        error = float(np.abs(answers / truth.distances - 1).max())
    found: dict[str, Any] = {
        "calls": len(turns.calls),
        "uncounted": turns.uncounted,
        "pairs": pairs,
        "ms": spread(turns.calls),
        "device_ms": _median_ms(turns.device),
        "transfer_ms": _median_ms(turns.transfer),
        "pairs_per_second": pairs * len(turns.calls) / sum(turns.calls),
        "peak_bytes": turns.peak,
        "first_seconds": turns.started,
        "installed_bytes": disk_bytes(subject, job),
        "share": None,
        "limit": None,
        "distance": float(turns.distances[0]) if np.isfinite(turns.distances[0]) else None,
        "error": error if error is None or np.isfinite(error) else None,
        "wrong": not np.isfinite(answers).all() or (error is not None and not error <= (SAME if row.exact else _FAST)),
        "others": turns.others,
        "steady": (turns.others or 0) <= _OTHERS,
    }
    if len(turns.seconds) >= _TO_DRIFT:
        first, *_, last = np.array_split(turns.seconds, 3)
        found["drift"] = float(np.median(last) / np.median(first) - 1)
    # Other work does not slow all subjects alike: then there are no ratios.
    rounds = len(turns.seconds)
    if found["steady"] and _comparable(eager, turns) and len(eager.seconds) == rounds >= _TO_COMPARE:
        low, middle, high = np.quantile(np.array(eager.seconds) / turns.seconds, [0.25, 0.5, 0.75])
        found["times"] = Quartiles(p50=float(middle), q1=float(low), q3=float(high))
    return found


def _comparable(one: Turns | None, other: Turns) -> TypeGuard[Turns]:
    """Whether both ran, on the same pairs."""
    return one is not None and bool(one.seconds) and one.distances.shape == other.distances.shape


def _median_ms(seconds: Sequence[float]) -> float | None:
    return float(np.median(seconds) * 1e3) if seconds else None


def set_shares(cells: Sequence[Cell], limits: Mapping[str, float | None], threads: int) -> None:
    """How much of the machine's matrix speed each cell makes use of. limits: measured with so many threads: cells that
    have others have none, nor those that others slowed."""
    for cell in filter(measured, cells):
        if not cell.get("steady") or (cell["device"] == "cpu" and cell["threads"] != threads):
            continue
        # Where a type is imitated, it is no limit: the kernels are float32's.
        names = {FLOAT32[cell["device"]], _RATES.get(cell["subject"], FLOAT32[cell["device"]])}
        rates = {name: rate for name in names if (rate := limits.get(name))}
        if cell["subject"] in _NOT_MEASURED or not rates:
            continue
        cell["limit"] = max(rates, key=lambda name: rates[name])
        _, encoded = find(cell["subject"]).counts(cell["batch"])
        seconds = cell["ms"]["p50"] / 1e3  # pyright: ignore[reportTypedDictNotRequiredAccess]
        cell["share"] = share(cell["net"], cell["height"], cell["width"], encoded, seconds, rates[cell["limit"]])


def spread(seconds: Sequence[float]) -> Spread:
    """Percentiles of seconds, in ms. None is dropped."""
    q1, p50, q3, p90, p99 = (float(each) for each in np.quantile(np.array(seconds) * 1e3, [0.25, 0.5, 0.75, 0.9, 0.99]))
    return Spread(p50=p50, p90=p90, p99=p99, q1=q1, q3=q3, fastest=min(seconds) * 1e3)


def unsteady(cells: Sequence[Any], rounds: int, what: str) -> list[str]:
    """Notes if the machine was not itself while these were measured, or there was no time for all rounds. what: it was,
    in words."""
    there = [cell for cell in cells if measured(cell)]
    others = [cell["others"] for cell in there if cell["others"] is not None]
    # Words, from which value on they are said, and the values, of which the median subject's counts.
    rows = (
        (
            "unsteady: others had {:.0%} of the cores while {} was measured; there are no ratios, shares or fits, "
            "since that slows no two alike",
            _OTHERS,
            others,
        ),
        (
            "unsteady: half of the calls on {1} spread over {0:.0%} of the median; ratios are as sure as their "
            "quartiles",
            _UNSTEADY,
            [(cell["ms"]["q3"] - cell["ms"]["q1"]) / cell["ms"]["p50"] for cell in there],
        ),
        (
            "unsteady: calls on {1} drifted by {0:.0%} from the first rounds to the last; ratios are as sure as their "
            "quartiles",
            _UNSTEADY,
            [abs(cell["drift"]) for cell in there if "drift" in cell],
        ),
    )
    notes = [
        words.format(middle, what)
        for words, limit, values in rows
        if values and (middle := float(np.median(values))) > limit
    ]
    held = [cell for cell in there if cell["subject"] == EAGER[cell["device"]]]
    notes += [
        f"half of the calls of {cell['subject']} on {what} spread over {wide:.0%} of the median: so do all ratios to it"
        for cell in held
        if (wide := (cell["ms"]["q3"] - cell["ms"]["q1"]) / cell["ms"]["p50"]) > _WIDE
    ]
    if there and not others:
        notes.append(f"what others had of the cores while {what} was measured is not known on this system")
    if fewest := [cell["calls"] for cell in there if cell["calls"] < rounds * find(cell["subject"]).calls]:
        notes.append(f"there was no time for all rounds of {what}: some subjects have {min(fewest)} calls")
    return notes
