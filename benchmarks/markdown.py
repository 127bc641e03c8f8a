"""A report as Markdown: the machine, what the figures mean, and a table for each net and size."""

import shlex
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from .schema import AGAINST, Cell, Report, measured
from .words import growth, held, installed, machine_line, number, off, percent, size_of, times_as_fast, work

__all__ = ["MADE_BY", "as_markdown", "table"]

# What a document that may be written over begins with.
MADE_BY = "<!-- Made by `python -m benchmarks report`, from "

_CALL = """\
Times are milliseconds of a call, on the wall clock, from 8-bit arrays in the host's memory to the distances there. No
call that was counted is left out as an outlier. PyTorch is given views of the arrays, with channels last in memory, as
`lpips.im2tensor` gives them; where a title says contiguous, channels first, as torchvision's ToTensor does."""
_WRONG = "A distance that had to be the reference's and is not is marked WRONG."
_MEANING = {
    "latency": f"""\
{_CALL} A call scores the whole batch.

- p50, p90, p99: percentiles of the `calls` that count, of all that were made: some to warm up do not, nor the first of
  each turn. Of fewer than 100, p99 is next to the slowest. pairs/s: of all counted calls together.
- GPU: p50 by CUDA events of 40 other calls after the rounds, the ways there and back and waiting for the host included.
  Transfers: those ways by themselves. Engines and the plain export have streams of their own, on which none is timed.
- times as fast: as `lpips` eager on the same device, as it comes; median and quartiles of the rounds. None where
  others had some of the machine.
- first number: from the start of the process; for torch.compile with nothing compiled before. memory: resident, at its
  peak. installed: on the disk, with the model's file if it is an ONNX graph or an engine; the weights that PyTorch
  packages download when they are first used come on top. Blank where it was run from a folder.
- share of the limit: what the convolutions multiply in p50, of what this machine does in products of matrices of that
  type. It can be more than all, since there are ways to convolve with fewer products.
- distance: of the first pair; how far off, is the worst of the batch, relative to `lpips` in float32. {_WRONG}""",
    "scaling": f"""\
{_CALL} A call scores the whole batch, or compares all images of a set; shown are medians (p50). {_WRONG}
The fit is constant + per unit * n^exponent, with n as the table's first column; residual is how far a point is from it
at most. Where that is more than 15 %, or the exponent at the end of those that were tried, none fits. Curves of fewer
than five points have no fit; none is what is WRONG, or was measured while others had some of the machine.""",
}

# Column -> what stands in it, of a cell and those of the same size; empty where nothing is known.
_COLUMNS: dict[str, Callable[[Any, list[Cell]], str]] = {
    "p50, ms": lambda cell, _: number(cell["ms"]["p50"]),
    "p90": lambda cell, _: number(cell["ms"]["p90"]),
    "p99": lambda cell, _: number(cell["ms"]["p99"]),
    "GPU, ms": lambda cell, _: _known(number, cell["device_ms"]),
    "transfers": lambda cell, _: _known(number, cell["transfer_ms"]),
    "calls": lambda cell, _: f"{cell['calls']} of {cell['calls'] + cell['uncounted']}",
    "pairs/s": lambda cell, _: number(cell["pairs_per_second"]),
    "times as fast": times_as_fast,
    "first number, s": lambda cell, _: number(cell["first_seconds"]),
    "memory, MB": lambda cell, _: f"{cell['peak_bytes'] / 1e6:.0f}",
    "installed, MB": lambda cell, _: _known(lambda size: f"{size / 1e6:.0f}", cell["installed_bytes"]),
    "share of the limit": lambda cell, _: _known(lambda share: f"{percent(share)} of {cell['limit']}", cell["share"]),
    "distance": lambda cell, _: _distance(cell),
}


def _known(shown: Callable[[float], str], value: float | None) -> str:
    return "" if value is None else shown(value)


