"""What scoring beside an encoder costs the encoder, by the session's threads; and one session against several.

    python -m benchmarks beside artifacts/lpips_alex_fp32.onnx
    python -m benchmarks beside artifacts/lpips_alex_fp32.onnx --callers

An encoder, ffmpeg with x264 (Debian: ffmpeg), encodes a test picture without end, while bare sessions of ONNX Runtime
score a pair of 256x256 four times a second if they can, each way in a process of its own, in turns. Printed are what a
pair takes, the encoder's frames per second beside those of the round's window in which nothing is scored, and the time
that a pair costs the encoder, which that ratio makes of the window: medians and quartiles. `--callers`, with no
encoder: pairs per second of threads that call one session or one each, and the memory of the process at its peak.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .turns import quartiles

INTERVAL = 0.25
WINDOW = 3.0
BEGINNING = 30.0
NOTHING = "nothing"


@dataclass(frozen=True)
class Way:
    """How a session scores. threads: within a run. waiting: session options on how its threads wait. nice, core: of the
    process. callers: threads that call it. sessions: which those share."""

    threads: int = 1
    waiting: tuple[tuple[str, str], ...] = (("allow_spinning", "0"),)
    nice: int = 0
    core: int | None = None
    callers: int = 1
    sessions: int = 1


_BRIEFLY = (("allow_spinning", "1"), ("spin_duration_us", "200"))

BESIDE = {
    "1 thread": Way(),
    "1 thread, nice 10": Way(nice=10),
    "1 thread, on one core": Way(core=-1),
    "2 threads that sleep": Way(2),
    "2 threads that spin 200 us": Way(2, _BRIEFLY),
    "2 threads, ONNX Runtime's own": Way(2, ()),
}
CALLERS = {
    "1 caller, 2 threads": Way(2, _BRIEFLY),
    "2 callers, 1 session of 1 thread": Way(callers=2),
    "2 callers, 2 sessions of 1 thread": Way(callers=2, sessions=2),
    "2 callers, 1 session of 2 threads": Way(2, _BRIEFLY, callers=2),
}


def serve(model: str, way: Way) -> None:
    """Score as many pairs by each caller as a line of standard input says; answer with seconds and peak of memory."""
    import resource

    import onnxruntime as ort

    os.nice(way.nice)
    if way.core is not None:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[way.core]})
    options = ort.SessionOptions()
    options.intra_op_num_threads = way.threads
    options.enable_mem_pattern = False
    for key, value in way.waiting:
        options.add_session_config_entry(f"session.intra_op.{key}", value)
    sessions = [ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for _ in range(way.sessions)]
    rng = np.random.default_rng(0)
    inputs = {name: rng.uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32) for name in ("reference", "distorted")}

    def call(caller: int, pairs: int) -> None:
        for _ in range(pairs):
            sessions[caller % way.sessions].run(None, inputs)

    with ThreadPoolExecutor(way.callers) as pool:
        for line in sys.stdin:
            start = time.perf_counter()
            list(pool.map(call, range(way.callers), [int(line)] * way.callers))
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps([seconds, peak]), flush=True)


class EncoderError(Exception):
    """ffmpeg does not encode. One line, which names the next step."""


class Encoder:
    """ffmpeg at work; `frames` is how many it has encoded so far. Raises EncoderError where it does not begin."""

    def __init__(self) -> None:
        source = ["-f", "lavfi", "-i", "testsrc2=size=640x360"]
        sink = ["-c:v", "libx264", "-f", "null", "-", "-progress", "pipe:1", "-stats_period", "0.05"]
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._process = subprocess.Popen(
            ["ffmpeg", "-v", "error", "-nostdin", *source, *sink],
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
        )
        self.frames = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        start = time.perf_counter()
        try:
            while self.frames == 0:
                self.check()
                if time.perf_counter() - start > BEGINNING:
                    raise EncoderError(f"ffmpeg has encoded nothing in {BEGINNING:.0f} seconds; see what holds it up")
                time.sleep(0.02)
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raise EncoderError if it has ended, which it never does by itself."""
        code = self._process.poll()
        if code is not None:
            self._words.seek(0)
            words = " ".join(self._words.read().decode(errors="replace").split())[:300] or "it does not say why"
            raise EncoderError(f"ffmpeg ended with exit code {code}: {words}; it must be able to encode with libx264")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("frame="):
                self.frames = int(line.removeprefix("frame="))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._words.close()


