"""Remarks on images, gathered over a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .results import Result

__all__ = ["Notes"]


@dataclass
class _Found:
    """text: of the kind. first: names of the first pair. pairs: how many. about: the first of what they are about.
    things: a number for each of those, which takes less memory than what it stands for."""

    text: str
    first: str
    pairs: int = 0
    about: str = ""
    things: set[int] = field(default_factory=set)


class Notes:
    """Each kind of remark is said once, with how many results it holds for."""

    def __init__(self) -> None:
        self._found: dict[str, _Found] = {}

    def add(self, result: Result) -> None:
        names = f"{result.reference}, {result.distorted}"
        for note in result.notes:
            found = self._found.setdefault(note.kind, _Found(note.text, names))
            if note.about:
                found.about = found.about or note.about
                found.things.add(hash(note.about))
        for kind in {note.kind for note in result.notes}:
            self._found[kind].pairs += 1

    def lines(self) -> Iterator[str]:
        """One for each kind, names as they are."""
        for found in self._found.values():
            about = f": {found.about}{_more(len(found.things), 'file')}" if found.about else ""
            yield f"note: {found.first}{_more(found.pairs, 'pair')}: {found.text}{about}"


def _more(count: int, what: str) -> str:
    """ " and 2 other pairs" of three."""
    return f" and {count - 1} other {what}{'s' * (count != 2)}" if count > 1 else ""
