"""Pillow's warnings, kept to the decoding that gives rise to them."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["mute_warnings"]

_thread = threading.local()
_filter_lock = threading.Lock()


class _WhileDecoding:
    """Stands where a warning filter has its pattern; matches in threads that are inside `mute_warnings`."""

    def match(self, _message: str) -> bool:
        return getattr(_thread, "decoding", False)


@contextmanager
def mute_warnings() -> Iterator[None]:
    """Ignore warnings that this thread gives rise to.

    Pillow warns of large images and odd metadata; what matters of it, images.py says itself. Filters belong
    to the process, and `warnings.catch_warnings` swaps them under the feet of other threads (up to Python
    3.13). So one filter stays in front for good that matches nothing outside of this context manager.
    """
    filters: Any = warnings.filters
    if not (filters and isinstance(filters[0][1], _WhileDecoding)):
        with _filter_lock:
            # The new one goes in before those go that have fallen behind: there is never none.
            old = [entry for entry in filters if isinstance(entry[1], _WhileDecoding)]
            filters.insert(0, ("ignore", _WhileDecoding(), Warning, None, 0))
            for entry in old:
                with suppress(ValueError):
                    filters.remove(entry)
    _thread.decoding = True
    try:
        yield
    finally:
        _thread.decoding = False
