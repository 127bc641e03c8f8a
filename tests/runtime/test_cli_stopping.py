"""lpips-score: outputs that fail, signals, errors that nobody foresaw, and the bar."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from score_command import COMMAND, Run, command, full_disk

from lpips_runtime import Scorer, progress
from lpips_runtime.cli import main
from lpips_runtime.results import FORMATS
from lpips_runtime.resume import RESUMABLE

# Outputs that fail


@full_disk
@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk(run: Run, form: str) -> None:
    said = "cannot be written: No space left on device; rows safely written: 0\n"
    assert run("a.png", "b.png", "--format", form, "-o", "/dev/full") == (3, "", f"error: /dev/full: {said}")
    with open("/dev/full", "w") as full:
        ended = command("a.png", "b.png", "--format", form, stdout=full)
    assert (ended.returncode, ended.stderr) == (3, f"error: standard output: {said}")


@full_disk
def test_a_full_disk_for_info(here: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = command("--info", stdout=full)
    assert (ended.returncode, ended.stderr) == (
        3,
        "error: standard output: cannot be written: No space left on device\n",
    )


@full_disk
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stderr_costs_no_result(here: Path, unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        ended = command("a.png", "gone.png", "b.png", stderr=full, env=environment)
    assert (ended.returncode, ended.stdout.count("\n")) == (3, 1)


@pytest.mark.parametrize("closed", ["2>&-", "<&-"])
def test_closed_streams_cost_no_result(here: Path, distance: Callable[[str, str], str], closed: str) -> None:
    shell = ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "a.png", "b.png"]
    ended = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{distance('a.png', 'b.png')}\n", "")
    # What would be said of the failed pair must not end up among the results instead.
    ended = subprocess.run([*shell, "gone.png"], stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout.count("\n")) == (3, 1)


def test_a_closed_stdout_is_an_error(here: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "a.png", "b.png"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (
        3,
        "error: standard output: is closed; name a file for the results\n",
    )


@pytest.mark.parametrize("form", ["text", "csv", "jsonl"])
def test_a_reader_that_goes_away_ends_the_run_quietly(here: Path, quick_model: Path, form: str) -> None:
    distorted = ["b.png"] * 2000
    with subprocess.Popen(
        [*COMMAND, "-m", str(quick_model), "--format", form, "a.png", *distorted],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() != ""
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(60) == 128 + 13


# Stopping


def again(name: str, times: int) -> str:
    """Another path to the same file: a table may not repeat itself, and ./name is the same row as name."""
    return f"../{Path.cwd().name}/" * times + name


# All that was fed comes out while the table's reader waits for another row; the last of them fails.
DONE = 10


@pytest.fixture
def waiting(here: Path, quick_model: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command on a table that never ends; returns once its last pair so far, which fails, was reported."""
    running = []

    def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*COMMAND, "-m", str(quick_model), "--pairs", "-", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        running.append(process)
        assert process.stdin is not None
        assert process.stderr is not None
        names = [again("gone.png" if k == DONE else "b.png", k) for k in range(1, DONE + 1)]
        process.stdin.write("reference,distorted\n" + "".join(f"a.png,{name}\n" for name in names))
        process.stdin.flush()
        assert process.stderr.readline().startswith("error: a.png, ")
        time.sleep(0.1)  # until it waits for the next row
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("to_file", [False, True])
def test_a_run_that_is_stopped_keeps_its_rows(
    waiting: Callable[..., "subprocess.Popen[str]"], form: str, number: int, code: int, to_file: bool
) -> None:
    Path("out").write_text("old")
    process = waiting("--format", form, *(["-o", "out"] * to_file))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    resumable = to_file and form in RESUMABLE
    advice = "; the same command with --resume goes on after them" if resumable else ""
    assert (process.returncode, err) == (code, f"interrupted after {DONE} pairs{advice}\n")
    if to_file:
        assert out == ""
        out = Path("out").read_text()
    if form == "json":
        told = json.loads(out)
        assert told["summary"].items() >= {"count": DONE, "failed": 1, "complete": False}.items()
        assert len(told["results"]) == DONE
    else:
        assert len(out.splitlines()) == {"text": DONE - 1, "csv": DONE + 1, "jsonl": DONE}[form]
        assert out.endswith("\n")
    assert sorted(path.name for path in Path().iterdir()) == [
        "a.png",
        "b.png",
        "c.png",
        "out",
        *["out.job.crc32", "out.job.json"] * resumable,
    ]


def test_a_second_ctrl_c_ends_it_too(waiting: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = waiting()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)


def test_the_command_leaves_signals_as_they_were_and_runs_in_any_thread(run: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run("a.png", "a.png")[0] == 0
    assert signal.getsignal(signal.SIGTERM) is before
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["a.png", "a.png"])))
    thread.start()
    thread.join()
    assert codes == [0]


