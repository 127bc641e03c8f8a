"""How long threads should spin while they wait for work: what it gains, and what it costs others.

    python -m benchmarks waiting artifacts/lpips_alex_fp32.onnx
    python -m benchmarks waiting artifacts/lpips_alex_fp32.onnx --busy 2

A pair of 256x256 every 50 ms by bare sessions of ONNX Runtime, each way in a process of its own, in turns. Printed are
medians of the time and of the processor time, that of 20 ms after the run included, and the time beside that of threads
that sleep, median and quartiles. `--busy N`: beside so many processes that want the cores too.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .turns import quartiles

# Name -> session options.
WAYS = {
    "sleep": {"allow_spinning": "0"},
    "spin 200 us": {"allow_spinning": "1", "spin_duration_us": "200"},
    "spin 500 us": {"allow_spinning": "1", "spin_duration_us": "500"},
    "spin 1000 us": {"allow_spinning": "1", "spin_duration_us": "1000"},
    "ONNX Runtime's own": {"allow_spinning": "1"},
}


def serve(model: str, way: str, threads: int) -> None:
    """Run once for each line of standard input."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False
    for key, value in WAYS[way].items():
        options.add_session_config_entry(f"session.intra_op.{key}", value)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    inputs = {name: rng.uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32) for name in ("reference", "distorted")}
    for _ in sys.stdin:
        processor, start = time.process_time(), time.perf_counter()
        session.run(None, inputs)
        seconds = time.perf_counter() - start
        time.sleep(0.02)
        print(json.dumps([seconds, time.process_time() - processor]), flush=True)


def compare(model: Path, threads: int, rounds: int, busy: int) -> None:
    """Print the table of one model."""
    pipe = subprocess.PIPE
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    call = [sys.executable, "-m", "benchmarks", "waiting", str(model), "--threads", str(threads), "--serve"]
    workers = {way: subprocess.Popen([*call, way], stdin=pipe, stdout=pipe, text=True) for way in WAYS}
    spent: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    order = np.random.default_rng(0)
    try:
        for turn in range(-2, rounds):
            for way in order.permutation(list(WAYS)).tolist():
                worker = workers[way]
                assert worker.stdin is not None
                assert worker.stdout is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
                found = json.loads(worker.stdout.readline())
                time.sleep(0.03)
                if turn >= 0:
                    spent[way].append(found)
    finally:
        for process in (*workers.values(), *others):
            process.kill()
            process.wait()
    print(f"\n{model.name}, {threads} threads, beside {busy} busy processes, {rounds} rounds\n")
    print("| threads that wait | p50, ms | processor, ms | time beside that of sleep |\n| --- | --- | --- | --- |")
    sleep = np.array(spent["sleep"])[:, 0]
    for way, rows in spent.items():
        wall, processor = np.array(rows).T
        print(
            f"| {way} | {np.median(wall) * 1e3:.1f} | {np.median(processor) * 1e3:.1f} | {quartiles(wall / sleep)} |",
            flush=True,
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks waiting", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="(default 2)")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="(default 40)")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="other processes that want the cores")
    parser.add_argument("--serve", choices=WAYS, metavar="WAY", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for model in options.models:
        if options.serve:
            serve(str(model), options.serve, options.threads)
        else:
            compare(model, options.threads, options.rounds, options.busy)
    return 0
