"""What the library logs: which provider it took, and why not another."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["log", "log_to"]

log = logging.getLogger("lpips_runtime")


@contextmanager
def log_to(say: Callable[[str], None]) -> Iterator[None]:
    """Hand every text to `say`, once however many graphs are opened, and nobody else."""
    said = set[str]()

    def emit(record: logging.LogRecord) -> None:
        if (text := record.getMessage()) not in said:
            said.add(text)
            say(text)

    handler = logging.Handler()
    handler.emit = emit
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
