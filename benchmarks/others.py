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
        self._began, self._busy, self._own = time.monotonic(), self._all(), self._ours()

    def share(self) -> float | None:
        """Of all that the cores could do since then, what others had, 0 to 1; None where the system does not say.

        What a hypervisor gave to other machines counts. See proc_stat(5) and proc_pid_stat(5): both count in hundredths
        of a second, as a rule, so that little can be said of less than a second.
        """
        now = self._all()
        if self._busy is None or now is None:
            return None
        cores = os.cpu_count() or 1
        others = now - self._busy - (self._ours() - self._own)
        return min(1.0, max(0.0, others / (cores * (time.monotonic() - self._began))))

    def _all(self) -> float | None:
        """Seconds of all cores that were not idle: user, nice, system, irq, softirq, steal."""
        with suppress(OSError, ValueError, IndexError):
            times = list(map(int, (self._proc / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]))
            user, nice, system, _idle, _iowait, irq, softirq, steal = times[:8]
            return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return None

    def _ours(self) -> float:
        """Seconds of these processes, that of their ended children included."""
        total = 0
        for pid in self._pids:
            # One that has ended took no more.
            with suppress(OSError, ValueError):
                said = (self._proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
                total += sum(map(int, said.rpartition(")")[2].split()[11:15]))
        return total / os.sysconf("SC_CLK_TCK") if total else 0.0
