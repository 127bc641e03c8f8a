"""lpips-score: arguments in, exit code out."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from . import pairs as sources
from ._version import __version__
from .errors import LpipsError, OutputError, UsageError
from .models import find_model
from .output import open_output, reason
from .pairs import Pair
from .progress import ProgressBar
from .providers import MAX_THREADS
from .providers import parse as parse_provider
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
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        with _exit_on_sigterm():
            return _run(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has seen enough
        return 128 + 13
    except Exception as error:  # noqa: BLE001  a command ends with a word and an exit code, whatever happens
        if options.debug:
            _say(traceback.format_exc().rstrip())
        if isinstance(error, LpipsError):
            _say(f"error: {error}")
            return error.exit_code
        words = (str(error).strip() or "no further word").splitlines()[0]
        _say(f"error: unexpected {type(error).__name__}: {words}")
        if not options.debug:
            _say("please report it with the output of --debug")
        return 3


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let a plain kill end the run as Ctrl-C does: rows kept, bar taken off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: list[str]) -> argparse.Namespace:
    # Intermixed, for options between the names: parse_args takes no DIST after them. It takes no --, in turn.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_intermixed_args(arguments[:end])
    if rest := arguments[end + 1 :]:
        names = [options.reference, *options.distorted, *rest] if options.reference is not None else rest
        options.reference, options.distorted = names[0], names[1:]
    return options


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
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; give 1 to {MAX_THREADS}")
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
    # A closed or full stderr costs its reader the words, not the results; print(file=None) would write to stdout.
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        # What it still buffers goes nowhere: it would fail again when the interpreter exits, with code 120.
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())


def _one_line(text: str) -> str:
    return text.translate(_ESCAPES)


# Control characters and line ends, which file names may hold and a terminal would obey.
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def _run(options: argparse.Namespace) -> int:
    _check_options(options)
    model = find_model(options.model)
    _check_targets(options, model)
    pairs, total, single = ((), None, False) if options.info else _pairs(options)
    if options.heatmap is not None and not options.info:
        from . import drawing

        drawing.check_target(options.heatmap, single)
    background = None
    if options.background is not None:
        from .images import parse_color

        background = parse_color(options.background)
    from .scorer import Scorer

    def opened() -> Scorer:
        return Scorer(model, provider=options.provider, threads=options.threads, background=background)

    if options.info:
        with opened() as scorer:
            _write_info(scorer, options)
        return 0
    with opened() as scorer:
        if peculiar := scorer.info.peculiarities:
            _say(f"note: {scorer.path.name} is not plain LPIPS v0.1: {', '.join(peculiar)}")
        return _score(scorer, pairs, total, single, options)


def _check_options(options: argparse.Namespace) -> None:
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


def _check_targets(options: argparse.Namespace, model: Path) -> None:
    inputs = [options.reference, *options.distorted, options.pairs, model]
    for option, target in (("-o", options.output), ("--heatmap", options.heatmap)):
        if target is not None and any(_same_file(target, other) for other in inputs if other is not None):
            raise UsageError(f"{option} {target}: is one of the inputs, and would be overwritten")
    if options.output is not None and options.output.lower().endswith(sources.SUFFIXES):
        raise UsageError(f"-o {options.output}: is named like an image; results are text, --heatmap draws")


def _same_file(one: str, other: str | Path) -> bool:
    try:
        return Path(one).is_file() and Path(other).is_file() and Path(one).samefile(other)
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _pairs(options: argparse.Namespace) -> tuple[Iterable[Pair], int | None, bool]:
    """What to score, how many pairs that is (None: not known yet), and whether it is a single pair of files."""

    def note(text: str) -> None:
        _say(f"note: {text}")

    if options.pairs is not None:
        return sources.csv_pairs(options.pairs), None, False
    if options.all_pairs is not None:
        return *_counted(sources.all_pairs(options.all_pairs, note)), False
    folders = [os.path.isdir(name) for name in (options.reference, *options.distorted)]  # noqa: PTH112
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


def _counted(found: Iterator[Pair]) -> tuple[Iterator[Pair], int]:
    """All pairs of n images and how many those are: the first image comes first, with each of the n - 1 others."""
    head: list[Pair] = []
    others = 0
    for pair in found:
        head.append(pair)
        if pair.reference != head[0].reference:
            break
        others += 1
    return itertools.chain(head, found), others * (others + 1) // 2


def _score(scorer: Scorer, pairs: Iterable[Pair], total: int | None, single: bool, options: argparse.Namespace) -> int:
    summary, notes, bar = Summary(), _Notes(), ProgressBar(total if not single else None)
    rows_on_screen = options.output is None and sys.stdout is not None and sys.stdout.isatty()
    form = FORMATS[options.format]
    above = 0
    draw = None
    if options.heatmap is not None:
        from . import drawing

        target = Path(options.heatmap)
        # The folder that the distorted images lie in, where there is one: below it names are kept as they are.
        base = options.all_pairs or (options.distorted or [""])[0]
        draw = drawing.to_file(scorer.info, target) if single else drawing.to_folder(scorer.info, target, Path(base))
        pairs = pairs if single else drawing.outside(pairs, target)
    with ExitStack() as stack:
        stream = stack.enter_context(open_output(options.output, atomic=form.atomic))
        writer = form(stream, layers=options.layers, provenance=scorer.provenance, single=single)
        results = stack.enter_context(closing(scorer.stream(pairs, maps=draw is not None)))
        try:
            for result in results:
                summary.add(result)
                notes.add(result)
                if result.distance is None or rows_on_screen:
                    bar.clear()
                writer.write(result)
                bar.advance()
                if result.distance is None:
                    bar.clear()
                    _say(_one_line(f"error: {result.reference}, {result.distorted}: {result.error}"))
                    continue
                above += _is_above(result.distance, options.fail_above)
                if draw is not None:
                    draw(result)
        except BaseException as error:
            # What was scored is kept, whatever stops the rest; if it is the output that fails, it has said so.
            bar.clear()
            with suppress(OutputError, BrokenPipeError):
                writer.finish(summary, complete=False)
            if isinstance(error, KeyboardInterrupt | SystemExit):
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
        found = format_distance(worst.distance)
        if not single:
            found = _one_line(
                f"{above} of {summary.count} pairs, the worst {found} for {worst.reference}, {worst.distorted}"
            )
        _say(f"above {options.fail_above:.9g}: {found}")
    if summary.failed:
        return 3
    return 1 if above else 0


def _is_above(distance: float, limit: float | None) -> bool:
    # As it is printed: the float32 behind 0.1 is larger than the float64, and a limit may be a number of ours.
    return limit is not None and float(format_distance(distance)) > limit


def _summary_line(summary: Summary) -> str:
    scored = summary.count - summary.failed
    failed = f", {summary.failed} failed" if summary.failed else ""
    if not scored:
        return f"nothing was scored{failed}"
    return f"mean {summary.mean:.6g}, median {summary.median:.6g} over {scored} pair{'s' * (scored != 1)}{failed}"


class _Notes:
    """Remarks on images, each kind said once, with how many results it holds for."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, str, int]] = {}

    def add(self, result: Result) -> None:
        for note in dict.fromkeys(result.notes):
            names = f"{result.reference}, {result.distorted}"
            text, first, count = self._found.get(note.kind, (note.text, names, 0))
            self._found[note.kind] = (text, first, count + 1)

    def say(self) -> None:
        for text, first, count in self._found.values():
            more = f" and {count - 1} other pair{'s' * (count != 2)}" if count > 1 else ""
            _say(_one_line(f"note: {first}{more}: {text}"))


def _write_info(scorer: Scorer, options: argparse.Namespace) -> None:
    info = {**scorer.provenance["model"], **asdict(scorer.info)}
    described = {"model": {**info, "path": str(scorer.path)}, "runtime": scorer.provenance["runtime"]}
    if options.format == "json":
        text = json.dumps(described, indent=2)
    else:
        text = "\n".join(
            _one_line(f"{part}.{key}: {value}") for part, values in described.items() for key, value in values.items()
        )
    with open_output(options.output, atomic=True) as stream:
        try:
            stream.write(f"{text}\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"{options.output or 'standard output'}: cannot be written: {reason(error)}") from error
