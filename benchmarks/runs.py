"""What `latency` and `scaling` share: the models at hand, jobs one after the other, and a report at the end."""

import argparse
import hashlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lpips_runtime import ModelInfo, Scorer
from lpips_runtime.errors import UsageError
from lpips_runtime.say import say

from .budget import Budget, Forecast, parse_seconds
from .cells import measure, set_shares, unsteady
from .job import AbsentError, Job
from .journal import Journal
from .machine import described, project
from .physical import limits
from .report import check, make
from .schema import Report, measured
from .subjects import find, plain_file

__all__ = ["Step", "add_options", "measured_steps", "model_info", "models_at_hand", "published"]

_SECONDS, _SHARE_OF_MEMORY = 120.0, 0.7
# What runs just before counts in it for a minute.
_LOAD = 0.5
_CHANGED = 0.1


class Step(NamedTuple):
    """Subjects that take turns. title: for people, and for the journal. of: as of take_turns. prepare: is called
    before them."""

    title: str
    of: Mapping[str, tuple[str, Job]]
    prepare: Callable[[], object] = lambda: None


def add_options(parser: argparse.ArgumentParser, output: str, rounds: int) -> None:
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL", help="float32 artifacts (default: those in artifacts/)"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of every subject (default 2)")
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"of turns (default {rounds})")
    parser.add_argument(
        "--budget",
        default="",
        metavar="LIMITS",
        help="most time of one subject on one job and most memory of those of a job together, as 90s,8GB "
        f"(default {_SECONDS:g}s and {_SHARE_OF_MEMORY * 100:.0f} %% of the machine's memory)",
    )
    parser.add_argument(
        "--within",
        default="",
        metavar="TIME",
        help="of the whole run, as 9min: jobs then have fewer rounds or are not run (default: no limit)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(output), metavar="FILE", help=f"the report (default {output})"
    )


def models_at_hand(options: argparse.Namespace) -> list[Path]:
    """Those that were named, or the float32 ones in artifacts/. Raises UsageError for options that no run can have."""
    if options.output.suffix != ".json" or options.output.is_dir():
        raise UsageError(f"-o {options.output}: a report is a file that ends in .json")
    if not options.output.absolute().parent.is_dir():
        raise UsageError(f"-o {options.output}: no such folder: {options.output.parent}")
    if find_spec("torch") is None or find_spec("lpips_export") is None:
        raise UsageError("PyTorch and the exporter are needed, for the reference's answers; pip install '.[bench]'")
    if options.within and parse_seconds(options.within) is None:
        raise UsageError(f"--within {options.within}: give a time, as 90s or 9min")
    if min(options.rounds, options.threads) < 1:
        raise UsageError("--rounds and --threads must be at least 1")
    check(options.output)
    found = options.models or [
        path for net in ("alex", "squeeze", "vgg") if (path := Path(f"artifacts/lpips_{net}_fp32.onnx")).exists()
    ]
    if not found:
        raise UsageError("artifacts/ holds no float32 model; export one with lpips-export, or name it")
    return found


def model_info(model: Path) -> ModelInfo:
    """Raises UsageError for what is not the plain float32 model of its net."""
    with Scorer(model, provider="cpu") as scorer:
        info = scorer.info
    if (info.precision, info.target, info.input) != ("fp32", "", "float32"):
        raise UsageError(f"{model}: give the float32 model; the others are found beside it")
    return info


