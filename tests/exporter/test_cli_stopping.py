"""lpips-export: signals, errors that nobody foresaw, progress."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from export_command import Call

from lpips_export import export, spec
from lpips_export.console import ConsoleProgress
from lpips_export.errors import SpecError, StructureError, ValidationError
from lpips_export.progress import Advance, Progress

# --- what nobody expects


def raising(error: BaseException) -> Callable[..., None]:
    def work(*arguments: object, **options: object) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("first line\nsecond line"), "unexpected RuntimeError: first line"),
        (MemoryError(), "unexpected MemoryError: no message"),
    ],
)
def test_an_unexpected_error_is_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    monkeypatch.setattr(export, "export", raising(error))
    assert call() == 3
    assert (call.out, call.error) == ("", f"error: {line}; please report it with the output of --debug")
    assert "Traceback" not in call.err


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("x"), 3), (SpecError("x"), 2)])
def test_debug_adds_the_traceback_and_leaves_the_exit_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    monkeypatch.setattr(export, "export", raising(error))
    assert call() == code
    short = call.error
    assert call("--debug") == code
    assert "Traceback (most recent call last)" in call.err
    assert Path(__file__).name in call.err
    assert call.error == short


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("became", [None, ImportError("initialization failed")])
def test_an_interrupt_is_one_line_whatever_error_it_became(
    call: Call, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, became: Exception | None
) -> None:
    """An extension module that is being imported turns KeyboardInterrupt into ImportError."""

    def interrupted(*arguments: object, **options: object) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if became:
                raise became from None
            raise

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(export, "export", interrupted)
    assert call() == 128 + number
    assert call.out == ""
    assert re.fullmatch(r"loading PyTorch: [\d.]+ s\ninterrupted; nothing was published\n", call.err)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_interrupt_after_something_was_published_does_not_deny_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(spec: object, output_dir: Path, **options: object) -> None:
        output_dir.mkdir()
        (output_dir / "lpips_alex_fp32.onnx.json").touch()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(export, "export", interrupted)
    assert call("--output-dir", tmp_path / "out") == 130
    assert call.err.endswith(" s\ninterrupted\n")


def test_an_interrupted_check_speaks_of_no_publishing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "check", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    assert call("--check", "alex") == 130
    assert call.err.endswith(" s\ninterrupted\n")


@pytest.mark.parametrize("error", [ValidationError("off by 1"), StructureError("off by 1")])
def test_a_proof_that_fails_names_the_graph_and_says_that_nothing_was_published(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(spec: object, output_dir: Path, *, progress: Progress, **options: object) -> None:
        with progress.stage("tracing lpips_alex_fp32.onnx"):
            pass
        with progress.stage("validating lpips_alex_fp32.onnx"):
            raise error

    monkeypatch.setattr(export, "export", failing)
    assert call() == 1
    assert call.error == "error: validating lpips_alex_fp32.onnx: off by 1; nothing was published"


def test_a_signal_that_is_ignored_stays_ignored(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def undisturbed(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise SpecError("came to its end")

    monkeypatch.setattr(export, "export", undisturbed)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert call() == 2
    finally:
        signal.signal(signal.SIGINT, before)
    assert call.error == "error: came to its end"


def test_a_missing_onnxruntime_is_said_before_the_work(call: Call, monkeypatch: pytest.MonkeyPatch, own: list) -> None:
    from lpips_runtime import providers

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    providers.onnxruntime.cache_clear()
    try:
        assert call(*own) == 3
    finally:
        providers.onnxruntime.cache_clear()
    assert call.error.startswith("error: no ONNX Runtime is installed; install exactly one of the extras: ")
    assert "tracing" not in call.err
    assert "backbone" not in call.err.replace(call.error, "")


# --- progress


def test_no_live_display_is_open_while_weights_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Downloads draw bars of their own on the same terminal."""
    open_stages: list[str] = []

    class Recording(Progress):
        @contextmanager
        def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
            open_stages.append(title)
            try:
                yield lambda: None
            finally:
                open_stages.remove(title)

    class LoadedError(Exception):
        pass

    def load(*arguments: object, **options: object) -> None:
        assert open_stages == []
        raise LoadedError

    monkeypatch.setattr(export, "load_backbone", load)
    with pytest.raises(LoadedError):
        export.export(spec.ExportSpec(), tmp_path, progress=Recording())


def test_without_a_terminal_a_finished_stage_is_one_line_and_a_failed_one_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = ConsoleProgress()
    with progress.stage("counting", 2) as advance:
        advance()
        advance()
    with pytest.raises(KeyError), progress.stage("failing"):
        raise KeyError
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"counting: \d+\.\d s\n", err)


def test_a_note_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    note = f"[bold]{'a/long/path/' * 20}:smile: 1.5 'quoted' [/]"
    ConsoleProgress().note(note)
    assert capsys.readouterr().err == f"{note}\n"


def test_on_a_terminal_a_bar_comes_and_goes_and_the_cursor_stays() -> None:
    pty = pytest.importorskip("pty")
    code = (
        "import time\n"
        "from lpips_export.console import ConsoleProgress\n"
        "progress = ConsoleProgress()\n"
        "with progress.stage('counting', 3) as advance:\n"
        "    advance(); time.sleep(0.3)\n"
        "    progress.note('a note')\n"
        "print('the result')\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment, check=True)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # Linux's way of saying that the other end is closed
        pass
    os.close(ours)
    text = seen.decode()
    assert "counting" in text
    assert "1/3" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden and shown again"
    # What is left once escapes, and lines that were drawn over, are gone.
    lines = [re.split(r"\x1b\[2K|\r", line.removesuffix("\r"))[-1] for line in text.split("\n")]
    left = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in lines]
    assert "a note" in left
    assert left[-2:] == ["the result", ""]
    assert re.fullmatch(r"counting: \d+\.\d s", left[-3])