# Errors that nobody foresaw


@pytest.mark.parametrize("debug", [False, True])
def test_an_unforeseen_error_shows_a_traceback_only_on_request(
    run: Run, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(Scorer, "run", broken)
    code, out, err = run("a.png", "b.png", *["--debug"] * debug)
    assert (code, out) == (3, "")
    said = "error: unexpected ZeroDivisionError: first line\n"
    if debug:
        assert err.startswith("Traceback (most recent call last):\n")
        assert err.endswith(said)
    else:
        assert err == said + "please report it with the output of --debug\n"


def test_debug_keeps_the_exit_code_of_a_foreseen_error(run: Run) -> None:
    code, out, err = run("a.png", "b.png", "-m", "gone.onnx", "--debug")
    assert (code, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-1].startswith("error: gone.onnx: no such model; ")


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "x" * 5000])
def test_a_name_that_is_too_long_is_a_failed_pair(run: Run, name: str) -> None:
    for more in ([], ["-o", "out"], ["--heatmap", "h.png"]):
        code, out, err = run("a.png", name, *more)
        assert (code, out, err) == (3, "", f"error: a.png, {name}: {name}: cannot be read (File name too long)\n")


# The bar


def test_no_bar_on_a_pipe(waiting: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = waiting()
    time.sleep(0.6)
    out, err = process.communicate("a.png,c.png\n" * 3, timeout=60)
    assert process.returncode == 3
    assert "\r" not in out + err
    assert "\x1b" not in out + err


def on_terminal(arguments: Sequence[str], both: bool) -> tuple[bytes, bytes]:
    """Feed a table slowly to the command with stderr, or stdout too, on a terminal -> what came there, and stdout."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "70", "LINES": "24"}
    with subprocess.Popen(
        [*COMMAND, "--pairs", "-", *arguments],
        stdin=subprocess.PIPE,
        stdout=theirs if both else subprocess.PIPE,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(b"reference,distorted\n")
        for k in range(20):
            process.stdin.write(f"a.png,{again('b.png', k)}\n".encode())
            process.stdin.flush()
            if k == 0:  # until it is at work: pairs that wait for it are scored before the bar's time has come
                select.select([ours if process.stdout is None else process.stdout], [], [], 60)
            time.sleep(0.06)
        process.stdin.close()
        out = b"" if process.stdout is None else process.stdout.read()
        seen = b""
        while True:
            try:
                got = os.read(ours, 10_000)
            except OSError:  # Linux says so once the other end is closed
                break
            if not got:
                break
            seen += got
        os.close(ours)
        process.wait(60)
    return seen, out


def test_a_bar_on_a_terminal_that_vanishes(here: Path, quick_model: Path) -> None:
    seen, out = on_terminal(["-m", str(quick_model)], both=False)
    assert out.count(b"\n") == 20
    assert re.search(rb"\r\x1b\[K\d+ pairs, \d+\.\d/s", seen)
    last = seen.rpartition(b"\r\x1b[K")[2]
    # The note says what --split would save.
    assert re.fullmatch(rb"note: [^\r]+--split[^\r]+\r\nmean [\d.]+, median [\d.]+ over 20 pairs on cpu\r\n", last)


def test_rows_and_bar_share_a_terminal(here: Path, quick_model: Path) -> None:
    seen, _ = on_terminal(["-m", str(quick_model)], both=True)
    assert b" pairs, " in seen
    lines = [line.rpartition(b"\r\x1b[K")[2] for line in seen.split(b"\r\n")]
    assert lines.pop() == b""
    assert lines.pop().startswith(b"mean ")
    assert lines.pop().startswith(b"note: ")
    rows = [re.fullmatch(rb"[\d.]+\ta\.png\t(.*b\.png)", line) for line in lines]
    assert [row and row[1].decode() for row in rows] == [again("b.png", k) for k in range(20)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_what_the_bar_says(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = progress.ProgressBar(40)
    for _ in range(4):
        clock[0] += 0.1
        bar.advance()
    assert screen.getvalue() == ""
    for _ in range(6):
        clock[0] += 0.1
        bar.advance()
    assert screen.getvalue().rpartition("\r\x1b[K")[2] == "██████·················· 10/40, 10.0/s, 0:03 left"
    bar.clear()
    assert screen.getvalue().endswith("left\r\x1b[K")
    bar.advance()
    assert "11/40" in screen.getvalue().rpartition("\r\x1b[K")[2]


def test_the_bar_stays_on_one_line_of_a_narrow_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = progress.ProgressBar(10**6)
    clock[0] += 3600
    bar.advance()
    assert screen.getvalue() == "\r\x1b[K" + "·" * 24 + " 1/10"
