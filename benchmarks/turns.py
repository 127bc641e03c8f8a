"""Subjects in processes of their own, taking turns: what slows the machine down slows all of them.

A turn is one call that is not counted, since caches and cores were others' before it, and then a few that are: their
median counts. A process takes its turn when it is asked to by a line on its standard input, and waits otherwise. Run as
`python -m benchmarks.turns NAME NET MODEL SIDE BATCH THREADS FOLDER` this module is such a process.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field

import numpy as np

from .job import AbsentError
from .subjects import Job, find, images, prepared

__all__ = ["Turns", "asked", "quartiles", "take_turns"]

# Seconds.
_PAUSE = 0.05


@dataclass(eq=False)
class Turns:
    """Of one subject: seconds of each round, its distances, the seconds until it gave them (those of starting Python
    and numpy left out), and why it has none, if it hasn't."""

    seconds: list[float] = field(default_factory=list)
    distances: np.ndarray = field(default_factory=lambda: np.empty(0))
    first: float = float("nan")
    absent: str = ""


class _Worker:
    """One process. Its stderr goes to a file: a pipe that nobody reads would stop a talkative one."""

    def __init__(self, name: str, job: Job) -> None:
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        call = [sys.executable, "-m", "benchmarks.turns", name, *map(str, astuple(job))]
        self._process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, text=True
        )

    def ask(self, word: str) -> dict:
        """Raises RuntimeError with the last line of the process's stderr if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return json.loads(answer)
        self._process.wait()
        self._words.seek(0)
        raise RuntimeError((self._words.read().strip().splitlines() or [f"ended with {self._process.returncode}"])[-1])

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._words.close()


def take_turns(names: Sequence[str], job: Job, rounds: int) -> dict[str, Turns]:
    """Make each subject ready, one after the other, then give each a turn in every round, in an order that changes.

    A subject that cannot be made, or that ends, is absent, with its reason. Between turns there is a pause: threads of
    PyTorch and ONNX Runtime spin on for some milliseconds after a call, and would slow the next subject.
    """
    found = {name: Turns() for name in names}
    workers = {name: _Worker(name, job) for name in names}

    def ask(name: str, word: str) -> dict | None:
        if not found[name].absent:
            try:
                return workers[name].ask(word)
            except RuntimeError as error:
                found[name].absent = str(error)
        return None

    try:
        for name, turns in found.items():
            if answer := ask(name, "ready"):
                turns.distances, turns.first = np.array(answer["distances"]), answer["seconds"]
        order = np.random.default_rng(0)
        for _ in range(rounds):
            for name in order.permutation(list(names)).tolist():
                time.sleep(_PAUSE)
                if answer := ask(name, "go"):
                    found[name].seconds.append(answer["seconds"])
    finally:
        for worker in workers.values():
            worker.close()
    return found


def quartiles(ratios: np.ndarray | Sequence[float], digits: int = 2) -> str:
    """Median, and in brackets the first and third quartile, with so many digits after the point."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def asked(ratios: np.ndarray | Sequence[float], floor: float | None) -> str:
    """How many times as fast it is to be at least, None: nothing is asked; and whether it is not, by the median."""
    if floor is None:
        return "-"
    return f"{floor}" if np.median(ratios) >= floor else f"{floor}, not met"


def _reasons() -> tuple[type[Exception], ...]:
    """Why a subject may be absent. Of this project nothing is imported before: that would be a head start for it."""
    from lpips_runtime.errors import LpipsError

    return AbsentError, ImportError, LpipsError


def _serve(name: str, job: Job) -> None:
    pair = images(job)
    score = None
    for _ in sys.stdin:
        if score is None:
            try:
                score, distances, seconds = prepared(name, job)
            except _reasons() as error:
                sys.exit(" ".join(str(error).split()))  # in words, without where it was raised
            answer = {"distances": distances.tolist(), "seconds": seconds}
        else:
            seconds = []
            for _ in range(1 + find(name).calls):
                start = time.perf_counter()
                score(*pair)
                seconds.append(time.perf_counter() - start)
            answer = {"seconds": float(np.median(seconds[1:]))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _name, _net, _model, *_numbers, _folder = sys.argv[1:]
    _serve(_name, Job(_net, _model, *map(int, _numbers), folder=_folder))
