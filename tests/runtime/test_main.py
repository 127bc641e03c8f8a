"""The entry point of lpips-score."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from score_command import command

from lpips_runtime import __main__ as entry
from lpips_runtime import __version__


def test_the_package_is_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "lpips_runtime", "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"lpips-score {__version__}\n"


@pytest.mark.parametrize("hidden", [False, True])
def test_an_interrupt_during_the_imports_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, hidden: bool) -> None:
    class Interrupted:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "lpips_runtime.cli":
                try:
                    raise KeyboardInterrupt
                except KeyboardInterrupt as error:
                    if hidden:
                        raise ImportError("it could not be initialised") from error
                    raise

    monkeypatch.delitem(sys.modules, "lpips_runtime.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert entry.main() == 130


@pytest.mark.parametrize(
    ("raised", "code"), [("KeyboardInterrupt", 130), ("SystemExit(143)", 143), ("OSError('lost')", 3)]
)
@pytest.mark.parametrize("how", ["from error", ""])
def test_a_signal_that_meets_the_import_of_onnx_runtime_is_no_missing_library(
    here: Path, quick_model: Path, raised: str, code: int, how: str
) -> None:
    """Extensions in C turn what stops their import into an ImportError."""
    text = f"try:\n    raise {raised}\nexcept BaseException as error:\n    raise ImportError('DLL load failed') {how}\n"
    Path("stand-in").mkdir()
    Path("stand-in/onnxruntime.py").write_text(text)
    path = os.pathsep.join(("stand-in", *filter(None, sys.path)))
    ended = command("-m", quick_model, "a.png", "b.png", env={**os.environ, "PYTHONPATH": path})
    assert (ended.returncode, ended.stdout) == (code, "")
    if code == 3:
        assert ended.stderr.startswith("error: no ONNX Runtime is installed; ")
    else:
        assert ended.stderr == ""
