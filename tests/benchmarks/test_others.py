"""What others had of the machine: from files as Linux writes them, and from a process that keeps a core busy."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import others
from benchmarks.others import Others


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Of which this process may use cores 0, 2, 5 and 9: seconds on the clock, of these cores together and of process
    7, which has a name that hurts to read."""
    monkeypatch.setattr("os.sysconf", lambda _: 100, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 5, 9}, raising=False)
    monkeypatch.setattr("os.getpid", lambda: 1)
    (tmp_path / "7").mkdir()

    def at(clock: float, busy: float, own: float) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: clock)
        # A fifth of it in each of user, nice, system, softirq and steal; nothing of the time without work counts.
        part = int(busy * 5)
        cores = "".join(f"cpu{n} {part} {part} {part} 999999 777 0 {part} {part} 5 5\n" for n in (0, 2, 5, 9))
        # What is done on a core that this process may not use is in nobody's way.
        elsewhere = f"cpu1 {int(clock * 100)} 0 0 0 0 0 0 0 0 0\n"
        (tmp_path / "stat").write_text(f"cpu  1 1 1 1 1 1 1 1 1 1\n{elsewhere}{cores}intr 5\n")
        ticks = int(own * 25)
        rest = " ".join(["0"] * 10)
        (tmp_path / "7" / "stat").write_text(f"7 (a) b (c) S {rest} {ticks} {ticks} {ticks} {ticks} 20 0")

    return at


def test_others_have_what_was_spent_and_not_by_us(machine: Callable[..., None], tmp_path: Path) -> None:
    machine(100, busy=50, own=10)
    watch = Others([7], tmp_path)
    machine(110, busy=80, own=30)
    # Ten seconds of four cores; thirty were spent, twenty of them by process 7.
    assert watch.share() == pytest.approx(10 / 40)


def test_what_is_ours_alone_is_nobody_elses(machine: Callable[..., None], tmp_path: Path) -> None:
    machine(100, busy=50, own=10)
    watch = Others([7], tmp_path)
    machine(110, busy=70, own=30.4)
    assert watch.share() == 0


@pytest.mark.parametrize("content", [None, "", "cpu", "cpu0 a b c d e f g h", "intr 5", "cpu0 1 1 1 1 1 1 1 1"])
def test_where_the_system_does_not_say_nothing_is_known(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    if content is not None:
        (tmp_path / "stat").write_text(content)
    assert Others([], tmp_path).share() is None


def _spinning() -> Iterator[subprocess.Popen]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


spinning = pytest.fixture(_spinning)


@pytest.mark.skipif(not (others._PROC / "stat").exists(), reason="needs Linux's /proc/stat")
def test_a_process_that_keeps_a_core_busy_is_other_work_unless_it_is_ours(spinning: subprocess.Popen) -> None:
    time.sleep(0.2)
    alone, ours = Others([]), Others([spinning.pid])
    time.sleep(1.0)
    shares = alone.share(), ours.share()
    assert shares[0] is not None
    assert shares[1] is not None
    # It had some of a core however much else there is to do; what else there is counts in both.
    assert shares[0] - shares[1] > 0.02
