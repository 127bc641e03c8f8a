"""Words on stderr, a line each."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["one_line", "say", "say_lines"]

# Control characters and line ends, which file names may hold and a terminal would obey.
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def one_line(text: str) -> str:
    """The text with control characters and line ends as backslash escapes."""
    return text.translate(_ESCAPES)


def say(text: str) -> None:
    """Print one line, whatever names are in it."""
    say_lines(one_line(text))


def say_lines(text: str) -> None:
    """Print text as it is."""
    # A closed or full stderr costs its reader the words, not the results; print(file=None) would write to stdout.
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        # What it still buffers goes nowhere: it would fail again when the interpreter exits, with code 120.
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
