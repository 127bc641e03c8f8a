"""Threads for calls that an event loop must not wait for, and how many cores there are for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from .cpu import allowed_time

__all__ = ["Workers", "cores"]

P = ParamSpec("P")
T = TypeVar("T")


def cores() -> int:
    """The logical cores that this process may use, or the time on them if a container allows less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(max(1, min(allowed, allowed_time())))


class Workers:
    """As many threads as there are cores, started when needed; they end with this object.

    Not asyncio's own: those look up host names and read files for the rest of the program, and images that wait for
    their turn would hold all of that up.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    async def call(self, function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
        """What the function returns or raises. Cancelled while it waits for its turn, it is not called at all."""
        import asyncio  # takes longer to import than all of ours, and whoever gets here has done so

        # Threads do not live on in a process that was forked off, and what was told to them there would wait for ever.
        pool = self._pool
        if pool is None or self._process != os.getpid():
            pool = self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="lpips-worker")
            self._process = os.getpid()
        # Not `self._pool`, which another thread may have let go meanwhile: None would be asyncio's own threads.
        return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *arguments, **options))

    def let_go(self) -> None:
        """End the threads once they have done what was asked of them."""
        self._pool = None
