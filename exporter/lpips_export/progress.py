"""Where the exporter says what it is doing: silent by default, the command line draws it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "Progress"]

Advance = Callable[[], None]


class Progress:
    """Notes and stages of a long job. This one says nothing; see console.ConsoleProgress."""

    def note(self, text: str) -> None:
        """Something the user should read once."""

    def detail(self, text: str) -> None:
        """Something that only who looks for a fault wants to read."""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """A stage of work, of `total` steps if that is known; call what it gives after each step."""
        yield lambda: None
