"""The README's tables, from the reports in benchmarks/results.

    python -m benchmarks tables
    python -m benchmarks tables --check

What stands between `<!-- benchmarks: NAME -->` and `<!-- end of benchmarks -->` is replaced by the table of that name.
`--check` writes nothing: what is stale is named, a line each, with exit code 1.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpips_runtime.errors import UsageError
from lpips_runtime.output import open_output

from .markdown import table
from .report import RESULTS
from .schema import Report, is_ours, read_report
from .words import installed, number, off, times_as_fast

__all__ = ["README", "TABLES", "Table", "filled", "latency_table", "main"]

README = Path(__file__).parents[1] / "README.md"

_BEGIN, _END = re.compile(r"<!-- benchmarks: (.*) -->"), "<!-- end of benchmarks -->"

# In the order in which tables of this project show them, others after them.
_NETS = ("alex", "squeeze", "vgg")


class Table(NamedTuple):
    """file: a report in benchmarks/results. make: the Markdown from it; file names in it are the README's."""

    file: str
    make: Callable[[Report, str], str]


def latency_table(report: Report, name: str) -> str:
    """ms a pair of 256x256 on the CPU, subjects by nets; below it how many times as fast ours are as `lpips`.

    name: the report's document, to be linked to. Raises UsageError if no such pair was measured.
    """
    cells: list[Any] = [
        cell
        for cell in report["cells"]
        if (cell["width"], cell["height"], cell["batch"], cell["device"]) == (256, 256, 1, "cpu")
    ]
    if not any("ms" in cell for cell in cells):
        raise UsageError(f"{name}: its report has no pair of 256x256 on the CPU")
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
    made = ", ".join(filter(None, (report["machine"]["cpu"], f"threads: {threads}", installed(report), report["date"])))
    return f"{table(['ms a pair', *nets], rows)}\n\n{made}: [{name.removeprefix('benchmarks/')}]({name})."


def _shown(cell: Any) -> str:
    """Never a number for what was not measured."""
    if cell is None:
        return "-"
    if "ms" not in cell:
        return cell["state"]
    return number(cell["ms"]["p50"]) + (f", **{off(cell)}**" if cell["wrong"] else "")


TABLES: Mapping[str, Table] = {"latency": Table("cpu.json", latency_table)}


def filled(text: str) -> tuple[str, list[str]]:
    """A document with its tables as the reports have them now, and the names of those that were not so.

    Raises UsageError if a marker names no table, if one has no end, or if there is no report for it.
    """
    parts, stale, at = [], [], 0
    for begin in _BEGIN.finditer(text):
        name, end = begin[1], text.find(_END, begin.end())
        if name not in TABLES:
            raise UsageError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
        if end < 0 or _BEGIN.search(text, begin.end(), end):
            raise UsageError(f"the table {name!r} has no {_END} after it")
        path = RESULTS / TABLES[name].file
        made = TABLES[name].make(read_report(path), f"benchmarks/results/{path.stem}.md")
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
