"""Reports of `latency` and `scaling` as Markdown and pictures.

    python -m benchmarks report results/cpu.json
    python -m benchmarks report --check

From REPORT.json REPORT.md and REPORT-*.png are made, beside it; without a name from all in benchmarks/results.
`--check` writes nothing: what is not as the report would have it is named, a line each, with exit code 1. Pictures are
compared by the report that they say they were made from, not by their pixels.
"""

import argparse
import hashlib
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path

from lpips_runtime.errors import UsageError
from lpips_runtime.output import open_output, reported

from .markdown import MADE_BY, as_markdown
from .plots import NAMES, draw, made_from, pictures
from .schema import Report, read_report

__all__ = ["RESULTS", "check", "main", "make", "stale"]

# Of the machines that the documents speak of.
RESULTS = Path(__file__).with_name("results")


def make(path: Path) -> list[Path]:
    """Write what belongs to a report; gives the files, the Markdown last: it is there if the pictures are.

    Raises UsageError if it is no report, if matplotlib is missing, or if somebody wrote the Markdown by hand.
    """
    check(path)
    report, sha256, document = read_report(path), _sha256(path), path.with_suffix(".md")
    drawn = {name: _picture(path, name) for name in pictures(report)}
    for each in _left_over(path, drawn.values()):
        each.unlink()
    for name, picture in drawn.items():
        draw(report, name, picture, sha256)
    with open_output(document, atomic=True) as file, reported(document):
        file.write(_text(path, report))
    return [*drawn.values(), document]


def check(path: Path) -> None:
    """Before anything is measured for a report at this path: raises UsageError for what would keep `make` from it."""
    document = path.with_suffix(".md")
    with reported(document):
        if document.exists() and not document.read_bytes().startswith(MADE_BY.encode()):
            raise UsageError(f"{document}: was not made from a report and is left alone; rename it or {path.name}")
    if find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib; pip install '.[bench]'")


def stale(path: Path) -> list[str]:
    """What lies beside a report and is not what it says, or is missing: a line each. Raises UsageError as `make`."""
    report, sha256, document = read_report(path), _sha256(path), path.with_suffix(".md")
    drawn = [_picture(path, name) for name in pictures(report)]
    found = [*(each for each in drawn if made_from(each) != sha256), *_left_over(path, drawn)]
    if not document.exists() or document.read_bytes() != _text(path, report).encode():
        found.append(document)
    return [f"{each}: {'is stale' if each.exists() else 'is missing'}" for each in found]


def _left_over(path: Path, drawn: Collection[Path]) -> list[Path]:
    """Pictures that were made from a report of this name, and are none of it any more."""
    theirs = [_picture(path, name) for name in NAMES]
    return [each for each in theirs if each not in drawn and made_from(each)]


def _picture(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}-{name}.png")


def _text(path: Path, report: Report) -> str:
    drawn = [(title, _picture(path, name).name) for name, (title, _) in pictures(report).items()]
    return as_markdown(report, path.name, drawn)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORT.json", help="(default: benchmarks/results)")
    parser.add_argument("--check", action="store_true", help="write nothing, name what is stale")
    options = parser.parse_args(arguments)
    paths = options.reports or sorted(RESULTS.glob("*.json"))
    for path in paths:
        if path.suffix != ".json":
            parser.error(f"{path}: reports are named .json")
    if not options.check:
        for path in paths:
            print(*make(path), sep="\n", flush=True)
        return 0
    found = [f"{line}; python -m benchmarks report {path}" for path in paths for line in stale(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0
