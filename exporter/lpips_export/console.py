"""What the user sees on stderr while the exporter works."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from .progress import Advance, Progress

__all__ = ["ConsoleProgress"]


class ConsoleProgress(Progress):
    """Bars on a terminal; elsewhere one line per finished stage, so that a log shows where the time went."""

    def __init__(self, debug: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._debug = debug

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        if self._debug:
            self.note(text)

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        start = time.perf_counter()
        if sys.stderr.isatty():
            columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
            if total is not None:
                columns += [BarColumn(bar_width=20), MofNCompleteColumn()]
            with Bars(*columns, TimeElapsedColumn(), console=self._console, transient=True) as bars:
                task = bars.add_task(title, total=total)
                yield lambda: bars.advance(task)
        else:
            yield lambda: None
        self.note(f"{title}: {time.perf_counter() - start:.1f} s")
