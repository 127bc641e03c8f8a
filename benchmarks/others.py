"""How much of the machine others had while something was measured: other work does not slow all subjects alike."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["Others"]

_PROC = Path("/proc")


class Others:
    """Begins to look when it is made. pids: processes whose work is not that of others; this one's is not either."""

    def __init__(self, pids: Iterable[int], proc: Path = _PROC) -> None:
        self._pids, self._proc = [os.getpid(), *pids], proc
        self._cores = (
            {f"cpu{number}" for number in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else set()
        )
        self._began, self._busy, self._own = time.monotonic(), self._all(), self._ours()

    def share(self) -> float | None:
        """Of all that the cores which this process may use could do since then, what others had, 0 to 1; None where the
        system does not say.

        What a hypervisor gave to other machines counts. See proc_stat(5) and proc_pid_stat(5): both count in hundredths
        of a second, as a rule, so that little can be said of less than a second.
        """
        now = self._all()
        if self._busy is None or now is None:
            return None
        others = now - self._busy - (self._ours() - self._own)
        return min(1.0, max(0.0, others / (len(self._cores) * (time.monotonic() - self._began))))

    def _all(self) -> float | None:
        """Seconds of these cores that were not idle: user, nice, system, irq, softirq, steal."""
        total, found = 0, 0
        with suppress(OSError, ValueError):
            for line in (self._proc / "stat").read_text(encoding="ascii").splitlines():
                name, *rest = line.split()
                if name in self._cores:
                    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, rest[:8])
                    total, found = total + user + nice + system + irq + softirq + steal, found + 1
        return total / os.sysconf("SC_CLK_TCK") if found == len(self._cores) > 0 else None

    def _ours(self) -> float:
        """Seconds of these processes, that of their ended children included."""
        total = 0
        for pid in self._pids:
            # One that has ended took no more.
            with suppress(OSError, ValueError):
                said = (self._proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
                total += sum(map(int, said.rpartition(")")[2].split()[11:15]))
        return total / os.sysconf("SC_CLK_TCK") if total else 0.0
