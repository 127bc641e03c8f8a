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
from lpips_runtime.output import open_output, reported

from .markdown import table
from .report import RESULTS
from .schema import Cell, Report, is_ours, measured, read_report
from .words import installed, machine_line, number, off, times_as_fast

__all__ = ["README", "TABLES", "Table", "filled", "latency_table", "main"]

README = Path(__file__).parents[1] / "README.md"

_BEGIN, _END = re.compile(r"<!-- benchmarks: (.*) -->"), "<!-- end of benchmarks -->"

# In the order in which tables of this project show them, others after them.
_NETS = ("alex", "squeeze", "vgg")


class Table(NamedTuple):
    """files: reports in benchmarks/results, of one machine and of nets that differ. device: whose cells of them."""

    files: tuple[str, ...]
    device: Literal["cpu", "cuda"]


def latency_table(reports: Mapping[str, Report], device: Literal["cpu", "cuda"]) -> str:
    """ms a pair of 256x256, subjects by nets; below it how many times as fast ours are as `lpips`, and what the reports
    name without having a figure of it.

    reports: by their documents, which are linked to. Raises UsageError if no such pair was measured on the device, or
    others had some of the machine.
    """
    cells: list[Any] = []
    for name, report in reports.items():
        there = [cell for cell in report["cells"] if _wanted(cell, device)]
        if not any(map(measured, there)):
            raise UsageError(f"{name}: its report has no pair of 256x256 on {device}")
        if any(not cell.get("steady") for cell in there if measured(cell)):
            raise UsageError(f"{name}: others had some of the machine; measure again while nothing else runs")
        cells += there
    found = {(cell["title"], cell["net"]): cell for cell in cells}
    nets = sorted(_of_those_measured(cells, "net"), key=lambda net: (_NETS.index(net) if net in _NETS else 9, net))
    titles = _of_those_measured(cells, "title")
    rows = [[title, *(_shown(found.get((title, net))) for net in nets)] for title in titles]
    for title in titles:
        ratios = []
        for net in nets:
            cell = found.get((title, net))
            of_net = [other for other in cells if other["net"] == net]
            ratios.append(times_as_fast(cell, of_net) if cell and measured(cell) and is_ours(cell) else "")
        if any(ratios):
            rows.append([f"**times as fast as `lpips` eager**: {title}", *ratios])
    parts = [table(["ms a pair", *nets], rows)]
    left_out = [name for key in ("net", "title") for name in dict.fromkeys(cell[key] for cell in cells)]
    if left_out := [name for name in left_out if name not in {*nets, *titles}]:
        parts.append(f"Without a figure, for reasons that the report gives: {'; '.join(left_out)}.")
    notes: dict[str, list[str]] = {}
    for name, report in reports.items():
        for note in report["notes"]:
            notes.setdefault(note, []).append(Path(name).stem)
    parts += ["\n".join(f"- {note}" + f" ({', '.join(of)})" * (len(reports) > 1) for note, of in notes.items())]
    (first, *_), threads = reports.values(), " or ".join(str(n) for n in sorted({cell["threads"] for cell in cells}))
    machine = machine_line(first) if device == "cuda" else first["machine"]["cpu"]
    links = " and ".join(f"[{name.removeprefix('benchmarks/')}]({name})" for name in reports)
    parts.append(", ".join((machine, f"threads: {threads}", installed(first), first["date"])) + f": {links}.")
    return "\n\n".join(filter(None, parts))


def _wanted(cell: Cell, device: str) -> bool:
    return (cell["width"], cell["height"], cell["batch"], cell["device"]) == (256, 256, 1, device)


def _of_those_measured(cells: Sequence[Any], key: str) -> list[str]:
    return list(dict.fromkeys(cell[key] for cell in cells if measured(cell)))


def _shown(cell: Any) -> str:
    """Never a number for what was not measured."""
    if cell is None:
        return "-"
    if not measured(cell):
        return cell["state"]
    words = off(cell) if cell["wrong"] or cell["error"] is None else ""
    return number(cell["ms"]["p50"]) + (f", **{words}**" if words else "")


TABLES: Mapping[str, Table] = {
    "latency": Table(("cpu.json",), "cpu"),
    "amx": Table(("xeon-amx.json", "xeon-amx-vgg.json"), "cpu"),
    "cuda": Table(("h100.json",), "cuda"),
}


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
        paths = [RESULTS / file for file in TABLES[name].files]
        reports = {f"benchmarks/results/{path.stem}.md": read_report(path) for path in paths}
        made = latency_table(reports, TABLES[name].device)
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
        with open_output(README, atomic=True) as file, reported(README):
            file.write(text)
    return 1 if stale and options.check else 0
