"""What a cell may take, and what it would: nobody waits an hour for a figure, or runs a machine out of memory."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lpips_runtime.errors import UsageError
from lpips_runtime.memory import COSTS
from lpips_runtime.sizes import format_size, parse_size

from .job import Job
from .physical import FLOAT32, macs
from .schema import Cell, Predicted, measured
from .subjects import find

__all__ = ["Budget", "Forecast", "parse_seconds"]

# Of a subject that was never seen: this share of the machine's matrix speed, and until it is ready so many seconds and
# so much memory: compiled by PyTorch, in it, and without it. Roughly: what is measured replaces them.
_SHARE, _COMPILED, _IN_TORCH, _WITHOUT = 0.4, (40.0, 700e6), (10.0, 600e6), (2.0, 200e6)
# Where the speed of matrix products is not known.
_GFLOPS = 50
# On the mean of the calls that were seen.
_CAUTION = 1.1
# Twice what this project takes for a pixel.
_TIMES_OURS = 2


def parse_seconds(text: str) -> float | None:
    """Of a time as in "90s" or "1.5min"; None if it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min)", text.strip())
    return float(found[1]) * {"s": 1, "min": 60}[found[2]] if found else None


@dataclass(frozen=True)
class Budget:
    """seconds: of all calls of one subject on one job, those that make it ready too. bytes: resident, of the subjects
    of a job together, whose processes wait side by side."""

    seconds: float
    bytes: float

    @classmethod
    def parse(cls, text: str, usual: Budget) -> Budget:
        """As in "90s", "8GB" or "90s,8GB"; what is not said is the usual. Raises UsageError."""
        seconds, size = usual.seconds, usual.bytes
        for part in filter(None, text.split(",")):
            if (time := parse_seconds(part)) is not None:
                seconds = time
            else:
                try:
                    size = parse_size(part.strip())
                except UsageError:
                    raise UsageError(
                        f"--budget {text}: {part!r} is neither a time, as 90s, nor a size, as 8GB"
                    ) from None
        return cls(seconds, size)

    def passed(
        self, predicted: Mapping[str, Predicted], order: Sequence[str], left: float = math.inf
    ) -> dict[str, str]:
        """Of the subjects of a job, those that are not run -> why. order: who first gets what there is. left: seconds
        for all of them."""
        why: dict[str, str] = {}
        seconds = taken = 0.0
        for name in order:
            one = predicted[name]
            if one["seconds"] > self.seconds:
                why[name] = f"would pass the budget of {self.seconds:g} s"
            elif taken + one["bytes"] > self.bytes:
                others = f" beside the {format_size(taken)} of other subjects" if taken else ""
                why[name] = f"would pass the budget of {format_size(self.bytes)}{others}"
            elif seconds + one["seconds"] > left:
                why[name] = f"would pass the {max(left - seconds, 0):.0f} s that --within leaves"
            else:
                seconds, taken = seconds + one["seconds"], taken + one["bytes"]
        return why


@dataclass
class Forecast:
    """What a subject will take on a job: from what it took on the last job of that net, and before any from how much
    there is to multiply. limits: of physical.limits."""

    limits: Mapping[str, float | None]
    _seen: dict[tuple[str, str], tuple[Job, Any]] = field(default_factory=dict)

    def learn(self, name: str, job: Job, cell: Cell) -> None:
        if measured(cell):
            self._seen[name, job.net] = job, cell

    def predict(self, name: str, job: Job, rounds: int) -> Predicted:
        """Time and memory grow with the multiply-accumulates and the pixels at once."""
        subject = find(name)
        calls = subject.warm_up + rounds * (1 + subject.calls)
        work = _work(name, job)
        pixels = job.shape[0] * job.shape[1] * job.batch
        seen, cell = self._seen.get((name, job.net), (None, None))
        if seen is None or cell is None:
            gflops = self.limits.get(FLOAT32[subject.device]) or _GFLOPS
            a_call = 2 * work / (gflops * 1e9 * _SHARE)
            images = _TIMES_OURS * COSTS[job.net, "fp32"].per_pixel * pixels
            ready, fixed = _COMPILED if subject.compiled else _IN_TORCH if subject.in_torch else _WITHOUT
            return {"seconds": ready + calls * a_call, "bytes": fixed + images}
        a_call = _CAUTION * cell["pairs"] / cell["pairs_per_second"] * work / _work(name, seen)
        a_call *= max(1, seen.threads / job.threads)
        before = seen.shape[0] * seen.shape[1] * seen.batch
        # At most what grows is all of it but what a subject takes before any image.
        peak = cell["peak_bytes"]
        grows = max(peak - 100e6, 0)
        more = min(grows * pixels / before, peak + _TIMES_OURS * COSTS[job.net, "fp32"].per_pixel * pixels)
        return {"seconds": cell["first_seconds"] + calls * a_call, "bytes": max(peak, more)}


def _work(name: str, job: Job) -> float:
    """Multiply-accumulates of a call."""
    _, encoded = find(name).counts(job.batch)
    return macs(job.net, *job.shape) / 2 * encoded
