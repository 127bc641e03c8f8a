"""The CPU of this machine: its name, what it can do, and how many threads are right for one process on it."""

from __future__ import annotations

import functools
import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["allowed_time", "bfloat16_pays", "control_groups", "cpu_name", "default_threads", "exact_int8"]


@functools.cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        return ""


def cpu_name() -> str:
    """The CPU as its maker calls it, or at least its architecture."""
    found = re.search(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def bfloat16_pays() -> bool:
    """Whether an x86 CPU computes in bfloat16 faster than in float32: with AMX, or in its vectors if it is not Intel's.

    Without any instructions for it libraries imitate bfloat16. Intel's own for vectors multiply no more in a cycle than
    those of float32, and what they gain is lost in conversions (docs/providers.md). True where the system does not say.
    """
    flags = set(_cpuinfo().split())
    vectors = () if "GenuineIntel" in flags else ("avx512_bf16", "avx_ne_convert")
    return not flags or not flags.isdisjoint(("amx_bf16", *vectors))


def exact_int8() -> tuple[str, str]:
    """Session option, and its value here, with which INT8 does not saturate on x86 CPUs without VNNI.

    Those with VNNI do without it, and would take twice as long. Where the system does not say: rather slow than wrong.
    """
    return "session.x64quantprecision", "0" if "vnni" in _cpuinfo() else "1"


def default_threads() -> int | None:
    """Threads for one process: the physical cores that it may use, or the time on them if a container allows less.

    None where the system does not say, for the library's own choice. ONNX Runtime's is all cores of the machine,
    however few of them are allowed: its two threads on one core of two took 1.6 times the CPU time of one thread.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = {_siblings(cpu) for cpu in os.sched_getaffinity(0)}
    # Rounded down: with time for 1.5 cores two threads were no faster than one.
    return int(max(1, min(len(cores), allowed_time())))


def _siblings(cpu: int) -> str:
    """The logical CPUs on the same physical core."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def allowed_time(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Seconds of CPU per second that the control groups of this process allow, infinite without a limit.

    See cpu.max in the kernel's admin-guide/cgroup-v2, and cpu.cfs_quota_us in scheduler/sched-bwc for version 1.
    """
    return min(_limits(root, own), default=math.inf)


def control_groups(controller: str, root: Path, own: Path) -> Iterator[tuple[Path, bool]]:
    """Folders of the control groups of this process for a controller, those above them too, of which some may not be
    there; and whether each is of version 1. None where there is no Linux."""
    try:
        groups = [line.split(":", 2)[1:] for line in own.read_text().splitlines() if line.count(":") >= 2]
    except OSError:
        return
    for controllers, name in groups:
        if controllers and controller not in controllers.split(","):
            continue
        # A container sees its own group as the root, under a path that may be the host's: all folders above are tried.
        path = PurePosixPath(name.strip("/"))
        for group in (path, *path.parents):
            yield root / controllers / group, bool(controllers)


def _limits(root: Path, own: Path) -> Iterator[float]:
    for folder, first_version in control_groups("cpu", root, own):
        try:
            if first_version:
                quota, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
            else:
                quota, period = (folder / "cpu.max").read_text().split()
            if int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):  # no such folder here; "max"
            continue
