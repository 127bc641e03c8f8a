"""Where results go: files whole or as far as they got, standard output as one of them."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from score_command import full_after

from lpips_runtime.errors import OutputError
from lpips_runtime.output import open_output, replacing
from lpips_runtime.results import FORMATS, Result, Summary

PROVENANCE = {"model": {"net": "alex", "version": "0.1"}, "runtime": {"provider": "cpu", "threads": 2}}
GOOD = Result("a.png", "b.png", 0.72190344, layers=(0.5, 0.2219034433364868))
BAD = Result("a.png", "c.png", None, error="c.png: not an image")


full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110


def write(form: str, *results: Result, complete: bool = True, **options: Any) -> str:
    stream, summary = io.StringIO(newline=""), Summary()
    writer = FORMATS[form](stream, provenance=PROVENANCE, **options)
    for result in results:
        writer.write(result)
        summary.add(result)
    writer.finish(summary, complete)
    return stream.getvalue()


@pytest.mark.parametrize("form", [form for form in FORMATS if not FORMATS[form].atomic])
def test_each_row_is_on_disk_before_the_next(tmp_path: Path, form: str) -> None:
    path = tmp_path / "out"
    with open_output(path) as stream:
        writer = FORMATS[form](stream)
        header = path.read_text("utf-8").count("\n")
        for rows in range(1, 4):
            writer.write(GOOD)
            assert path.read_text("utf-8").count("\n") == rows + header
            assert writer.rows == rows


def test_a_plain_text_file_is_flushed_with_every_row(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="utf-8") as stream:
        FORMATS["text"](stream).write(GOOD)
        assert (tmp_path / "out").read_text() == "0.72190344\ta.png\tb.png\n"


def test_files_are_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path) as stream:
        FORMATS["csv"](stream).write(Result("é", "b", 0.5))
    assert path.read_bytes() == "reference,distorted,distance,error\né,b,0.5,\n".encode()


def test_a_file_can_be_continued(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path) as stream:
        FORMATS["csv"](stream).write(GOOD)
    with open_output(path, append=True) as stream:
        FORMATS["csv"](stream, resumed=True).write(BAD)
    assert path.read_text() == write("csv", GOOD, BAD)
    with open_output(path) as stream:
        FORMATS["csv"](stream).write(BAD)
    assert path.read_text() == write("csv", BAD)


def test_json_replaces_its_file_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with open_output(path, atomic=FORMATS["json"].atomic) as stream:
        writer = FORMATS["json"](stream, provenance=PROVENANCE)
        writer.write(GOOD)
        writer.finish(Summary())
        assert path.read_text() == "old"
    assert json.loads(path.read_text())["results"][0]["distance"] == 0.72190344
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_before_the_end_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def run() -> None:
        with open_output(path, atomic=True) as stream:
            FORMATS["json"](stream).write(GOOD)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_run_that_finished_its_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "out.json"

    def run() -> None:
        with open_output(path, atomic=True) as stream:
            writer = FORMATS["json"](stream)
            writer.write(GOOD)
            try:
                raise KeyboardInterrupt
            finally:
                writer.finish(Summary(), complete=False)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert json.loads(path.read_text())["summary"]["complete"] is False


def test_replacing_follows_links_and_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("real/file.json")
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "real/file.json").read_bytes() == b"new"
    assert list((tmp_path / "real").iterdir()) == [tmp_path / "real/file.json"]


def test_a_pipe_is_written_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with open_output(pipe, atomic=True) as stream:
            stream.write("text")
        assert pipe.is_fifo()
        assert os.read(reading, 99) == b"text"
    finally:
        os.close(reading)


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere/out", "cannot be written: its folder does not exist; create it first"),
        (".", "cannot be written: it is a folder; name a file in it"),
        ("file/out", "cannot be written: Not a directory"),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str, words: str, atomic: bool) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(OutputError, match=words) as caught, open_output(path, atomic=atomic):
        pytest.fail("opened")
    assert str(caught.value).startswith(f"{path}: ")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_is_an_error_that_says_what_is_safe(tmp_path: Path, form: str) -> None:
    path = tmp_path / "out"
    path.write_text("old")

    def run() -> None:
        with full_after(200), open_output(path, atomic=FORMATS[form].atomic) as stream:
            writer = FORMATS[form](stream)
            for _ in range(20):
                writer.write(GOOD)
            writer.finish(Summary())

    with pytest.raises(OutputError) as caught:
        run()
    message, _, safe = str(caught.value).rpartition(": ")
    assert message == f"{path}: cannot be written: File too large; rows safely written"
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert int(safe) == len(lines) - (form == "csv")
    assert (path.read_text() == "old") == (form == "json")
    assert list(tmp_path.iterdir()) == [path]


def test_rows_before_a_failure_are_counted() -> None:
    class Filling(io.StringIO):
        def write(self, text: str, /) -> int:
            if self.tell() > 60:
                raise OSError(28, "No space left on device")
            return super().write(text)

    writer = FORMATS["text"](Filling())
    for _ in range(3):
        writer.write(GOOD)
    with pytest.raises(OutputError, match=r"^the output: .*; rows safely written: 3$"):
        writer.write(GOOD)


def test_other_errors_of_the_block_pass_unchanged(tmp_path: Path) -> None:
    for atomic in (False, True):
        with pytest.raises(FileNotFoundError, match="mine"), open_output(tmp_path / "x", atomic=atomic):
            raise FileNotFoundError("mine")


# Standard output


def test_standard_output_takes_its_turn_and_stays_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print("before")
    with open_output(None) as stream:
        FORMATS["text"](stream).write(Result("é\udce9", "b", 0.5))
    print("after")
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == "before\n0.5\té\\udce9\tb\nafter\n".encode()


def test_a_standard_output_without_bytes() -> None:
    with redirect_stdout(io.StringIO()) as screen, open_output(None) as stream:
        FORMATS["text"](stream).write(GOOD)
    assert screen.getvalue() == "0.72190344\ta.png\tb.png\n"


def test_a_closed_standard_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="standard output: is closed"), open_output(None):
        pytest.fail("opened")


SCRIPT = """
import sys
from lpips_runtime.errors import OutputError
from lpips_runtime.output import open_output
from lpips_runtime.results import FORMATS, Result
try:
    with open_output(None) as stream:
        writer = FORMATS["text"](stream)
        for _ in range(100_000):
            writer.write(Result("é", "b", 0.5))
