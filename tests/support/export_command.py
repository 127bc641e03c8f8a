"""How the tests run lpips-export."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lpips_export import cli

Exported = Callable[..., list[Path]]


Backbones = Callable[[str], Path]


class Call:
    """Runs the command in this process: exit code, stdout and stderr of the last call."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code

    @property
    def error(self) -> str:
        """What stderr ends with, from the line that begins with `error:`."""
        return self.err[self.err.index("error: ") :].removesuffix("\n")
