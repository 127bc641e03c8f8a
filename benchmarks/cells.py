"""From subjects that took turns to the cells of a report, and what a run leaves behind if it is stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lpips_runtime.errors import UsageError
from lpips_runtime.output import reported
from lpips_runtime.resume import alone
from lpips_runtime.say import say

from .budget import Budget, Forecast
from .job import Job
from .physical import share
from .schema import EAGER, Cell, Quartiles, Spread
from .speed import SAME
from .subjects import disk_bytes, find
from .turns import Turns, take_turns

__all__ = ["Journal", "measure", "spread", "unsteady"]

# What a distance in half or bfloat16 may differ by and still be of use, relative.
_FAST = 0.05
# A machine is unsteady if the middle half of the calls of its median subject spreads by more, relative to their median,
# or if the calls of that subject drift by more from the first third of the rounds to the last.
_UNSTEADY = 0.1
# Rounds from which on drift is told.
_TO_DRIFT = 6
# The rate of `limits` that a subject is held against, by its name; the others have float32's of their device.
_RATES = {
    "fast-math": "bfloat16",
    "compile-bf16": "bfloat16",
    "openvino-direct-fast": "bfloat16",
    "cuda-fast": "cuda tf32",
    "eager-cuda-fast": "cuda tf32",
    "plain-cuda": "cuda tf32",
    "cuda-half": "cuda half",
    "eager-cuda-half": "cuda half",
    "compile-cuda-half": "cuda half",
}
_FLOAT32 = {"cpu": "float32", "cuda": "cuda float32"}


def measure(
    of: Mapping[str, tuple[str, Job]],
    rounds: int,
    limits: Mapping[str, float | None],
    budget: Budget,
    forecast: Forecast,
    told: Callable[[str], object] = lambda _: None,
) -> list[Cell]:
    """The cells of subjects that take turns, in their order. of, told: as of take_turns."""
    predicted = {name: forecast.predict(*one, rounds) for name, one in of.items()}
    why, taken = {}, 0.0
    for name in of:
        why[name] = budget.passed(predicted[name], taken)
        taken += 0 if why[name] else predicted[name]["bytes"]
    found = take_turns({name: one for name, one in of.items() if not why[name]}, rounds, told)
    cells: list[Cell] = []
    for name, (subject, job) in of.items():
        turns = found.get(name, Turns(absent=why[name]))
        cell: Any = _head(subject, job)
        if why[name]:
            cell |= {"state": "not run", "why": why[name], "predicted": predicted[name]}
        elif turns.absent or not turns.seconds:
            cell |= {"state": "absent", "why": turns.absent or "no round was asked for"}
        else:
            eager = next((found.get(other) for other, one in of.items() if one == (EAGER[cell["device"]], job)), None)
            cell |= _measured(subject, job, turns, eager, limits)
        forecast.learn(subject, job, cell)
        cells.append(cell)
    return cells


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


def _measured(subject: str, job: Job, turns: Turns, eager: Turns | None, limits: Mapping[str, float | None]) -> Any:
    row, p50 = find(subject), float(np.median(turns.calls))
    # Where a type is imitated, it is no limit: the kernels are float32's.
    rates = [limits.get(rate) for rate in (_FLOAT32[row.device], _RATES.get(subject, ""))]
    rate = max(filter(None, rates), default=None)
    # A reference that is no number makes itself wrong, not those that are held against it.
    there = (
        eager is not None
        and len(eager.seconds) > 0
        and eager.distances.shape == turns.distances.shape
        and np.isfinite(eager.distances).all()
    )
    error = float(np.abs(turns.distances / eager.distances - 1).max()) if there and eager else None
    measured: dict[str, Any] = {
        "calls": len(turns.calls),
        "warm_up": row.warm_up,
        "ms": spread(turns.calls),
        "device_ms": float(np.median(turns.device) * 1e3) if turns.device else None,
        "pairs_per_second": job.batch * len(turns.calls) / sum(turns.calls),
        "peak_bytes": turns.peak,
        "first_seconds": turns.started,
        "installed_bytes": disk_bytes(subject, job),
        "share": share(job.net, *job.shape, job.batch, p50, rate),
        "distance": float(turns.distances[0]) if np.isfinite(turns.distances[0]) else None,
        "error": error if error is None or np.isfinite(error) else None,
        "wrong": not np.isfinite(turns.distances).all()
        or (error is not None and not error <= (SAME if row.exact else _FAST)),
    }
    if len(turns.seconds) >= _TO_DRIFT:
        first, *_, last = np.array_split(turns.seconds, 3)
        measured["drift"] = float(np.median(last) / np.median(first) - 1)
    if there and eager and len(eager.seconds) == len(turns.seconds):
        low, middle, high = np.quantile(np.array(eager.seconds) / turns.seconds, [0.25, 0.5, 0.75])
        measured["times"] = Quartiles(p50=float(middle), q1=float(low), q3=float(high))
    return measured


def spread(seconds: Sequence[float]) -> Spread:
    """Percentiles of seconds, in ms. None is dropped."""
    q1, p50, q3, p90, p99 = (float(each) for each in np.quantile(np.array(seconds) * 1e3, [0.25, 0.5, 0.75, 0.9, 0.99]))
    return Spread(p50=p50, p90=p90, p99=p99, q1=q1, q3=q3, fastest=min(seconds) * 1e3)


def unsteady(cells: Sequence[Any], what: str) -> list[str]:
    """A note if the machine was not itself while these were measured. what: it was, in words."""
    found = {
        "half of the calls on {} spread over {:.0%} of the median": [
            (cell["ms"]["q3"] - cell["ms"]["q1"]) / cell["ms"]["p50"] for cell in cells if "ms" in cell
        ],
        "calls on {} drifted by {:.0%} from the first rounds to the last": [
            abs(cell["drift"]) for cell in cells if "drift" in cell
        ],
    }
    return [
        f"unsteady: {words.format(what, middle)}; ratios are not to be trusted either"
        for words, values in found.items()
        if values and (middle := float(np.median(values))) > _UNSTEADY
    ]


class Journal:
    """The cells of a run that is not done, beside its report: one line for each step, so that a run that was stopped
    goes on after the last whole one. A context, in which no other process writes it, and which removes it unless an
    exception leaves steps to go on with.

    Raises UsageError if the file belongs to another call, OutputError if it cannot be written.
    """

    def __init__(self, report: Path, call: Mapping[str, Any]) -> None:
        self.path = report.with_name(f".{report.name}.unfinished")
        self.steps: dict[str, list[Cell]] = {}
        self._head = json.dumps(call, sort_keys=True)

    def __enter__(self) -> Journal:
        with ExitStack() as stack:
            stack.enter_context(alone(self.path))
            with reported(self.path):
                self._read()
            self._lock = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None or not self.steps:
            self.done()
        else:
            say(f"steps measured so far: {len(self.steps)}, kept in {self.path}; the same command goes on after them")
        self._lock.close()

    def _read(self) -> None:
        found = self.path.read_bytes() if self.path.exists() else b""
        # A line that was torn off has no end: that step is measured again.
        lines = [line for line in found.splitlines(keepends=True) if line.endswith(b"\n")]
        if lines and lines[0].strip() != self._head.encode():
            raise UsageError(
                f"{self.path}: was left by another call or machine; delete it, or name another file with -o"
            )
        try:
            self.steps = {entry["step"]: entry["cells"] for entry in map(json.loads, lines[1:])}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.path}: is damaged: {error}; delete it, and what it holds is measured again"
            ) from error
        if found:
            os.truncate(self.path, sum(map(len, lines)))
        if not lines:
            self._append(self._head)

    def add(self, step: str, cells: list[Cell]) -> None:
        with reported(self.path):
            self._append(json.dumps({"step": step, "cells": cells}))
        self.steps[step] = cells

    def _append(self, line: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def done(self) -> None:
        """The report is written."""
        self.path.unlink(missing_ok=True)
