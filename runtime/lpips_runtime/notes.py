"""Remarks on images, gathered over a run."""

from __future__ import annotations

from collections.abc import Iterator

from .results import Result

__all__ = ["Notes"]


class Notes:
    """Each kind of remark is said once, with how many results it holds for."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, str, int]] = {}

    def add(self, result: Result) -> None:
        for note in dict.fromkeys(result.notes):
            names = f"{result.reference}, {result.distorted}"
            text, first, count = self._found.get(note.kind, (note.text, names, 0))
            self._found[note.kind] = (text, first, count + 1)

    def lines(self) -> Iterator[str]:
        """One for each kind, names as they are."""
        for text, first, count in self._found.values():
            more = f" and {count - 1} other pair{'s' * (count != 2)}" if count > 1 else ""
            yield f"note: {first}{more}: {text}"
