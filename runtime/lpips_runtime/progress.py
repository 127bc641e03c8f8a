"""A progress bar on stderr, where stderr is a terminal."""

from __future__ import annotations

import shutil
import sys
import time

__all__ = ["ProgressBar"]

_WIDTH = 24
_INTERVAL = 0.1  # seconds between two drawings


class ProgressBar:
    """Counts to `total`, or just counts where that is not known. Draws nothing before half a second has passed.

    done: what was counted earlier, and took none of the time.
    """

    def __init__(self, total: int | None, done: int = 0) -> None:
        self._total = total
        self._done = self._count = done
        self._start = time.monotonic()
        self._drawn = self._start + 0.5 - _INTERVAL
        self._visible = False
        self._enabled = sys.stderr is not None and sys.stderr.isatty()

    def advance(self) -> None:
        self._count += 1
        now = time.monotonic()
        if self._enabled and now - self._drawn >= _INTERVAL:
            self._drawn, self._visible = now, True
            # A line that wraps could not be taken back.
            columns = shutil.get_terminal_size().columns
            sys.stderr.write("\r\x1b[K" + self._line(now - self._start)[: columns - 1])
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar off the screen; the next advance draws it again."""
        if self._visible:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._visible = False
            self._drawn = self._start

    def _line(self, seconds: float) -> str:
        rate = (self._count - self._done) / seconds
        if not self._total:
            return f"{self._count} pairs, {rate:.1f}/s"
        filled = min(_WIDTH, _WIDTH * self._count // self._total)
        left = max(0, self._total - self._count) / rate
        bar = "█" * filled + "·" * (_WIDTH - filled)
        return f"{bar} {self._count}/{self._total}, {rate:.1f}/s, {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
