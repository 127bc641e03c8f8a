"""Memory that was freed goes back to the system."""

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lpips_runtime import Scorer, heap, session

Models = Callable[[str], Path]

# Blocks below glibc's threshold for maps of their own, with every second one let go of: none of it lies at the end of
# the heap, where glibc would give it back by itself.
_HOLES = """
import ctypes
from pathlib import Path
from lpips_runtime.heap import trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
start = resident()
blocks = [malloc(100_000) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
full = resident()
for block in blocks[::2]:
    free(block)
freed = resident()
trim()
print((freed - start) / (full - start), (resident() - start) / (full - start))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are not told to give memory back")
def test_what_glibc_keeps_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _HOLES], capture_output=True, text=True, check=True, timeout=60)
    before, after = map(float, done.stdout.split())
    assert before > 0.9
    assert after < 0.6


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_malloc_trim", lambda: None)
    heap.trim()


@pytest.mark.parametrize(("sides", "times"), [((600, 600, 600), 0), ((600, 620, 640), 2), ((64, 600, 64), 2)])
def test_it_is_given_back_where_the_size_of_large_images_changes(
    models: Models, monkeypatch: pytest.MonkeyPatch, sides: tuple[int, ...], times: int
) -> None:
    called = []
    with Scorer(models("alex"), provider="cpu") as scorer:
        scorer.score(*[np.zeros((sides[0], sides[0], 3), np.uint8)] * 2)
        monkeypatch.setattr(session, "trim", lambda: called.append(None))
        for side in sides:
            scorer.score(*[np.zeros((side, side, 3), np.uint8)] * 2)
    assert len(called) == times
