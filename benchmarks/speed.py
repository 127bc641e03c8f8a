"""How many times as fast this project is as what a user would take instead.

    python -m benchmarks speed artifacts/lpips_alex_fp32.onnx artifacts/lpips_squeeze_fp32.onnx
    python -m benchmarks speed --start artifacts/lpips_alex_fp32.onnx

From 8-bit arrays to the distance, each subject in a process of its own, in turns (`turns.py`); the
subjects are those of `subjects.py`. Printed are medians; of the ratios round by round median and quartiles, with the
least that is asked of them, on the machine with AMX that they were set for; and whether the distances are the
reference's. Absent is what is not installed or does not run here, with the reason.

`--start` times whole commands instead, from the call to the number, on a pair of 64x64: `lpips-score`, and the same by
`lpips` 0.1.4 in a Python of its own.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lpips_runtime import Scorer
from lpips_runtime.cpu import bfloat16_pays, cpu_name
from lpips_runtime.nvidia import nvidia_gpus

from .job import Job, images
from .subjects import SUBJECTS
from .turns import Turns, asked, quartiles, take_turns

# (subject, beside which other) -> how many times as fast it is to be at least, by net; on GPUs nothing is asked.
FLOORS: dict[tuple[str, str], dict[str, float]] = {
    ("ours", "eager"): {"alex": 1.6, "squeeze": 4.0, "vgg": 1.4},
    ("ours", "plain"): {"alex": 1.0, "squeeze": 1.2, "vgg": 1.0},
    ("fast-math", "eager"): {"alex": 5.5, "squeeze": 9.0, "vgg": 8.0},
    ("fast-math", "compile-bf16"): {"alex": 1.5, "squeeze": 1.5, "vgg": 1.5},
    ("cuda-uint8", "eager-cuda-float32"): {},
    ("cuda-fast", "eager-cuda"): {},
    ("cuda-fast", "compile-cuda"): {},
    ("cuda-fast", "plain-cuda"): {},
    ("cuda-half", "eager-cuda-half"): {},
    ("cuda-half", "compile-cuda-half"): {},
}

# What distances may differ by and still be the same numbers, relative: float32's rounding, summed in another order.
SAME = 1e-4

_REFERENCE = """
import sys
import numpy as np
from PIL import Image
from benchmarks import subjects
from benchmarks.job import Job
pair = [np.asarray(Image.open(path))[None] for path in sys.argv[2:4]]
print(subjects.SUBJECTS["eager"].make(Job(sys.argv[1], "", 64, 1, 2))(*pair)[0])
"""


def speed(model: Path, options: argparse.Namespace) -> None:
    """Print both tables of one model."""
    with Scorer(model, provider="cpu") as scorer:
        net = scorer.info.net
    names = [name for name, subject in SUBJECTS.items() if subject.device == options.device]
    with tempfile.TemporaryDirectory() as folder:
        job = Job(net, str(model), options.side, options.batch, options.threads, folder)
        found = take_turns({name: (name, job) for name in options.subjects or names}, options.rounds)
    print(
        f"\n{net}, {options.batch} x {options.side}x{options.side}, {options.threads} threads, {options.rounds} rounds"
    )
    print("\n| | | p50, ms | fastest | made ready in | distance |\n| --- | --- | --- | --- | --- | --- |")
    truth = next((found[name].distances for name in ("eager", "eager-cuda-float32") if name in found), np.empty(0))
    for name, turns in found.items():
        title = f"{name} | {SUBJECTS[name].title}"
        if turns.absent:
            print(f"| {title} | absent: {turns.absent} | | | |")
            continue
        p50, fastest = np.median(turns.seconds) * 1e3, min(turns.seconds) * 1e3
        print(f"| {title} | {p50:.1f} | {fastest:.1f} | {turns.first:.1f} s | {verdict(name, turns, truth)} |")
    print("\n| times as fast | median (quartiles) | at least |\n| --- | --- | --- |")
    for (name, beside), floors in FLOORS.items():
        if all(side in found and not found[side].absent for side in (name, beside)):
            ratios = np.array(found[beside].seconds) / np.array(found[name].seconds)
            print(f"| {name} / {beside} | {quartiles(ratios)} | {asked(ratios, floors.get(net))} |")
    sys.stdout.flush()


def verdict(name: str, turns: Turns, truth: np.ndarray) -> str:
    """The distance, and by how much it is not the reference's; truth may be empty."""
    if not truth.size:
        return f"{turns.distances[0]:.6f}"
    error = float(np.abs(turns.distances / truth - 1).max())
    if not SUBJECTS[name].exact:
        return f"{turns.distances[0]:.6f}, {error:.2%} off"
    return f"{turns.distances[0]:.6f}" if error <= SAME else f"{turns.distances[0]:.6f}, WRONG by {error:.2%}"


def start(model: Path, rounds: int) -> None:
    """Print what whole commands take on one small pair."""
    with Scorer(model, provider="cpu") as scorer:
        net = scorer.info.net
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for name, image in zip("ab", images(Job(net, "", 64, 1, 2)), strict=True):
            names.append(str(Path(folder, f"{name}.png")))
            Image.fromarray(image[0]).save(names[-1])
        calls = {
            "lpips-score": [sys.executable, "-m", "lpips_runtime", "-m", str(model), "--provider", "cpu", *names],
            "lpips 0.1.4": [sys.executable, "-c", _REFERENCE, net, *names],
        }
        spent = {name: np.empty(rounds) for name in calls}
        for number in range(-1, rounds):  # the first fills the caches of the disk
            for name, call in calls.items():
                began = time.perf_counter()
                subprocess.run(call, check=True, capture_output=True)
                if number >= 0:
                    spent[name][number] = time.perf_counter() - began
    print(f"\n{net}, from the call to the number, one pair of 64x64, {rounds} rounds\n")
    print("| | median s (quartiles) |\n| --- | --- |")
    for name, seconds in spent.items():
        print(f"| {name} | {quartiles(seconds)} |")
    ratio = quartiles(spent["lpips 0.1.4"] / spent["lpips-score"])
    print(f"\nlpips-score is {ratio} times as fast; asked for: below 0.6 s, and 5 times")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="float32 artifacts")
    parser.add_argument("--start", action="store_true", help="time whole commands instead")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="whose subjects (default cpu)")
    parser.add_argument("--side", type=int, default=256, metavar="PIXELS", help="of the images (default 256)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pairs at once (default 1)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="(default 2)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="(default 20)")
    options = parser.parse_args(arguments)
    print(f"{cpu_name()}, faster in bfloat16: {'yes' if bfloat16_pays() else 'no'}")
    for gpu in nvidia_gpus():
        print(gpu.name)
    for model in options.models:
        if options.start:
            start(model, options.rounds)
        else:
            speed(model, options)
    return 0
