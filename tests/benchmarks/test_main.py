"""The one command: what it lists, and what becomes of errors."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import benchmarks
from benchmarks.__main__ import COMMANDS, main
from lpips_runtime.errors import ModelNotFoundError


def test_every_module_that_has_a_main_is_a_command() -> None:
    modules = [name for _, name, _ in pkgutil.iter_modules(benchmarks.__path__) if name != "__main__"]
    assert {name for name in modules if hasattr(importlib.import_module(f"benchmarks.{name}"), "main")} == set(COMMANDS)


def test_help_has_a_line_for_each_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name, what in COMMANDS.items():
        assert [line for line in lines if line.split() == [name, *what.split()]]
        assert all(len(line) <= 100 for line in lines)
    code = "import sys; from benchmarks.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    check = "sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code + check], check=False, stdout=subprocess.PIPE).returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m benchmarks {name} ")


@pytest.mark.parametrize("arguments", [[], ["slower"]])
def test_no_such_command_is_a_wrong_call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["accuracy", "throughput", "providers", "reuse", "speed"])
def test_model_that_is_missing_ends_with_the_code_of_its_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "missing.onnx"]) == ModelNotFoundError.exit_code
    assert "missing.onnx" in capsys.readouterr().err


def test_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.accuracy.main", interrupted)
    assert main(["accuracy"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_what_nobody_foresaw_does_not_end_as_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 is that of `compare` for "not the same", of `report --check` for "stale"."""

    def broken(_: object) -> int:
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr("benchmarks.report.main", broken)
    assert main(["report"]) == 3
    assert capsys.readouterr().err.endswith("ZeroDivisionError: by chance\n")