except (OutputError, BrokenPipeError) as error:
    sys.stderr.write(f"{type(error).__name__}: {error}")
    sys.exit(3)
"""


class Sipping(io.BytesIO):
    def write(self, data: Any, /) -> int:
        return super().write(data[:3])


def test_a_standard_output_that_takes_little_at_a_time_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Sipping()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(taken))
    with open_output(None) as stream:
        FORMATS["text"](stream).write(GOOD)
    assert taken.getvalue() == b"0.72190344\ta.png\tb.png\n"


UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"])


@full_disk
@UNBUFFERED
def test_a_full_standard_output_ends_cleanly(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            check=False,
        )
    assert ended.stderr == (
        "OutputError: standard output: cannot be written: No space left on device; rows safely written: 0"
    )
    assert ended.returncode == 3


@UNBUFFERED
def test_a_reader_that_has_gone_is_a_broken_pipe(unbuffered: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What is written is UTF-8, whatever the terminal takes.
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": unbuffered},
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "0.5\té\tb\n".encode()
        running.stdout.close()
        assert running.stderr.read() == b"BrokenPipeError: [Errno 32] Broken pipe"
    assert running.returncode == 3


def test_a_kill_loses_no_row(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    script = """
import os, sys
from lpips_runtime.output import open_output
from lpips_runtime.results import FORMATS, Result
with open_output(sys.argv[1]) as stream:
    writer = FORMATS["jsonl"](stream)
    for number in range(5):
        writer.write(Result("a", str(number), 0.5))
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
    assert [json.loads(line)["distorted"] for line in path.read_text().splitlines()] == list("01234")
