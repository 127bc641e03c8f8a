"""Signals that end a run, and the exceptions that they hide behind."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["exit_on_kill", "unhidden_stops"]


@contextmanager
def exit_on_kill() -> Iterator[None]:
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


@contextmanager
def unhidden_stops() -> Iterator[None]:
    """Raise the Ctrl-C or kill that an ImportError was made of: extensions in C turn those that meet their import into
    one, and a run that was stopped would look like one that lacks a library."""
    try:
        yield
    except ImportError as error:
        link: BaseException | None = error
        while link is not None:
            if isinstance(link, KeyboardInterrupt | SystemExit):
                raise link from None
            link = link.__cause__ or link.__context__
        raise
