"""The arguments of lpips-score: what they are, and which cannot be meant together."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import NoReturn

from . import pairs as sources
from ._version import __version__
from .beside import beside, check_beside
from .errors import UsageError
from .models import manifest_path
from .providers import MAX_THREADS
from .providers import parse as parse_provider
from .results import FORMATS
from .resume import RESUMABLE
from .say import say
from .sizes import parse_size

__all__ = ["can_go_on", "check_options", "check_targets", "parse"]

_DESCRIPTION = "Score images with LPIPS: 0 for equal images, larger the more they differ to a person."

_EPILOG = """\
examples:
  lpips-score a.png b.png                        one pair: prints the bare number
  lpips-score a.png b1.png b2.png b3.png         one reference against many
  lpips-score originals/ decoded/ --format csv   two folders, matched by name
  lpips-score --pairs pairs.csv -o scores.jsonl --format jsonl
  lpips-score --all-pairs frames/                every image against every other
  lpips-score --pairs pairs.csv -o scores.csv --format csv --resume       goes on where a run was stopped
  lpips-score a.png b.png --fail-above 0.1       exit code 1 if the distance is above 0.1

exit codes: 0 fine; 1 a distance is above --fail-above; 2 the call was wrong; 3 a file could not be read or a pair
could not be scored. Results go to stdout (or -o), everything else to stderr.
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of a call. Like argparse, prints its help or what is wrong, and exits."""
    # Intermixed, for options between the names: parse_args takes no DIST after them. It takes no --, in turn.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_intermixed_args(arguments[:end])
    if rest := arguments[end + 1 :]:
        names = [options.reference, *options.distorted, *rest] if options.reference is not None else rest
        options.reference, options.distorted = names[0], names[1:]
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in a line, without the usage, which takes eight."""
        say(f"error: {message}; see {self.prog} --help")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lpips-score",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("reference", nargs="?", metavar="REF", help="reference image, or folder of them")
    parser.add_argument("distorted", nargs="*", metavar="DIST", help="distorted image or images, or folder of them")
    what = parser.add_argument_group("what to score")
    what.add_argument("--pairs", metavar="FILE.csv", help="table with columns reference,distorted; - for stdin")
    what.add_argument("--all-pairs", metavar="DIR", help="every pair of the images in a folder")
    what.add_argument("--background", metavar="COLOR", help="what lies under transparent pixels, e.g. white or #808080")
    model = parser.add_argument_group("model")
    model.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help="an .onnx or .engine file of lpips-export, or a name such as alex "
        "(default: $LPIPS_MODEL, then artifacts/lpips_alex_fp32.onnx, then the installed lpips-model-alex)",
    )
    model.add_argument(
        "--provider",
        default="auto",
        metavar="NAME",
        help="auto, cpu, cuda, openvino, tensorrt-rtx, or one of its devices as in cuda:1; "
        "for an .engine file tensorrt:1 or tensorrt-rtx:1 (default: auto, the best that works)",
    )
    model.add_argument(
        "--fast-math",
        action="store_true",
        help="let a float32 model run in the provider's faster types (bfloat16, TF32); not for nearly equal images",
    )
    model.add_argument(
        "--threads", type=_count, metavar="N", help="threads on the CPU (default: the cores that it may use)"
    )
    model.add_argument(
        "--batch-size",
        type=_batch_size,
        metavar="N",
        help="pairs of one size to score at once, at most (default: 16, fewer large ones)",
    )
    model.add_argument(
        "--max-memory",
        type=_size,
        metavar="SIZE",
        help="what scoring a pair may take, e.g. 2GB; larger images are scored in tiles (default: 1450MB, vgg 2900MB)",
    )
    model.add_argument(
        "--trust-engine", action="store_true", help="open a version-compatible .engine file, which runs code of its own"
    )
    model.add_argument(
        "--feature-store",
        metavar="DIR",
        help="keep what is computed of each image in this folder, so that no later run, here or in another process, "
        "computes it again (needs the graphs of lpips-export --split)",
    )
    model.add_argument(
        "--feature-precision",
        choices=["fp32", "fp16"],
        help="of what the store keeps: fp16 takes half the space and changes distances by 1e-4 or less (default: fp32)",
    )
    model.add_argument("--info", action="store_true", help="say what the model is, and exit")
    model.add_argument("--list-providers", action="store_true", help="say what can compute here, and exit")
    output = parser.add_argument_group("output")
    output.add_argument("--format", choices=list(FORMATS), default="text", help="default: text")
    output.add_argument("-o", "--output", metavar="FILE", help="write results there instead of stdout")
    output.add_argument(
        "--resume", action="store_true", help="go on with a CSV or JSONL file that a run left unfinished"
    )
    output.add_argument("--layers", action="store_true", help="add each depth's share of the distance")
    output.add_argument("--heatmap", metavar="PATH", help="draw where they differ: a file for one pair, else a folder")
    output.add_argument("--fail-above", type=_limit, metavar="X", help="exit with 1 if any distance is above X")
    output.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"lpips-score {__version__}")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; give 1 to {MAX_THREADS}")
    return int(text)


