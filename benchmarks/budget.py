"""What a cell may take, and what it would: nobody waits an hour for a figure, or runs a machine out of memory."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from lpips_runtime.errors import UsageError
from lpips_runtime.memory import COSTS
from lpips_runtime.sizes import format_size, parse_size

from .job import Job
from .physical import macs
from .schema import Cell, Predicted, measured
from .subjects import find

__all__ = ["Budget", "Forecast"]

# Of a subject that was never seen: this share of the machine's matrix speed, this long until it is ready, this much
# memory before any image. PyTorch's, roughly: what is measured replaces them.
_SHARE, _READY, _FIXED = 0.4, 10.0, 600e6
# Twice what this project takes for a pixel.
_TIMES_OURS = 2


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
            if time := re.fullmatch(r"(\d+(?:\.\d+)?)(s|min)", part.strip()):
                seconds = float(time[1]) * {"s": 1, "min": 60}[time[2]]
            else:
                try:
                    size = parse_size(part.strip())
                except UsageError:
                    raise UsageError(
                        f"--budget {text}: {part!r} is neither a time, as 90s, nor a size, as 8GB"
                    ) from None
        return cls(seconds, size)

    def passed(self, predicted: Predicted, taken: float) -> str:
        """Why a cell is not run, empty if it is. taken: bytes that the job's other subjects are to have."""
        if predicted["seconds"] > self.seconds:
            return f"would pass the budget of {self.seconds:g} s"
        if taken + predicted["bytes"] > self.bytes:
            others = f" beside the {format_size(taken)} of other subjects" if taken else ""
            return f"would pass the budget of {format_size(self.bytes)}{others}"
        return ""


@dataclass
class Forecast:
    """What a subject will take on a job: from what it took on the last job of that net, and before any from how much
    there is to multiply. gflops: matrix products of this machine in float32, None if not known."""

    gflops: float | None
    _seen: dict[tuple[str, str], tuple[Job, Any]] = field(default_factory=dict)

    def learn(self, name: str, job: Job, cell: Cell) -> None:
        if measured(cell):
            self._seen[name, job.net] = job, cell

    def predict(self, name: str, job: Job, rounds: int) -> Predicted:
        """Time and memory grow with the multiply-accumulates and the pixels at once."""
        subject = find(name)
        calls = subject.warm_up + rounds * (1 + subject.calls)
        work = macs(job.net, *job.shape) * job.batch
        pixels = job.shape[0] * job.shape[1] * job.batch
        seen, cell = self._seen.get((name, job.net), (None, None))
        if seen is None or cell is None:
            a_call = 2 * work / ((self.gflops or 50) * 1e9 * _SHARE)
            images = _TIMES_OURS * COSTS[job.net, "fp32"].per_pixel * pixels
            return {"seconds": _READY + calls * a_call, "bytes": _FIXED + images}
        a_call = cell["ms"]["p99"] / 1e3 * work / (macs(seen.net, *seen.shape) * seen.batch)
        before = seen.shape[0] * seen.shape[1] * seen.batch
        # At most what grows is all of it but what a subject takes before any image.
        peak = cell["peak_bytes"]
        grows = max(peak - 100e6, 0)
        more = min(grows * pixels / before, peak + _TIMES_OURS * COSTS[job.net, "fp32"].per_pixel * pixels)
        return {"seconds": cell["first_seconds"] + calls * a_call, "bytes": max(peak, more)}
