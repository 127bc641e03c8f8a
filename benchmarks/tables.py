"""The README's tables, from the reports in benchmarks/results.

    python -m benchmarks tables
    python -m benchmarks tables --check

What stands between `<!-- benchmarks: NAME -->` and `<!-- end of benchmarks -->` is replaced by the table of that name.
`--check` writes nothing: what is stale is named, a line each, with exit code 1.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lpips_runtime.errors import UsageError
from lpips_runtime.output import open_output

from .markdown import table
from .report import RESULTS
from .schema import Report, is_ours, read_report
from .words import installed, machine_line, number, off, times_as_fast

__all__ = ["README", "TABLES", "Table", "filled", "latency_table", "main"]

README = Path(__file__).parents[1] / "README.md"

_BEGIN, _END = re.compile(r"<!-- benchmarks: (.*) -->"), "<!-- end of benchmarks -->"

# In the order in which tables of this project show them, others after them.
_NETS = ("alex", "squeeze", "vgg")


class Table(NamedTuple):
    """file: a report in benchmarks/results. device: whose cells of it."""

    file: str
    device: Literal["cpu", "cuda"]


def latency_table(report: Report, name: str, device: Literal["cpu", "cuda"]) -> str:
    """ms a pair of 256x256, subjects by nets; below it how many times as fast ours are as `lpips`.

    name: the report's document, to be linked to. Raises UsageError if no such pair was measured on the device, or the
    machine was unsteady.
    """
    cells: list[Any] = [
        cell
        for cell in report["cells"]
        if (cell["width"], cell["height"], cell["batch"], cell["device"]) == (256, 256, 1, device)
    ]
    if not any("ms" in cell for cell in cells):
        raise UsageError(f"{name}: its report has no pair of 256x256 on {device}")
    if any(not cell["steady"] for cell in cells if "ms" in cell):
        raise UsageError(f"{name}: others had some of the machine; measure again while nothing else runs")
    found = {(cell["title"], cell["net"]): cell for cell in cells}
    nets = sorted({cell["net"] for cell in cells}, key=lambda net: (_NETS.index(net) if net in _NETS else 9, net))
    titles = list(dict.fromkeys(cell["title"] for cell in cells))
    rows = [[title, *(_shown(found.get((title, net))) for net in nets)] for title in titles]
    for title in titles:
        ratios = []
        for net in nets:
            cell = found.get((title, net))
            of_net = [other for other in cells if other["net"] == net]
            ratios.append(times_as_fast(cell, of_net) if cell and "ms" in cell and is_ours(cell) else "")
        if any(ratios):
            rows.append([f"**times as fast as `lpips` eager**: {title}", *ratios])
    threads = " or ".join(str(count) for count in sorted({cell["threads"] for cell in cells}))
    machine = machine_line(report) if device == "cuda" else report["machine"]["cpu"]
    made = ", ".join(filter(None, (machine, f"threads: {threads}", installed(report), report["date"])))
    return f"{table(['ms a pair', *nets], rows)}\n\n{made}: [{name.removeprefix('benchmarks/')}]({name})."


def _shown(cell: Any) -> str:
    """Never a number for what was not measured."""
    if cell is None:
        return "-"
    if "ms" not in cell:
        return cell["state"]
    return number(cell["ms"]["p50"]) + (f", **{off(cell)}**" if cell["wrong"] else "")


TABLES: Mapping[str, Table] = {"latency": Table("cpu.json", "cpu")}


def filled(text: str) -> tuple[str, list[str]]:
    """A document with its tables as the reports have them now, and the names of those that were not so.

    Raises UsageError if a marker names no table, if one has no end, if there is no report for it, or if a table has no
    marker.
    """
    parts, stale, at = [], [], 0
    if missing := TABLES.keys() - {begin[1] for begin in _BEGIN.finditer(text)}:
        raise UsageError(f"there is no <!-- benchmarks: {min(missing)} -->, where that table would stand")
    for begin in _BEGIN.finditer(text):
        name, end = begin[1], text.find(_END, begin.end())
        if name not in TABLES:
            raise UsageError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
        if end < 0 or _BEGIN.search(text, begin.end(), end):
            raise UsageError(f"the table {name!r} has no {_END} after it")
        path = RESULTS / TABLES[name].file
        made = latency_table(read_report(path), f"benchmarks/results/{path.stem}.md", TABLES[name].device)
        made = f"\n\n{made}\n\n"
        if made != text[begin.end() : end]:
            stale.append(name)
        parts += [text[at : begin.end()], made]
        at = end
    return "".join([*parts, text[at:]]), stale


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, name what is stale")
    options = parser.parse_args(arguments)
    try:
        text, stale = filled(README.read_text(encoding="utf-8"))
    except UsageError as error:
        raise UsageError(f"{README.name}: {error}") from error
    for name in stale:
        print(
            f"{README.name}: the table {name!r} {'is stale; python -m benchmarks tables' if options.check else 'made'}"
        )
    if stale and not options.check:
        with open_output(README, atomic=True) as file:
            file.write(text)
    return 1 if stale and options.check else 0