def workers(model: Path, kind: str, ways: dict[str, Way]) -> dict[str, "subprocess.Popen[str]"]:
    call = [sys.executable, "-m", "benchmarks", "beside", str(model), "--serve", kind]
    pipe = subprocess.PIPE
    return {name: subprocess.Popen([*call, name], stdin=pipe, stdout=pipe, text=True) for name in ways}


def ask(worker: "subprocess.Popen[str]", pairs: int) -> Any:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{pairs}\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())


def rounds_of(names: list[str], rounds: int, turn: Callable[[str], Any]) -> dict[str, list[Any]]:
    """What `turn` gives for each name in every round, in an order that changes; the first round is not counted."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    order = np.random.default_rng(0)
    for number in range(-1, rounds):
        for name in order.permutation(names).tolist():
            answer = turn(name)
            if number >= 0:
                found[name].append(answer)
    return found


def beside(model: Path, rounds: int) -> None:
    """Print the table of one model."""
    encoder = Encoder()
    scoring = workers(model, "beside", BESIDE)

    def turn(name: str) -> tuple[float, float, int]:
        first, start = encoder.frames, time.perf_counter()
        seconds = []
        while (passed := time.perf_counter() - start) < WINDOW:
            if name != NOTHING:
                seconds.append(ask(scoring[name], 1)[0])
            time.sleep(max(0.0, min(WINDOW, passed + INTERVAL) - (time.perf_counter() - start)))
        encoder.check()
        rate = (encoder.frames - first) / (time.perf_counter() - start)
        return rate, float(np.median(seconds or [np.nan])), len(seconds)

    try:
        for worker in scoring.values():
            ask(worker, 2)
        found = rounds_of([NOTHING, *BESIDE], rounds, turn)
    finally:
        encoder.close()
        stop(scoring)
    alone = np.array(found[NOTHING])[:, 0]
    print(f"\n{model.name}, a pair every {INTERVAL * 1e3:.0f} ms beside x264, {rounds} rounds\n")
    print("| session | a pair, ms | the encoder's speed beside that without scoring | a pair costs the encoder, ms |")
    print("| --- | --- | --- | --- |")
    for name in BESIDE:
        rate, seconds, pairs = np.array(found[name]).T
        cost = quartiles((1 - rate / alone) * WINDOW * 1e3 / pairs, 0)
        print(f"| {name} | {np.median(seconds) * 1e3:.0f} | {quartiles(rate / alone)} | {cost} |", flush=True)


def callers(model: Path, rounds: int, pairs: int = 12) -> None:
    """Print the table of one model."""
    scoring = workers(model, "callers", CALLERS)

    def turn(name: str) -> tuple[float, float]:
        seconds, peak = ask(scoring[name], pairs // CALLERS[name].callers)
        time.sleep(0.05)
        return pairs / seconds, peak

    try:
        for worker in scoring.values():
            ask(worker, 2)
        found = rounds_of(list(CALLERS), rounds, turn)
    finally:
        stop(scoring)
    first = np.array(found[next(iter(CALLERS))])[:, 0]
    print(f"\n{model.name}, {rounds} rounds of {pairs} pairs\n")
    print("| | pairs/s beside the first row's | peak, MB |\n| --- | --- | --- |")
    for name, rows in found.items():
        rate, peak = np.array(rows).T
        print(f"| {name} | {quartiles(rate / first)} | {peak.max() / 1024:.0f} |", flush=True)


def stop(processes: dict[str, "subprocess.Popen[str]"]) -> None:
    for process in processes.values():
        process.kill()
        process.wait()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks beside", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="(default 12)")
    parser.add_argument("--callers", action="store_true", help="one session against several, with no encoder")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        kind, name = options.serve
        serve(str(options.model), {"beside": BESIDE, "callers": CALLERS}[kind][name])
    elif options.callers:
        callers(options.model, options.rounds)
    elif shutil.which("ffmpeg") is None:
        print("error: ffmpeg is not installed (Debian: apt-get install ffmpeg)", file=sys.stderr)
        return 2
    else:
        try:
            beside(options.model, options.rounds)
        except EncoderError as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
    return 0
