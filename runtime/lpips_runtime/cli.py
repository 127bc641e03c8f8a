"""lpips-score: arguments in, exit code out."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from . import pairs as sources
from ._version import __version__
from .errors import LpipsError, OutputError, UsageError
from .output import open_output
from .pairs import Pair
from .progress import ProgressBar
from .results import FORMATS, Result, Summary, format_distance

if TYPE_CHECKING:
    from .scorer import Scorer

__all__ = ["main"]

_DESCRIPTION = "Score images with LPIPS: 0 for equal images, larger the more they differ to a person."

_EPILOG = """\
examples:
  lpips-score a.png b.png                        one pair: prints the bare number
  lpips-score a.png b1.png b2.png b3.png         one reference against many
  lpips-score originals/ decoded/ --format csv   two folders, matched by name
  lpips-score --pairs pairs.csv -o scores.jsonl --format jsonl
  lpips-score --all-pairs frames/                every image against every other
  lpips-score a.png b.png --fail-above 0.1       exit code 1 if the distance is above 0.1

exit codes: 0 fine; 1 a distance is above --fail-above; 2 the call was wrong; 3 a file could not be read or a pair
could not be scored. Results go to stdout (or -o), everything else to stderr.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code; `arguments` default to those of the process."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # Without this, a plain kill would leave a half-drawn bar and no summary of what was done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone; point stdout elsewhere, or the interpreter complains on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except LpipsError as error:
        if options.debug:
            raise
        _say(f"error: {error}")
        return error.exit_code
    except Exception as error:
        if options.debug:
            raise
        words = (str(error).strip() or "no further word").splitlines()[0]
        _say(f"error: unexpected {type(error).__name__}: {words}\nplease report it with the output of --debug")
        return 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
        help="an .onnx file of lpips-export, or a name such as alex "
        "(default: $LPIPS_MODEL, then artifacts/lpips_alex_fp32.onnx)",
    )
    model.add_argument("--provider", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:1 (default: auto)")
    model.add_argument("--threads", type=_count, metavar="N", help="threads of ONNX Runtime (default: its own choice)")
    model.add_argument("--info", action="store_true", help="say what the model is, and exit")
    output = parser.add_argument_group("output")
    output.add_argument("--format", choices=list(FORMATS), default="text", help="default: text")
    output.add_argument("-o", "--output", metavar="FILE", help="write results there instead of stdout")
    output.add_argument("--layers", action="store_true", help="add each depth's share of the distance")
    output.add_argument("--heatmap", metavar="PATH", help="draw where they differ: a file for one pair, else a folder")
    output.add_argument("--fail-above", type=_limit, metavar="X", help="exit with 1 if any distance is above X")
    output.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"lpips-score {__version__}")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; give 1 or more")
    return int(text)