def _distance(cell: Any) -> str:
    shown = "no number" if cell["distance"] is None else f"{cell['distance']:.6f}"
    words = off(cell)
    return f"{shown}, {f'**{words}**' if cell['wrong'] else words}" if words else shown


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns after the first that are empty in all rows are left out; a bar in a cell is escaped."""
    kept = [at for at in range(len(head)) if at == 0 or any(row[at] for row in rows)]
    lines = [[head[at] for at in kept], ["---"] * len(kept), *([row[at] for at in kept] for row in rows)]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def as_markdown(report: Report, name: str, pictures: Sequence[tuple[str, str]]) -> str:
    """name: of the JSON file. pictures: (what it shows, file name) in the same folder."""
    parts = [
        f"{MADE_BY}{name} -->",
        f"# {report['command'].capitalize()} on {machine_line(report)}",
        *_head(report),
        *(["\n".join(f"- **{note}**" for note in report["notes"])] if report["notes"] else []),
        _MEANING[report["command"]],
        *(f"![{title}]({file})" for title, file in pictures),
        *_SECTIONS[report["command"]](report),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> list[str]:
    machine = report["machine"]
    memory = machine["memory_bytes"]
    hardware = [
        machine["cpu"],
        f"{machine['cores']} cores",
        *([f"{memory / 1e9:.0f} GB"] if memory else []),
        *(f"{gpu['name']} (driver {gpu['driver'] or 'unknown'})" for gpu in machine["gpus"]),
        " ".join(machine["flags"]),
    ]
    software = [
        machine["system"],
        f"Python {machine['python']}",
        installed(report, tuple(machine["versions"])),
        f"lpips-export {report['project']['version']}, commit {report['project']['commit'] or 'unknown'}",
        report["date"],
    ]
    rates = ", ".join(f"{kind} {rate:.0f}" for kind, rate in report["limits"].items() if rate is not None)
    return [
        ", ".join(filter(None, hardware)) + ".",
        ", ".join(filter(None, software)) + ".",
        *([f"Products of matrices, GFLOP/s: {rates}."] if rates else []),
        "Models, SHA-256: " + ", ".join(f"{name} {sha256[:12]}" for name, sha256 in report["models"].items()) + ".",
        f"`python -m benchmarks {shlex.join([report['command'], *report['arguments']])}`",
    ]


def _missing(cells: Sequence[Cell]) -> list[str]:
    """A list of what was not measured, and why; points of a curve with the same reason in one line."""
    points: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        reasons = [cell["why"]] if cell["why"] else []
        if cell["predicted"]:
            predicted = cell["predicted"]
            reasons.append(f"predicted: {number(predicted['seconds'])} s, {number(predicted['bytes'] / 1e9)} GB")
        what = f"- {cell['state']}: {cell['subject']}, {cell['title']}"
        at = points.setdefault((what, "; ".join(reasons)), [])
        at += [f"{cell['at']:g}"] if "at" in cell else []
    lines = [
        f"{what}{' at ' * bool(at)}{', '.join(at)}{': ' * bool(reason)}{reason}"
        for (what, reason), at in points.items()
    ]
    return ["\n".join(lines)] if lines else []


def _latency(report: Report) -> list[str]:
    parts = []
    for size, group in groupby(sorted(report["cells"], key=size_of), size_of):
        cells = list(group)
        there: list[Any] = sorted(filter(measured, cells), key=lambda cell: cell["ms"]["p50"])  # pyright: ignore
        parts.append(f"## {size[0]}, {work(*size[1:])}")
        if there:
            rows = [[cell["subject"], cell["title"], *(of(cell, cells) for of in _COLUMNS.values())] for cell in there]
            parts.append(table(["subject", "", *_COLUMNS], rows))
        parts += _missing([cell for cell in cells if not measured(cell)])
    return parts


def _scaling(report: Report) -> list[str]:
    parts = []
    of: Callable[[Any], Any] = lambda cell: (cell["net"], list(AGAINST).index(cell["against"]))  # noqa: E731
    for (net, number_of), group in groupby(sorted(report["cells"], key=of), of):
        against = list(AGAINST)[number_of]
        cells: list[Any] = list(group)
        there = [cell for cell in cells if measured(cell)]
        parts.append(f"## {net} against {against}: {held(cells)}")
        if there:
            subjects = list(dict.fromkeys(cell["subject"] for cell in there))
            found = {(cell["at"], cell["subject"]): _time(cell) for cell in there}
            rows = [
                [f"{at:.0f}", *(found.get((at, subject), "") for subject in subjects)]
                for at in sorted({cell["at"] for cell in there})
            ]
            parts.append(table([AGAINST[against], *subjects], rows))
        fits = [fit for fit in report.get("fits", []) if (fit["net"], fit["against"]) == (net, against)]
        if fits:
            rows = [
                [
                    fit["subject"],
                    growth(fit),
                    number(fit["constant_ms"]),
                    number(fit["per_unit_ms"]),
                    percent(fit["residual"]),
                    f"{fit['points']}",
                ]
                for fit in fits
            ]
            parts.append(table(["fit of", "exponent", "constant, ms", "per unit, ms", "residual", "points"], rows))
        parts += _missing([cell for cell in cells if not measured(cell)])
    return parts


def _time(cell: Any) -> str:
    words = off(cell) if cell["wrong"] or cell["error"] is None else ""
    return number(cell["ms"]["p50"]) + (f", **{words}**" if words else "")


_SECTIONS: dict[str, Callable[[Report], list[str]]] = {"latency": _latency, "scaling": _scaling}
