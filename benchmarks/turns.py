"""Subjects in processes of their own, taking turns: what slows the machine down slows all of them.

A turn is one call that is not counted, since caches and cores were others' before it, and then a few that are. A
process takes its turn when it is asked to by a line on its standard input, and waits otherwise. Run as
`python -m benchmarks.turns NAME NET MODEL SIDE BATCH THREADS FOLDER HEIGHT IMAGES` this module is such a process.
"""

import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from .events import device_seconds, transfer_seconds
from .job import AbsentError, Job, Score, images
from .others import Others
from .subjects import find, prepared

__all__ = ["Turns", "asked", "quartiles", "take_turns"]

# Seconds: between turns; and what a question is waited for at least, whatever is left.
_PAUSE, _GRACE = 0.05, 10.0


@dataclass(eq=False)
class Turns:
    """Of one subject.

    seconds: of each round, the median of its calls. calls: seconds of each that counts; uncounted: how many were made
    besides. distances: of the first call; later: of the last one of each turn. first, started: seconds until it gave
    the first, from when its process had read the images and from the start of that. peak: its resident memory, bytes.
    device, transfer: on a GPU, seconds of the calls there by CUDA events, and of the ways there and back. others: what
    these had of the machine during the rounds, as Others.share. absent: why it has none of it, if it hasn't.
    """

    seconds: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    uncounted: int = 0
    distances: np.ndarray = field(default_factory=lambda: np.empty(0))
    later: list[np.ndarray] = field(default_factory=list)
    first: float = float("nan")
    started: float = float("nan")
    peak: int = 0
    device: list[float] = field(default_factory=list)
    transfer: list[float] = field(default_factory=list)
    others: float | None = None
    absent: str = ""


class _Worker:
    """One process. Its stderr goes to a file: a pipe that nobody reads would stop a talkative one."""

    def __init__(self, name: str, job: Job, pair: Path) -> None:
        self.began = time.perf_counter()
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        call = [sys.executable, "-m", "benchmarks.turns", name, *map(str, astuple(job)), str(pair)]
        self._process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, text=True
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, word: str, patience: float = math.inf) -> dict:
        """Raises RuntimeError with the last line of the process's stderr if it has ended, or if it gives no answer in
        so many seconds; then it is ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
            answer = self._answers.get(timeout=min(patience, threading.TIMEOUT_MAX))
        except BrokenPipeError:
            answer = ""
        except queue.Empty:
            self._process.kill()
            raise RuntimeError(f"gave no answer in {patience:.0f} s and was ended") from None
        if answer:
            return json.loads(answer)
        code = self._process.wait()
        self._words.seek(0)
        last = (self._words.read().strip().splitlines() or [f"ended with {code}"])[-1]
        # Of one that was killed, as for want of memory, the last words are about something else.
        raise RuntimeError(f"was ended by signal {-code}; its last words: {last}" if code < 0 else last)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._words.close()


def take_turns(
    of: Mapping[str, tuple[str, Job]],
    rounds: int,
    told: Callable[[str], object] = lambda _: None,
    until: float = math.inf,
    patience: float = math.inf,
) -> dict[str, Turns]:
    """Make each subject ready, one after the other, then give each a turn in every round, in an order that changes.

    of: a name for the result -> subject, and what it is to do. told: is given each name before its subject is made, and
    each round. until: of time.monotonic; no round begins after it but the first, and nobody is made any more. patience:
    seconds of a subject altogether: it takes no further turn that would pass them. One that cannot be made, that ends,
    or that takes longer for an answer is absent, with its reason. Between turns there is a pause: threads of PyTorch
    and ONNX Runtime spin on for some milliseconds after a call, and would slow the next subject.
    """
    found = {name: Turns() for name in of}
    workers: dict[str, _Worker] = {}
    spent, longest = dict.fromkeys(of, 0.0), dict.fromkeys(of, 0.0)

    def ask(name: str, word: str) -> dict:
        if found[name].absent:
            return {}
        began, left = time.monotonic(), patience
        if word in ("ready", "warm up"):
            left = max(_GRACE, min(patience - spent[name], until - began))
        try:
            return workers[name].ask(word, left)
        except RuntimeError as error:
            found[name].absent = str(error)
            return {}
        finally:
            took = time.monotonic() - began
            spent[name] += took
            if word == "go":
                longest[name] = max(longest[name], took)

    folder = tempfile.TemporaryDirectory()
    try:
        for name, turns in found.items():
            told(name)
            subject, job = of[name]
            workers[name] = _Worker(subject, job, _pair(Path(folder.name), job))
            if answer := ask(name, "ready"):
                turns.started = time.perf_counter() - workers[name].began
                turns.distances, turns.first = np.array(answer["distances"]), answer["seconds"]
                turns.uncounted = 1 + ask(name, "warm up").get("calls", 0)
        others, order = Others(worker.pid for worker in workers.values()), np.random.default_rng(0)
        for number in range(rounds):
            if all(turns.absent for turns in found.values()) or (number and time.monotonic() > until):
                break
            told(f"round {number + 1} of {rounds}")
            for name in order.permutation(list(of)).tolist():
                if found[name].calls and spent[name] + longest[name] > patience:
                    continue
                time.sleep(_PAUSE)
                if answer := ask(name, "go"):
                    found[name].uncounted += 1
                    found[name].calls += answer["seconds"]
                    found[name].later.append(np.array(answer["distances"]))
                    found[name].seconds.append(float(np.median(answer["seconds"])))
        share = others.share()
        for name, turns in found.items():
            turns.others = share
            turns.peak = ask(name, "memory").get("bytes", 0)
            if not turns.absent:
                try:
                    answer = workers[name].ask("device", patience)
                    turns.device, turns.transfer = answer["seconds"], answer["transfer"]
                except RuntimeError as error:  # its times are there all the same
                    from lpips_runtime.say import say  # not in the processes of the subjects, whose start is timed

                    say(f"{name}: no time by CUDA events: {error}")
    finally:
        for worker in workers.values():
            worker.close()
        folder.cleanup()
    return found


def _pair(folder: Path, job: Job) -> Path:
    """Where the images of a job lie: a subject reads them, since what makes them takes time and memory."""
    path = folder / f"{job.batch}x{'x'.join(map(str, job.shape))}.npy"
    if not path.exists():
        np.save(path, np.stack(images(job)))
    return path


def quartiles(ratios: np.ndarray | Sequence[float], digits: int = 2) -> str:
    """Median, and in brackets the first and third quartile, with so many digits after the point."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def asked(ratios: np.ndarray | Sequence[float], floor: float | None) -> str:
    """How many times as fast it is to be at least, None: nothing is asked; and whether it is not, by the median."""
    if floor is None:
        return "-"
    return f"{floor}" if np.median(ratios) >= floor else f"{floor}, not met"


