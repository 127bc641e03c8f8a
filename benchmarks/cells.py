"""From subjects that took turns to the cells of a report, and what a run leaves behind if it is stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpips_runtime.errors import UsageError

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
# A machine is unsteady if the calls of its median subject spread, or drift from the first rounds to the last, by more.
_UNSTEADY = 0.1
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
        forecast.learn(subject, job, turns)
        cell: Any = _head(subject, job)
        if why[name]:
            cell |= {"state": "not run", "why": why[name], "predicted": predicted[name]}
        elif turns.absent or not turns.seconds:
            cell |= {"state": "absent", "why": turns.absent or "no round was asked for"}
        else:
            eager = next((found.get(other) for other, one in of.items() if one == (EAGER[cell["device"]], job)), None)
            cell |= _measured(subject, job, turns, eager, limits)
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
    there = eager is not None and len(eager.seconds) > 0 and eager.distances.shape == turns.distances.shape
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
        "distance": float(turns.distances[0]),
        "error": error if error is None or np.isfinite(error) else None,
        "wrong": not np.isfinite(turns.distances).all()
        or (error is not None and not error <= (SAME if row.exact else _FAST)),
    }
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
    spreads = [(cell["ms"]["q3"] - cell["ms"]["q1"]) / cell["ms"]["p50"] for cell in cells if "ms" in cell]
    if not spreads or (middle := float(np.median(spreads))) <= _UNSTEADY:
        return []
    return [f"unsteady: half of the calls on {what} spread over {middle:.0%} of the median; compare ratios only"]


class Journal:
    """The cells of a run that is not done, beside its report: one line for each step, so that a run that was stopped
    goes on after the last whole one. Raises UsageError if the file belongs to another call."""

    def __init__(self, report: Path, call: Mapping[str, Any]) -> None:
        self.path = report.with_name(f".{report.name}.unfinished")
        self.steps: dict[str, list[Cell]] = {}
        head = json.dumps(call, sort_keys=True)
        try:
            # A line that was torn off has no end: that step is measured again.
            lines = [
                line for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"
            ]
        except FileNotFoundError:
            lines = []
        if lines and lines[0].strip() != head:
            raise UsageError(
                f"{self.path}: was left by another call or machine; delete it, or name another file with -o"
            )
        self.steps = {entry["step"]: entry["cells"] for entry in map(json.loads, lines[1:])}
        if lines:
            with open(self.path, "r+", encoding="utf-8") as file:
                file.truncate(sum(len(line.encode()) for line in lines))
        else:
            self._append(head)

    def add(self, step: str, cells: list[Cell]) -> None:
        self.steps[step] = cells
        self._append(json.dumps({"step": step, "cells": cells}))

    def _append(self, line: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def done(self) -> None:
        """The report is written."""
        self.path.unlink(missing_ok=True)
