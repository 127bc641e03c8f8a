"""benchmarks.beside: an encoder that does not encode is said, and no table is printed."""

import sys
from pathlib import Path

import pytest

from benchmarks import beside

# Says how many frames it has encoded, until a file named `end` appears beside it.
_FFMPEG = """#!{python}
import pathlib, sys, time
frames = 0
while not (pathlib.Path(__file__).parent / "end").exists():
    frames += 1
    print(f"frame={{frames}}", flush=True)
    time.sleep(0.01)
sys.exit("Unknown\\nencoder 'libx264'")
"""

_ARGUMENTS = ["model.onnx", "--rounds", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ffmpeg is; nothing is scored beside it."""
    program = tmp_path / "ffmpeg"
    program.write_text(_FFMPEG.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(beside, "WINDOW", 0.3)
    monkeypatch.setattr(beside, "BESIDE", {})
    return tmp_path


def test_an_encoder_that_encodes_is_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert beside.main(_ARGUMENTS) == 0
    assert "beside x264, 1 rounds" in capsys.readouterr().out


@pytest.mark.parametrize("when", ["at once", "later"])
def test_one_that_ends_is_an_error(
    when: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if when == "at once":
        (folder / "end").touch()
    else:  # when the workers are started, the encoder is at work
        monkeypatch.setattr(beside, "workers", lambda *_: (folder / "end").touch() or {})
    assert beside.main(_ARGUMENTS) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: ffmpeg ended with exit code 1: Unknown encoder 'libx264'; it must be able to encode with libx264\n"
    )


def test_one_that_does_not_begin_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "ffmpeg").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    monkeypatch.setattr(beside, "BEGINNING", 0.2)
    assert beside.main(_ARGUMENTS) == 3
    assert "has encoded nothing" in capsys.readouterr().err
