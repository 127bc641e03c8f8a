"""How the tests run lpips-score."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

Models = Callable[[str], Path]


Run = Callable[..., tuple[int, str, str]]


COMMAND = [sys.executable, "-c", "import sys; from lpips_runtime.cli import main; sys.exit(main())"]


GRAY16 = "16-bit gray is rounded to 8 bits"


full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes meanwhile, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save(name: str, seed: int, size: tuple[int, int] = (40, 36)) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(pixels).save(name)
    return name


def summary(*distances: str, failed: int = 0) -> str:
    """What is said on the CPU of several pairs."""
    values = np.array(distances, np.float32).astype(float)
    scored = f"{len(values)} pair{'s' * (len(values) != 1)}"
    more = f", {failed} failed" if failed else ""
    return f"mean {values.mean():.6g}, median {np.median(values):.6g} over {scored} on cpu{more}\n"


def command(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "check": False, "timeout": 120}
    return subprocess.run([*COMMAND, *map(str, arguments)], **(defaults | options))
