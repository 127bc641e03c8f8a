"""The entry point of lpips-score."""

import subprocess
import sys

import pytest

from lpips_runtime import __main__ as entry
from lpips_runtime import __version__


def test_the_package_is_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "lpips_runtime", "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"lpips-score {__version__}\n"


def test_an_interrupt_during_the_imports_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "lpips_runtime.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "lpips_runtime.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert entry.main() == 130