def _limit(text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no distance; give a number of 0 or more")
    return limit


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _run(options: argparse.Namespace) -> int:
    _check_options(options)
    background = None
    if options.background is not None:
        from .images import parse_color

        background = parse_color(options.background)
    from .scorer import Scorer

    def opened() -> Scorer:
        return Scorer(options.model, provider=options.provider, threads=options.threads, background=background)

    if options.info:
        with opened() as scorer:
            _print_info(scorer, options.format)
        return 0
    pairs, total, single = _pairs(options)
    with opened() as scorer:
        if peculiar := scorer.info.peculiarities:
            _say(f"note: {scorer.path.name} is not plain LPIPS v0.1: {', '.join(peculiar)}")
        return _score(scorer, pairs, total, single, options)


def _check_options(options: argparse.Namespace) -> None:
    given = [
        name
        for name, value in (
            ("REF DIST", options.reference),
            ("--pairs", options.pairs),
            ("--all-pairs", options.all_pairs),
        )
        if value is not None
    ]
    if options.info:
        if given:
            raise UsageError(f"--info scores nothing; leave out {given[0]}")
        if options.format not in ("text", "json"):
            raise UsageError("--info prints text or json")
        return
    if len(given) != 1:
        what = f"not {' and '.join(given)} together" if given else "and nothing was given"
        raise UsageError(f"give REF DIST, --pairs FILE.csv or --all-pairs DIR, {what}; see lpips-score --help")
    if options.reference is not None and not options.distorted:
        raise UsageError(f"{options.reference}: nothing to compare it with; give REF DIST [DIST ...]")
    inputs = [options.reference, *options.distorted, options.pairs, options.model]
    for option, target in (("-o", options.output), ("--heatmap", options.heatmap)):
        if target is not None and any(_same_file(target, other) for other in inputs if other is not None):
            raise UsageError(f"{option} {target}: is one of the inputs, and would be overwritten")


def _same_file(one: str, other: str) -> bool:
    return Path(one).is_file() and Path(other).is_file() and Path(one).samefile(other)


def _pairs(options: argparse.Namespace) -> tuple[Iterable[Pair], int | None, bool]:
    """What to score, how many pairs that is (None: not known yet), and whether it is a single pair of files."""

    def note(text: str) -> None:
        _say(f"note: {text}")

    if options.pairs is not None:
        return sources.csv_pairs(options.pairs), None, False
    if options.all_pairs is not None:
        found = sources.all_pairs(options.all_pairs, note)
        return found, None, False
    folders = [Path(name).is_dir() for name in (options.reference, *options.distorted)]
    if not any(folders):
        return (
            sources.file_pairs(options.reference, options.distorted),
            len(options.distorted),
            len(options.distorted) == 1,
        )
    if not all(folders) or len(folders) != 2:
        raise UsageError(
            "give two folders, or a reference image and one or more distorted images; "
            f"{[options.reference, *options.distorted][folders.index(True)]} is a folder"
        )
    found = sources.folder_pairs(options.reference, options.distorted[0], note)
    return found, len(found), False


def _score(scorer: Scorer, pairs: Iterable[Pair], total: int | None, single: bool, options: argparse.Namespace) -> int:
    summary, notes, bar = Summary(), _Notes(), ProgressBar(total if not single else None)
    form = FORMATS[options.format]
    above = 0
    with ExitStack() as stack:
        stream = stack.enter_context(open_output(options.output, atomic=form.atomic))
        writer = form(stream, layers=options.layers, provenance=scorer.provenance, single=single)
        draw = _heatmaps(scorer, single, options) if options.heatmap is not None else None
        results = stack.enter_context(closing(scorer.stream(pairs, maps=draw is not None)))
        try:
            for result in results:
                summary.add(result)
                notes.add(result)
                writer.write(result)
                bar.advance()
                if result.distance is None:
                    bar.clear()
                    _say(f"error: {_failure(result)}")
                    continue
                above += options.fail_above is not None and result.distance > options.fail_above
                if draw is not None:
                    draw(result)
        except BaseException as error:
            # What was scored is kept, whatever stops the rest; if it is the output that fails, it has said so.
            bar.clear()
            with suppress(OutputError, BrokenPipeError):
                writer.finish(summary, complete=False)
            if isinstance(error, KeyboardInterrupt):
                _say(f"interrupted after {summary.count} pair{'s' * (summary.count != 1)}")
            raise
        bar.clear()
        writer.finish(summary)
    notes.say()
    if not single:
        _say(_summary_line(summary))
    if options.fail_above is not None and above:
        worst = summary.worst
        assert worst is not None
        assert worst.distance is not None
        which = "" if single else f" of {summary.count}: worst is {worst.reference}, {worst.distorted}"
        _say(f"above {options.fail_above:g}: {above}{which} with {format_distance(worst.distance)}")
    if summary.failed:
        return 3
    return 1 if above else 0


def _failure(result: Result) -> str:
    error = result.error or ""
    named = result.reference in error or result.distorted in error
    return error if named else f"{result.reference}, {result.distorted}: {error}"


def _summary_line(summary: Summary) -> str:
    scored = summary.count - summary.failed
    failed = f", {summary.failed} failed" if summary.failed else ""
    if not scored:
        return f"nothing was scored{failed}"
    return f"mean {summary.mean:.6g}, median {summary.median:.6g} over {scored} pair{'s' * (scored != 1)}{failed}"


def _heatmaps(scorer: Scorer, single: bool, options: argparse.Namespace) -> Callable[[Result], None]:
    """What draws the heatmap of a result: to --heatmap for a single pair, else into that folder."""
    from .heatmap import render, save_heatmap

    info, target = scorer.info, Path(options.heatmap)
    # The folder that the distorted images lie in, where there is one: below it names are kept as they are.
    base = Path(options.all_pairs or (options.distorted or [""])[0])
    taken: set[Path] = set()
    if not single:
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{target}: cannot be a folder of heatmaps: {error.strerror}") from error

    def draw(result: Result) -> None:
        assert result.detail is not None
        assert result.pixels is not None
        assert result.distance is not None
        title = f"LPIPS {info.net} v{info.version}: {result.distance:.4f}"
        path = target if single else _heatmap_path(target, result, base, taken)
        save_heatmap(path, render(result.detail.map[0], result.pixels, title=title))

    return draw


def _heatmap_path(folder: Path, result: Result, base: Path, taken: set[Path]) -> Path:
    """A file of its own for each result, in `folder` and after the names of its images."""
    distorted, stem = Path(result.distorted), Path(result.reference).stem
    below = distorted.relative_to(base).parent if distorted != base and distorted.is_relative_to(base) else Path()
    if ".." in below.parts or below.is_absolute():
        below = Path()
    name = stem if distorted.stem == stem else f"{stem}__{distorted.stem}"
    path, number = folder / below / f"{name}.png", 2
    while path in taken:
        path, number = path.with_name(f"{name}-{number}.png"), number + 1
    taken.add(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class _Notes:
    """Remarks on images, each kind said once, with how many results it holds for."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, str, int]] = {}

    def add(self, result: Result) -> None:
        for note in dict.fromkeys(result.notes):
            text, first, count = self._found.get(note.kind, (note.text, result.distorted, 0))
            self._found[note.kind] = (text, first, count + 1)

    def say(self) -> None:
        for text, first, count in self._found.values():
            more = f" and {count - 1} other pair{'s' * (count != 2)}" if count > 1 else ""
            _say(f"note: {first}{more}: {text}")


def _print_info(scorer: Scorer, form: str) -> None:
    info = {**scorer.provenance["model"], **asdict(scorer.info)}
    described = {"model": {**info, "path": str(scorer.path)}, "runtime": scorer.provenance["runtime"]}
    if form == "json":
        print(json.dumps(described, indent=2))  # noqa: T201
        return
    for part, values in described.items():
        for key, value in values.items():
            print(f"{part}.{key}: {value}")  # noqa: T201
