"""What latency and scaling share: options that no run can have, and a run that is stopped and goes on."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import cells, runs
from benchmarks.__main__ import main
from benchmarks.job import Job
from benchmarks.schema import read_report
from benchmarks.turns import Turns, peak_bytes
from lpips_runtime import Scorer, __version__


@pytest.fixture
def model(exported: Callable[..., list[Path]]) -> str:
    return str(exported(net="alex", split=True)[0])


@pytest.fixture
def call(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of three steps, each of one subject, in an empty folder."""
    monkeypatch.setattr(runs, "limits", lambda _: {"float32": 100.0})
    sizes = ["--sizes", "48x48", "64x64", "80x80", "--batch", "1", "--subjects", "ours"]
    return ["latency", model, *sizes, "--rounds", "1", "--threads", "1", "-o", str(tmp_path / "r.json")]


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Measures without processes; a width at which Ctrl-C is pressed, and the seconds of a call -> the widths that
    subjects are asked for."""

    def at(width: int = 0, seconds: float = 0.01) -> list[int]:
        asked: list[int] = []

        def turns(of: Mapping[str, tuple[str, Job]], *_: object) -> dict[str, Turns]:
            found = {}
            for name, (_subject, job) in of.items():
                asked.append(job.side)
                if job.side == width:
                    raise KeyboardInterrupt
                found[name] = Turns(
                    [seconds], [seconds] * 4, 4, np.array([job.side / 1000]), started=1.0, peak=10**8, others=0.0
                )
            return found

        monkeypatch.setattr(cells, "take_turns", turns)
        return asked

    return at


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a call that is wrong."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_stopped_run_leaves_no_report_and_goes_on_where_it_was(
    call: list[str], stop: Callable[..., list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = stop(64)
    assert main(call) == 130
    assert asked == [48, 64]
    assert [path.name for path in tmp_path.iterdir()] == [".r.json.unfinished"]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-2:] == [
        f"steps measured so far: 1, kept in {tmp_path / '.r.json.unfinished'}; the same command goes on after them",
        "interrupted",
    ]
    asked = stop()
    assert main(call) == 0
    assert asked == [64, 80]
    assert "1/3 alex, 1 x 48x48: was measured before this run was stopped" in capsys.readouterr().err
    report = read_report(tmp_path / "r.json")
    assert [cell.get("distance") for cell in report["cells"]] == [0.048, 0.064, 0.08]
    assert report["arguments"] == call[1:]
    assert not (tmp_path / ".r.json.unfinished").exists()


def test_run_that_goes_on_predicts_as_one_that_was_not_stopped(
    call: list[str], stop: Callable[..., list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(seconds=100.0)
    assert main(call) == 0
    expected = read_report(tmp_path / "r.json")["cells"]
    assert [cell["state"] for cell in expected] == ["measured", "not run", "not run"]
    steps = iter([cells.measure])  # of a second one there is none
    with monkeypatch.context() as patch:
        patch.setattr(runs, "measure", lambda *of: next(steps, _interrupted)(*of))
        assert main(call) == 130
    asked = stop()
    assert main(call) == 0
    assert asked == []
    assert read_report(tmp_path / "r.json")["cells"] == expected


def _interrupted(*_: object) -> Any:
    raise KeyboardInterrupt


def test_another_call_does_not_go_on_with_it(
    call: list[str], stop: Callable[..., list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    stop(64)
    assert main(call) == 130
    capsys.readouterr()
    assert "was left by another call, machine or version" in _refused([*call, "--budget", "1min"], capsys)
    asked = stop()
    assert main(call) == 0
    assert asked == [64, 80]


def test_report_that_cannot_be_written_keeps_what_was_measured(
    call: list[str],
    stop: Callable[..., list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    stop()
    with monkeypatch.context() as patch:
        patch.setattr("lpips_runtime.output._Utf8.write", full)
        assert main(call) == 3
    assert capsys.readouterr().err.endswith(
        f"error: {tmp_path / 'r.json'}: cannot be written: No space left on device\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [".r.json.unfinished"]
    asked = stop()
    assert main(call) == 0
    assert asked == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-o", "no-such-folder/r.json"], "-o no-such-folder/r.json: no such folder: no-such-folder"),
        (["-o", "r.txt"], "-o r.txt: a report is a file that ends in .json"),
        (["--rounds", "0"], "--rounds and --threads must be at least 1"),
        (["--threads", "-1"], "--rounds and --threads must be at least 1"),
        (["--within", "soon"], "--within soon: give a time, as 90s or 9min"),
        (["--budget", "lots"], "--budget lots: 'lots' is neither a time, as 90s, nor a size, as 8GB"),
    ],
)
@pytest.mark.parametrize("command", ["latency", "scaling"])
def test_what_no_run_can_have_is_refused_in_a_line(
    command: str, options: list[str], reason: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _refused([command, model, "-o", str(tmp_path / "r.json"), *options], capsys) == f"error: {reason}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["latency", "scaling"])
def test_models_that_are_not_the_float32_one_of_a_net_each_are_refused(
    command: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["-o", str(tmp_path / "r.json")]
    (tmp_path / "folder.json").mkdir()
    assert "is a file that ends in .json" in _refused([command, model, "-o", str(tmp_path / "folder.json")], capsys)
    assert "no such model" in _refused([command, "missing.onnx", *output], capsys)
    assert _refused([command, model, model, *output], capsys) == "error: name one model of a net, and nothing twice"
    monkeypatch.chdir(tmp_path)
    assert "artifacts/ holds no float32 model; export one" in _refused([command, *output], capsys)
    with Scorer(model, provider="cpu") as scorer:
        int8 = replace(scorer.info, precision="int8")
    monkeypatch.setattr(Scorer, "info", int8, raising=False)
    said = _refused([command, model, *output], capsys)
    assert said == f"error: {model}: give the float32 model; the others are found beside it"
    assert [path.name for path in tmp_path.iterdir()] == ["folder.json"]


def test_what_would_pass_the_time_of_the_run_is_not_run(
    call: list[str], stop: Callable[..., list[int]], tmp_path: Path
) -> None:
    asked = stop()
    for within in ("1s", "0s"):
        assert main([*call, "--within", within]) == 1
    assert asked == []
    cells = read_report(tmp_path / "r.json")["cells"]
    assert [cell["state"] for cell in cells] == ["not run"] * 3
    assert all("s that --within leaves" in cell["why"] for cell in cells)
    assert main([*call, "--within", "9min"]) == 0
    assert asked == [48, 64, 80]


def test_a_run_in_which_nothing_was_measured_says_so_and_fails(
    call: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cells, "take_turns", lambda of, *_: {name: Turns(absent="not installed") for name in of})
    assert main(call) == 1
    said = capsys.readouterr()
    assert said.err.endswith(f"{tmp_path / 'r.json'}: nothing was measured; it says of each subject why\n")
    assert {cell["why"] for cell in read_report(tmp_path / "r.json")["cells"]} == {"not installed"}
    assert not (tmp_path / ".r.json.unfinished").exists()


def test_a_report_names_the_project_and_its_models(
    call: list[str], stop: Callable[..., list[int]], tmp_path: Path, model: str
) -> None:
    stop()
    assert main(call) == 0
    report = read_report(tmp_path / "r.json")
    assert report["project"]["version"] == __version__
    assert report["models"] == {Path(model).name: hashlib.sha256(Path(model).read_bytes()).hexdigest()}


def test_a_busy_machine_is_noted(
    call: list[str], stop: Callable[..., list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop()
    for load, notes in ((0.4, 0), (1.26, 1)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 9.0, 9.0), raising=False)
        assert main(call) == 0
        report: Any = read_report(tmp_path / "r.json")
        noted = f"this run began {report['date']}, after a minute with a load of 1.3"
        assert [note for note in report["notes"] if "a load" in note] == [noted] * notes


def test_a_run_in_pieces_says_so_and_what_the_machine_had_to_do_in_each(
    call: list[str], stop: Callable[..., list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (7.7, 9.0, 9.0), raising=False)
    stop(64)
    assert main(call) == 130
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 9.0, 9.0), raising=False)
    stop()
    assert main(call) == 0
    report = read_report(tmp_path / "r.json")
    today = report["date"]
    assert report["notes"][0] == (
        f"this run was stopped and went on; it began {today}, after a minute with a load of 7.7; {today}"
    )


def test_limits_are_measured_before_and_after_and_the_best_count(
    call: list[str], stop: Callable[..., list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop()
    rates = iter([100.0, 300.0])
    monkeypatch.setattr(runs, "limits", lambda _: {"float32": next(rates)})
    assert main(call) == 0
    report: Any = read_report(tmp_path / "r.json")
    assert report["limits"] == {"float32": 300.0}
    assert "products of matrices, GFLOP/s before and after, differ: float32 100 and 300" in report["notes"]
    assert list(rates) == []


def test_a_page_that_somebody_wrote_is_in_the_way_before_anything_is_measured(
    call: list[str], stop: Callable[..., list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = stop()
    (tmp_path / "r.md").write_bytes(b"\xff my own words")
    assert "was not made from a report and is left alone" in _refused(call, capsys)
    assert asked == []


def test_peak_of_memory_grows_with_what_is_held_and_does_not_fall() -> None:
    before = peak_bytes()
    held = bytearray(b"x" * 300_000_000)
    during = peak_bytes()
    del held
    assert during >= 300_000_000
    assert during >= before
    assert peak_bytes() >= during


def test_everything_that_is_measured_belongs_to_the_call(
    call: list[str], stop: Callable[..., list[int]], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run that goes on with another INT8 than it began with, half would be of each."""
    beside = Path(shutil.copy(model, tmp_path / "lpips_alex_fp32.onnx"))
    int8 = tmp_path / "lpips_alex_int8.onnx"
    int8.write_bytes(b"one")
    both = [call[0], str(beside), *call[2:]]
    both[both.index("ours")] = "int8"
    stop(64)
    assert main(both) == 130
    int8.write_bytes(b"other")
    capsys.readouterr()
    assert "was left by another call, machine or version" in _refused(both, capsys)
    int8.write_bytes(b"one")
    stop()
    assert main(both) == 0
    assert set(read_report(tmp_path / "r.json")["models"]) == {"lpips_alex_fp32.onnx", "lpips_alex_int8.onnx"}