def _serve(name: str, job: Job, path: str, answers: TextIO) -> None:
    subject, (a, b) = find(name), np.load(path)
    pair = a, b
    try:
        score, distances, seconds = prepared(name, job, pair)
    except _reasons() as error:
        # A reason in words, without where it was raised, and where this runs: reports are for others.
        sys.exit(" ".join(str(error).split()).replace(f"{Path.cwd()}{os.sep}", ""))

    def turn() -> dict:
        timed = [_timed(score, pair) for _ in range(1 + subject.calls)]
        return {"seconds": [seconds for seconds, _ in timed[1:]], "distances": timed[-1][1].tolist()}

    def warm_up() -> dict:
        for _ in range(subject.warm_up - 1):
            score(*pair)
        return {"calls": subject.warm_up - 1}

    def device() -> dict:
        on_device = device_seconds(subject, job, score, pair)
        return {"seconds": on_device, "transfer": transfer_seconds(subject, job)}

    known = {
        "ready": lambda: {"distances": distances.tolist(), "seconds": seconds},
        "warm up": warm_up,
        "go": turn,
        "memory": lambda: {"bytes": peak_bytes()},
        "device": device,
    }
    for word in sys.stdin:
        print(json.dumps(known[word.strip()]()), file=answers, flush=True)


def _reasons() -> tuple[type[Exception], ...]:
    """Errors whose message says why a subject is absent. Imported where one was raised: what a subject needs of these
    modules is not to be there before its seconds begin."""
    from lpips_runtime.errors import LpipsError

    return AbsentError, ImportError, LpipsError


def peak_bytes() -> int:
    """The largest resident memory of this process so far. On Linux not by ru_maxrss, which begins at that of the
    process which started it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _timed(score: Score, pair: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    distances = score(*pair)
    return time.perf_counter() - start, distances


if __name__ == "__main__":
    # What a library prints is no answer: it goes where words go.
    _answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _name, _net, _model, _side, _batch, _threads, _folder, _height, _images = sys.argv[1:]
    _job = Job(_net, _model, int(_side), int(_batch), int(_threads), _folder, int(_height))
    _serve(_name, _job, _images, _answers)
