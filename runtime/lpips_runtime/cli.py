"""lpips-score: arguments in, exit code out."""

from __future__ import annotations

import argparse
import itertools
import json
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
from .arguments import check_options, check_targets, parse
from .errors import LpipsError, OutputError, PairingError, UsageError
from .log import log_to
from .models import find_model
from .notes import Notes
from .output import open_output, reason
from .pairs import Pair
from .progress import ProgressBar
from .results import FORMATS, Summary, format_distance
from .resume import RESUMABLE, Job

if TYPE_CHECKING:
    from .scorer import Scorer

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code; `arguments` default to those of the process."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        with _exit_on_kill(), log_to(lambda text: _say(_one_line(f"note: {text}"))):
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
def _exit_on_kill() -> Iterator[None]:
    """Let a plain kill, or a terminal that is closed, end the run as Ctrl-C does: rows kept, bar taken off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kills = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # One that is ignored stays so: nohup means it.
    before = {kill: signal.getsignal(kill) for kill in kills if signal.getsignal(kill) != signal.SIG_IGN}
    for kill in before:
        signal.signal(kill, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for kill, handler in before.items():
            signal.signal(kill, handler)


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
    check_options(options)
    if options.list_providers:
        from .listing import describe

        _write(describe(options.format, fast_math=options.fast_math), options.output)
        return 0
    model = find_model(options.model)
    check_targets(options, model)
    pairs, total, single = ((), None, False) if options.info else _pairs(options)
    if options.heatmap is not None and not options.info:
        from . import drawing

        drawing.check_target(options.heatmap, single)
    background = None
    if options.background is not None:
        from .images import parse_color

        background = parse_color(options.background)
    from .scorer import Scorer
    from .store import FeatureStore

    store = options.feature_store
    if store is not None:
        store = FeatureStore(store, precision=options.feature_precision or "fp32")

    def opened() -> Scorer:
        return Scorer(
            model,
            provider=options.provider,
            threads=options.threads,
            fast_math=options.fast_math,
            background=background,
            trust_engine=options.trust_engine,
            features=store,
            max_memory=options.max_memory,
        )

    if options.info:
        with opened() as scorer:
            _write_info(scorer, options)
        return 0
    with opened() as scorer:
        if peculiar := scorer.info.peculiarities:
            _say(f"note: {scorer.path.name} is not plain LPIPS v0.1: {', '.join(peculiar)}")
        slow = _SLOW_ON_CPU.get((scorer.info.precision, scorer.info.target))
        if slow and scorer.provenance["runtime"]["provider"] == "cpu":
            _say(f"note: {scorer.path.name}: {slow} is slower than float32 on CPUs; use the fp32 model there")
        return _score(scorer, pairs, total, single, options)


# Precision and target of graphs that gain nothing from it there.
_SLOW_ON_CPU = {("fp16", ""): "half precision", ("int8", "tensorrt"): "INT8 for TensorRT"}


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
    summary, notes = Summary(), Notes()
    rows_on_screen = options.output is None and sys.stdout is not None and sys.stdout.isatty()
    form = FORMATS[options.format]
    above = 0
    broken: PairingError | None = None
    draw = None
    if options.heatmap is not None:
        from . import drawing

        target = Path(options.heatmap)
        # The folder that the distorted images lie in, where there is one: below it names are kept as they are.
        base = options.all_pairs or (options.distorted or [""])[0]
        draw = drawing.to_file(scorer.info, target) if single else drawing.to_folder(scorer.info, target, Path(base))
        pairs = pairs if single else drawing.outside(pairs, target)
    with ExitStack() as stack:
        job = stack.enter_context(_job(scorer, pairs, options)) if _can_go_on(options) else None
        resumed = False
        if job is not None:
            for result in job.earlier() if options.resume else ():
                summary.add(result)
                above += _is_above(result.distance, options.fail_above)
            pairs, resumed = job.pairs, job.begin()
        if resumed:
            failed = f", {summary.failed} of which failed and stay so" if summary.failed else ""
            _say(f"going on after {_count(summary.count)}{failed}")
        bar = ProgressBar(total if not single else None, done=summary.count)
        stream = stack.enter_context(open_output(options.output, atomic=form.atomic, append=resumed))
        if job is not None and not resumed:
            job.write_record()
        writer = form(stream, layers=options.layers, provenance=scorer.provenance, single=single, resumed=resumed)
        results = stack.enter_context(
            closing(scorer.stream(pairs, maps=draw is not None, batch_size=options.batch_size))
        )
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
        except PairingError as error:  # a table that breaks off; the rows before it were scored
            broken = error
        except BaseException as error:
            # What was scored is kept, whatever stops the rest; if it is the output that fails, it has said so.
            bar.clear()
            with suppress(OutputError, BrokenPipeError):
                writer.finish(summary, complete=False)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                advice = "" if job is None else "; the same command with --resume goes on after them"
                _say(f"interrupted after {_count(summary.count)}{advice}")
            raise
        bar.clear()
        writer.finish(summary, complete=broken is None)
    for note in notes.lines():
        _say(_one_line(note))
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
    if broken is not None:
        _say(_one_line(f"error: {broken}"))
    if summary.failed or broken is not None:
        return 3
    return 1 if above else 0


def _can_go_on(options: argparse.Namespace) -> bool:
    """Whether a later run could go on with what this one writes."""
    if options.output is None or options.format not in RESUMABLE or options.heatmap is not None:
        return False
    return os.path.isfile(options.output) or not os.path.exists(options.output)  # noqa: PTH110, PTH113 (no OSError)


def _job(scorer: Scorer, pairs: Iterable[Pair], options: argparse.Namespace) -> Job:
    made_by = {"background": options.background, **scorer.provenance}
    return Job(options.output, options.format, layers=options.layers, made_by=made_by, pairs=pairs)


def _is_above(distance: float | None, limit: float | None) -> bool:
    # As it is printed: the float32 behind 0.1 is larger than the float64, and a limit may be a number of ours.
    return limit is not None and distance is not None and float(format_distance(distance)) > limit


def _count(pairs: int) -> str:
    return f"{pairs} pair{'s' * (pairs != 1)}"


def _summary_line(summary: Summary) -> str:
    scored = summary.count - summary.failed
    failed = f", {summary.failed} failed" if summary.failed else ""
    if not scored:
        return f"nothing was scored{failed}"
    return f"mean {summary.mean:.6g}, median {summary.median:.6g} over {_count(scored)}{failed}"


def _write_info(scorer: Scorer, options: argparse.Namespace) -> None:
    info = {**scorer.provenance["model"], **asdict(scorer.info)}
    described = {"model": {**info, "path": str(scorer.path)}, "runtime": scorer.provenance["runtime"]}
    if options.format == "json":
        text = json.dumps(described, indent=2)
    else:
        text = "\n".join(
            _one_line(f"{part}.{key}: {value}") for part, values in described.items() for key, value in values.items()
        )
    _write(text, options.output)


def _write(text: str, output: str | None) -> None:
    with open_output(output, atomic=True) as stream:
        try:
            stream.write(f"{text}\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"{output or 'standard output'}: cannot be written: {reason(error)}") from error