def _batch_size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= sources.MAX_BATCH:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pairs; give 1 to {sources.MAX_BATCH}")
    return int(text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _limit(text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no distance; give a number of 0 or more")
    return limit


def check_options(options: argparse.Namespace) -> None:
    """Raise UsageError for options that cannot be meant together. Looks at no file."""
    parse_provider(options.provider)
    given = [
        name
        for name, value in (
            ("REF DIST", options.reference),
            ("--pairs", options.pairs),
            ("--all-pairs", options.all_pairs),
        )
        if value is not None
    ]
    if options.feature_precision is not None and options.feature_store is None:
        raise UsageError("--feature-precision is of the store; give --feature-store DIR too")
    asking = [name for name, asked in (("--info", options.info), ("--list-providers", options.list_providers)) if asked]
    if asking:
        if given or len(asking) > 1:
            raise UsageError(f"{asking[0]} scores nothing; leave out {[*asking[1:], *given][0]}")
        if options.format not in ("text", "json"):
            raise UsageError(f"{asking[0]} prints text or json")
        return
    if len(given) != 1:
        what = f"not {' and '.join(given)} together" if given else "and nothing was given"
        raise UsageError(f"give REF DIST, --pairs FILE.csv or --all-pairs DIR, {what}; see lpips-score --help")
    if options.resume:
        _check_resume(options)
    if options.reference is not None and not options.distorted:
        raise UsageError(f"{options.reference}: nothing to compare it with; give REF DIST [DIST ...]")


def _check_resume(options: argparse.Namespace) -> None:
    if options.output is None or options.format not in RESUMABLE:
        raise UsageError(f"--resume goes on with a file: give -o FILE and --format {' or '.join(RESUMABLE)}")
    if os.path.exists(options.output) and not os.path.isfile(options.output):  # noqa: PTH110, PTH113 (no OSError)
        raise UsageError(f"--resume: {options.output} is a device, a pipe or a folder; results are kept in a file")
    if options.heatmap is not None:
        raise UsageError("--resume goes on with numbers, not with pictures; leave out --heatmap")


def can_go_on(options: argparse.Namespace) -> bool:
    """Whether a later run could go on with what this one writes."""
    if options.output is None or options.format not in RESUMABLE or options.heatmap is not None:
        return False
    return os.path.isfile(options.output) or not os.path.exists(options.output)  # noqa: PTH110, PTH113 (no OSError)


def check_targets(options: argparse.Namespace, model: Path) -> None:
    """Raise UsageError if something that is read would be overwritten, or what is not ours beside the results."""
    inputs = [options.reference, *options.distorted, options.pairs, model, manifest_path(model)]
    for option, target in (("-o", options.output), ("--heatmap", options.heatmap)):
        if target is not None and any(_same_file(target, other) for other in inputs if other is not None):
            raise UsageError(f"{option} {target}: is one of the inputs, and would be overwritten")
    if can_go_on(options):
        for path in beside(options.output):
            if any(_same_file(path, other) for other in inputs if other is not None):
                raise UsageError(
                    f"-o {options.output}: {path.name} is written beside it, is one of the inputs, and would be "
                    "overwritten; name another file"
                )
        if not (options.resume and os.path.exists(options.output)):  # noqa: PTH110 (no OSError)
            check_beside(options.output)
    if options.output is not None and options.output.lower().endswith(sources.SUFFIXES):
        raise UsageError(f"-o {options.output}: is named like an image; results are text, --heatmap draws")


def _same_file(one: str | Path, other: str | Path) -> bool:
    try:
        return Path(one).is_file() and Path(other).is_file() and Path(one).samefile(other)
    except OSError:  # a name that is too long, a folder that may not be read
        return False
