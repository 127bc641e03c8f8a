"""`report`: what lies beside a report is made from it, and what is not any more is found."""

from pathlib import Path
from typing import Any

import made_up
import pytest

from benchmarks import report as command
from benchmarks.__main__ import main
from benchmarks.report import stale
from benchmarks.schema import write_report


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A report of one net, since pictures take time."""
    report: Any = made_up.latency()
    report["cells"] = [cell for cell in report["cells"] if cell["net"] == "squeeze"]
    write_report(tmp_path / "cpu.json", report)
    return tmp_path / "cpu.json"


def test_document_and_pictures_are_made_and_then_nothing_is_stale(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["cpu-error.png", "cpu-latency.png", "cpu.json", "cpu.md"]
    assert main(["report", "--check", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("is missing" in line and line.endswith(f"; python -m benchmarks report {path}") for line in lines)
    assert [each.name for each in path.parent.iterdir()] == ["cpu.json"]
    assert main(["report", str(path)]) == 0
    assert sorted(each.name for each in path.parent.iterdir()) == names
    assert "![Latency by subject](cpu-latency.png)" in path.with_suffix(".md").read_text()
    capsys.readouterr()
    assert main(["report", "--check", str(path)]) == 0
    assert capsys.readouterr().out == ""


def test_another_report_makes_all_of_it_stale(path: Path) -> None:
    assert main(["report", str(path)]) == 0
    report: Any = command.read_report(path)
    report["cells"][0]["ms"]["p50"] *= 1.5
    write_report(path, report)
    assert [line.split(": ")[1] for line in stale(path)] == ["is stale"] * 3


def test_a_document_that_was_edited_is_stale(path: Path) -> None:
    assert main(["report", str(path)]) == 0
    document = path.with_suffix(".md")
    document.write_text(document.read_text().replace("256x256", "512x512"))
    assert stale(path) == [f"{document}: is stale"]


def test_a_document_written_by_hand_is_left_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.with_suffix(".md").write_text("# Mine\n")
    assert main(["report", str(path)]) == 2
    assert path.with_suffix(".md").read_text() == "# Mine\n"
    assert not list(path.parent.glob("*.png"))
    assert "was not made from a report" in capsys.readouterr().err


def test_what_is_no_report_ends_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert main(["report", "--check", str(tmp_path / "x.json")]) == 2
    assert "is no report of latency or scaling" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "x.md")])


def test_without_names_it_is_the_results(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "RESULTS", path.parent)
    assert main(["report", "--check"]) == 1
    path.unlink()
    assert main(["report", "--check"]) == 0


def test_a_picture_that_a_report_has_no_more_is_stale_and_goes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(path)]) == 0
    report: Any = made_up.latency()
    report["cells"] = [cell | {"error": None} for cell in report["cells"] if cell["net"] == "squeeze" and "ms" in cell]
    write_report(path, report)
    path.with_name("cpu-batch.png").write_bytes(b"a picture of my own")
    capsys.readouterr()
    assert main(["report", "--check", str(path)]) == 1
    assert "cpu-error.png: is stale" in capsys.readouterr().out
    assert main(["report", str(path)]) == 0
    names = ["cpu-batch.png", "cpu-latency.png", "cpu.json", "cpu.md"]
    assert sorted(each.name for each in path.parent.iterdir()) == names
    assert main(["report", "--check", str(path)]) == 0
