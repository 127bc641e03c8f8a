"""What a pair takes with this project and with what a user would take instead: time, memory, disk, and the answers.

    python -m benchmarks latency
    python -m benchmarks latency artifacts/lpips_alex_fp32.onnx --sizes 256x256 --batch 1 8 -o results/cpu.json
    python -m benchmarks latency --device cuda

Each subject has a process of its own, and they take turns, so that what slows the machine down slows all of them. A
subject that is not installed, or does not run here, is listed as absent with the reason; one whose time or memory would
pass --budget as not run, with the prediction. A run that was stopped goes on where it was if the same command is
given again. Written are the report, REPORT.json, and what `python -m benchmarks report` makes of it.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lpips_runtime.errors import UsageError
from lpips_runtime.say import say

from .job import Job
from .peers import plain_path
from .physical import macs
from .runs import Step, add_options, measured_steps, model_info, models_at_hand, published
from .schema import write_report
from .subjects import SUBJECTS, plain_file

__all__ = ["jobs", "main", "sized"]

_SIZES = ("64x64", "256x256", "512x512", "1920x1080")
# Pixels above which pairs come one at a time.
_LARGE = 512 * 512
_EXPORT = """
import sys
from benchmarks.peers import Job, plain_export
plain_export(Job(sys.argv[1], "", 64, 1, int(sys.argv[2]), sys.argv[3]))
"""


def sized(text: str) -> tuple[int, int]:
    """Width and height of a size as in 1920x1080. Raises UsageError."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--sizes {text}: give width x height in pixels, as 1920x1080")
    return int(width), int(height)


def jobs(model: Path, options: argparse.Namespace, folder: str) -> list[Job]:
    """Of one model, the least work first. Raises UsageError for a size that its net does not take."""
    info = model_info(model)
    found = []
    for width, height in map(sized, options.sizes):
        if min(width, height) < info.min_size:
            raise UsageError(f"--sizes {width}x{height}: {info.net} takes no side below {info.min_size} pixels")
        batches = [number for number in options.batch if number == 1 or width * height <= _LARGE]
        if not batches:
            raise UsageError(f"--sizes {width}x{height}: above 512x512 pairs come one at a time; add --batch 1")
        found += [Job(info.net, str(model), width, number, options.threads, folder, height) for number in batches]
    return sorted(dict.fromkeys(found), key=lambda job: macs(job.net, *job.shape) * job.batch)


def export_plainly(job: Job, names: Sequence[str]) -> None:
    """Once for a net, so that its subjects begin with the file. What goes wrong they will say themselves."""
    if any(SUBJECTS[name].files is plain_file for name in names) and not plain_path(job).exists():
        say(f"{job.net}: torch.onnx.export of the reference")
        call = [sys.executable, "-c", _EXPORT, job.net, str(job.threads), job.folder]
        subprocess.run(call, capture_output=True, check=False)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, "latency.json", 15)
    parser.add_argument("--sizes", nargs="+", default=_SIZES, metavar="WxH", help=f"(default {' '.join(_SIZES)})")
    parser.add_argument(
        "--batch",
        nargs="+",
        type=int,
        default=[1, 8],
        metavar="N",
        help="pairs at once, above 512x512 one (default 1 8)",
    )
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="whose subjects (default cpu)")
    options = parser.parse_args(arguments)
    models = models_at_hand(options)
    if min(options.batch) < 1:
        raise UsageError("--batch must be at least 1")
    names = options.subjects or [name for name, row in SUBJECTS.items() if row.device == options.device]

    def plan(folder: str) -> list[Step]:
        return [
            Step(
                f"{job.net}, {job.batch} x {job.shape[1]}x{job.shape[0]}",
                {name: (name, job) for name in names},
                partial(export_plainly, job, names),
            )
            for model in models
            for job in jobs(model, options, folder)
        ]

    with measured_steps("latency", plan, options, arguments) as report:
        write_report(options.output, report)
    return published(options.output, report)