@contextmanager
def measured_steps(
    command: Literal["latency", "scaling"],
    plan: Callable[[str], Sequence[Step]],
    options: argparse.Namespace,
    arguments: Sequence[str],
) -> Iterator[Report]:
    """All steps, one after the other, those left out that a stopped run has in its journal: the report, which is to be
    written within the context.

    plan: gives them for a folder that the subjects of all share, the least work first: what it took says what the next
    will take. Raises UsageError, also if another call's journal is in the way, and OutputError.
    """
    within = parse_seconds(options.within)
    until = time.monotonic() + (math.inf if within is None else within)
    machine = described()
    usual = Budget(_SECONDS, _SHARE_OF_MEMORY * (machine["memory_bytes"] or 8e9))
    budget = Budget.parse(options.budget, usual)
    with tempfile.TemporaryDirectory() as folder:
        steps = plan(folder)
        if len({step.title for step in steps}) < len(steps):
            raise UsageError("name one model of a net, and nothing twice")
        of_call: Any = {
            "arguments": [command, *arguments],
            "machine": machine,
            "project": project(),
            "models": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(steps)},
        }
        with Journal(options.output, of_call) as journal:
            journal.add_beginning(f"{date.today().isoformat()}{_load()}")
            notes = _of_pieces(journal.began)
            _measure_limits(journal, options.threads)
            forecast = Forecast(journal.limits)
            for number, step in enumerate(steps):
                what = f"{number + 1}/{len(steps)} {step.title}"
                if step.title in journal.steps:
                    say(f"{what}: was measured before this run was stopped")
                    for one, cell in zip(step.of.values(), journal.steps[step.title], strict=True):
                        forecast.learn(*one, cell)
                else:
                    step.prepare()
                    told = lambda name, what=what: say(f"{what}: {name}")  # noqa: E731
                    journal.add(step.title, measure(step.of, options.rounds, budget, forecast, told, until))
                notes += unsteady(journal.steps[step.title], options.rounds, step.title)
            before = dict(journal.limits)
            after = _measure_limits(journal, options.threads)
            notes += _of_limits(before, after)
            cells = [cell for step in steps for cell in journal.steps[step.title]]
            set_shares(cells, journal.limits, options.threads)
            yield {
                "command": command,
                "arguments": list(arguments),
                "date": date.today().isoformat(),
                "project": of_call["project"],
                "models": of_call["models"],
                "machine": machine,
                "limits": journal.limits,
                "notes": notes,
                "cells": cells,
            }


def published(output: Path, report: Report) -> int:
    """Print the files of a report that was written, what is made of it among them. Gives the exit code: 1 if nothing
    was measured."""
    for path in (output, *make(output)):
        print(path)
    if any(map(measured, report["cells"])):
        return 0
    say(f"{output}: nothing was measured; it says of each subject why")
    return 1


def _files(steps: Sequence[Step]) -> list[Path]:
    """All that is measured and there: models, graphs beside them, engines, libraries; not what a run makes itself."""
    found: set[Path] = set()
    for step in steps:
        for name, job in step.of.values():
            found.add(Path(job.model))
            if find(name).files is not plain_file:
                with suppress(AbsentError):
                    found.update(path for path in find(name).files(job) if path.exists())
    return sorted(found, key=lambda path: path.name)


def _load() -> str:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0
    return f", after a minute with a load of {load:.1f}" if load > _LOAD else ""


def _of_pieces(began: Sequence[str]) -> list[str]:
    """Notes of when a run began: nothing of one that was not stopped, on an idle machine."""
    if len(began) > 1:
        return [f"this run was stopped and went on; it began {'; '.join(began)}"]
    return [f"this run began {words}" for words in began if "," in words]


def _measure_limits(journal: Journal, threads: int) -> Mapping[str, float | None]:
    """Before all steps and after them, since a shared machine has good hours and bad ones."""
    say("measuring products of matrices")
    found = limits(threads)
    journal.add_limits(found)
    return found


def _of_limits(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> list[str]:
    """A note if the speed of matrix products was not the same before and after; shares are of the best."""
    both = {name: (one, after.get(name)) for name, one in before.items()}
    changed = [
        f"{name} {one:.0f} and {other:.0f}"
        for name, (one, other) in both.items()
        if one and other and abs(one / other - 1) > _CHANGED
    ]
    return [f"products of matrices, GFLOP/s before and after, differ: {', '.join(changed)}"] if changed else []
