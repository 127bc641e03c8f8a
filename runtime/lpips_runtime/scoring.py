"""One job of lpips-score: pairs in; rows, notes, summary and exit code out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import can_go_on
from .errors import OutputError, PairingError
from .notes import Notes
from .output import open_output
from .pairs import Pair
from .progress import ProgressBar
from .results import FORMATS, Summary, format_distance
from .resume import Job
from .say import say

if TYPE_CHECKING:
    from .scorer import Scorer

__all__ = ["score"]


def score(scorer: Scorer, pairs: Iterable[Pair], total: int | None, single: bool, options: argparse.Namespace) -> int:
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
        job = stack.enter_context(_job(scorer, pairs, options)) if can_go_on(options) else None
        resumed = False
        if job is not None:
            for result in job.earlier() if options.resume else ():
                summary.add(result)
                above += _is_above(result.distance, options.fail_above)
            pairs, resumed = job.pairs, job.begin()
        if resumed:
            say(_going_on(summary))
        bar = ProgressBar(total if not single else None, done=summary.count)
        stream = stack.enter_context(open_output(options.output, atomic=form.atomic, append=resumed))
        if job is not None:
            try:
                stream = job.recorded(stream)
            except OutputError as error:
                if options.resume:
                    raise
                job = None
                say(f"note: {error}, so that --resume cannot go on with it")
        writer = form(stream, layers=options.layers, provenance=scorer.provenance, single=single, resumed=resumed)
        writer.rows = summary.count
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
                    say(f"error: {result.reference}, {result.distorted}: {result.error}")
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
            advice = "" if job is None or not summary.count else "; the same command with --resume goes on after them"
            if isinstance(error, KeyboardInterrupt | SystemExit):
                say(f"interrupted after {_count(summary.count)}{advice}")
            if isinstance(error, OutputError) and advice:
                raise OutputError(f"{error}{advice}") from error
            raise
        bar.clear()
        writer.finish(summary, complete=broken is None)
    for note in notes.lines():
        say(note)
    if not single:
        say(_summary_line(summary, scorer.provenance["runtime"]["provider"]))
    if options.fail_above is not None and above:
        worst = summary.worst
        assert worst is not None
        assert worst.distance is not None
        found = format_distance(worst.distance)
        if not single:
            found = f"{above} of {summary.count} pairs, the worst {found} for {worst.reference}, {worst.distorted}"
        say(f"above {options.fail_above:.9g}: {found}")
    if broken is not None:
        say(f"error: {broken}")
    if summary.failed or broken is not None:
        return 3
    return 1 if above else 0


def _job(scorer: Scorer, pairs: Iterable[Pair], options: argparse.Namespace) -> Job:
    made_by = {"background": options.background, **scorer.provenance}
    return Job(options.output, options.format, layers=options.layers, made_by=made_by, pairs=pairs)


def _is_above(distance: float | None, limit: float | None) -> bool:
    # As it is printed: the float32 behind 0.1 is larger than the float64, and a limit may be a number of ours.
    return limit is not None and distance is not None and float(format_distance(distance)) > limit


def _count(pairs: int) -> str:
    return f"{pairs} pair{'s' * (pairs != 1)}"


def _going_on(earlier: Summary) -> str:
    if not earlier.count:
        return "the file holds no pair yet; this run begins with the first"
    failed = f", {earlier.failed} of which failed and stay so" if earlier.failed else ""
    return f"going on after {_count(earlier.count)}{failed}"


def _summary_line(summary: Summary, provider: str) -> str:
    scored = summary.count - summary.failed
    failed = f", {summary.failed} failed" if summary.failed else ""
    if not scored:
        return f"nothing was scored{failed}"
    return f"mean {summary.mean:.6g}, median {summary.median:.6g} over {_count(scored)} on {provider}{failed}"
