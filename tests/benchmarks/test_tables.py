"""The README's tables are those of the reports, and `--check` finds those that are not."""

from pathlib import Path
from typing import Any

import made_up
import pytest

from benchmarks import tables
from benchmarks.__main__ import main
from benchmarks.schema import write_report
from benchmarks.tables import README, Table, filled, latency_table
from lpips_runtime.errors import UsageError

_MARKED = "# Title\n\n<!-- benchmarks: latency -->\nold\n<!-- end of benchmarks -->\n\nmore\n"


@pytest.fixture
def readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "README", tmp_path / "README.md")
    monkeypatch.setattr(tables, "TABLES", {"latency": Table(("cpu.json",), "cpu")})
    write_report(tmp_path / "cpu.json", made_up.latency())
    (tmp_path / "README.md").write_text(_MARKED)
    return tmp_path / "README.md"


def test_table_is_put_between_its_markers_and_is_then_fresh(readme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "--check"]) == 1
    assert capsys.readouterr().out == "README.md: the table 'latency' is stale; python -m benchmarks tables\n"
    assert readme.read_text() == _MARKED
    assert main(["tables"]) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n\n<!-- benchmarks: latency -->\n\n| ms a pair | alex | squeeze | vgg |\n")
    assert text.endswith("\n\n<!-- end of benchmarks -->\n\nmore\n")
    assert "old" not in text
    assert main(["tables", "--check"]) == 0
    readme.write_text(text.replace("13.0", "12.0"))
    assert main(["tables", "--check"]) == 1


def test_a_newer_report_makes_it_stale(readme: Path) -> None:
    assert main(["tables"]) == 0
    report: Any = made_up.latency()
    report["cells"][0]["ms"]["p50"] = 99.0
    write_report(readme.with_name("cpu.json"), report)
    assert main(["tables", "--check"]) == 1
    assert main(["tables"]) == 0
    assert "| this project, CPU provider | 99.0 |" in readme.read_text()


def test_nets_are_columns_and_what_has_no_time_has_no_number() -> None:
    lines = latency_table({"benchmarks/results/cpu.md": made_up.latency()}, "cpu").splitlines()
    assert "| this project, CPU provider | 13.0 | 10.4 | 234 |" in lines
    assert "Without a figure, for reasons that the report gives: torchmetrics." in lines
    assert not [line for line in lines if line.startswith("| torchmetrics")]
    assert "| lpips 0.1.4, torch.compile | 17.2 | 13.8 | not run |" in lines
    assert "| piq, its own weights | - | - | 5400, **WRONG, 3 % off** |" in lines
    assert "| **times as fast as `lpips` eager**: this project, CPU provider | 1.46 | 1.46 | 1.46 |" in lines
    assert not [line for line in lines if line.startswith("| **times as fast as `lpips` eager**: lpips")]
    assert lines[-1] == (
        "Nobody(R) Counted(TM) Processor, threads: 2, onnxruntime 1.32.0, torch 2.13.0, 2026-11-26: "
        "[results/cpu.md](benchmarks/results/cpu.md)."
    )


def test_ratios_have_their_quartiles_where_they_are_known() -> None:
    report: Any = made_up.latency()
    report["cells"][0]["times"] = {"p50": 1.39, "q1": 1.36, "q3": 1.42}
    made = latency_table({"x.md": report}, "cpu")
    assert "**: this project, CPU provider | 1.39 (1.36 to 1.42) | 1.46 |" in made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_MARKED + "<!-- benchmarks: speed -->\n<!-- end of benchmarks -->", "no table is called 'speed'"),
        ("<!-- benchmarks: latency -->\n", "has no <!-- end of benchmarks -->"),
        ("<!-- benchmarks: latency -->\n" + _MARKED, "has no <!-- end of benchmarks -->"),
    ],
)
def test_markers_that_cannot_be_meant_are_refused(
    text: str, words: str, readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme.write_text(text)
    assert main(["tables", "--check"]) == 2
    assert words in capsys.readouterr().err
    assert readme.read_text() == text


def test_a_marker_without_its_report_is_refused(readme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme.with_name("cpu.json").unlink()
    assert main(["tables"]) == 2
    assert "cpu.json: cannot be read" in capsys.readouterr().err


def test_a_report_without_that_size_makes_no_table() -> None:
    report: Any = made_up.latency()
    with pytest.raises(UsageError, match="no pair of 256x256 on cuda"):
        latency_table({"x.md": report}, "cuda")
    report["cells"] = [cell for cell in report["cells"] if cell["batch"] == 8]
    with pytest.raises(UsageError, match="no pair of 256x256 on cpu"):
        latency_table({"x.md": report}, "cpu")


def test_a_report_of_a_machine_that_others_used_makes_no_table() -> None:
    report: Any = made_up.latency()
    report["cells"][0]["steady"] = False
    with pytest.raises(UsageError, match=r"x\.md: others had some of the machine; measure again"):
        latency_table({"x.md": report}, "cpu")


def test_nets_of_two_reports_stand_in_one_table_that_links_to_both() -> None:
    first, second = made_up.latency(), made_up.latency()
    first["cells"] = [cell for cell in first["cells"] if cell["net"] != "vgg"]
    second["cells"] = [cell for cell in second["cells"] if cell["net"] == "vgg"]
    second["notes"] = ["of the second"]
    apart = latency_table({"a.md": first, "b.md": second}, "cpu").splitlines()
    whole = latency_table({"a.md": made_up.latency()}, "cpu").splitlines()
    (note,) = first["notes"]
    apart.remove("- of the second (b)")
    assert [line.removesuffix(" (a)") for line in apart[:-1]] == whole[:-1]
    assert f"- {note} (a)" in apart
    assert apart[-1].endswith(": [a.md](a.md) and [b.md](b.md).")


def test_a_table_without_its_marker_is_missed(readme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme.write_text("# Title\n")
    assert main(["tables", "--check"]) == 2
    assert "there is no <!-- benchmarks: latency -->" in capsys.readouterr().err


def test_the_readme_of_this_project_is_fresh() -> None:
    text = README.read_text(encoding="utf-8")
    assert filled(text) == (text, [])
