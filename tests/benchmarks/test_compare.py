"""The gate: what passes, what does not, and with which exit code."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.__main__ import main
from benchmarks.compare import differences, misses, timing
from benchmarks.photographs import cut_photographs
from lpips_export.agreement import agreement

Exported = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of 64x64."""
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(list(cut_photographs())[-2:]):
        picture.crop((60, 60, 124, 124)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def alex(exported: Exported) -> Path:
    return exported(net="alex", split=True)[0]


@pytest.fixture(scope="session")
def baseline(exported: Exported) -> Path:
    return exported(net="alex", lin="none", quick=True)[0]


def run(a: Path, b: Path, photos: Path, *more: str) -> int:
    few = ("--rounds", "8", "--side", "64", "--threads", "1")
    return main(["compare", str(a), str(b), "--photos", str(photos), *few, *more])


def test_a_report_that_cannot_be_written_is_no_answer(
    alex: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 says that they are not the same."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    assert run(alex, alex, photos, "--json", "/dev/full") == 3
    assert capsys.readouterr().err.endswith("/dev/full: cannot be written: No space left on device\n")


def test_the_fewest_rounds_can_show_a_difference() -> None:
    fewest = np.array([[1.0] * compare._ROUNDS, np.linspace(2, 3, compare._ROUNDS)])
    assert timing(fewest).verdict == "B is slower"
    assert timing(fewest[:, 1:]).verdict == "no significant difference"


def test_same_model_passes_and_changes_nothing(
    alex: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert run(alex, alex, photos, "--max-difference", "0", "--min-rank", "1", "--json", str(report)) == 0
    out = capsys.readouterr().out
    assert "\n| mean relative difference | 0.000% | 0.000% |\n" in out
    # Of each picture 25 distorted versions.
    assert "\n| 2AFC decisions changed | 0 of 600 (0.00%) | |\n" in out.replace("|  |", "| |")
    assert out.endswith("\nthe same within the limits\n")
    found = json.loads(report.read_text())
    assert found["same"] is True
    assert found["misses"] == []
    assert found["limits"] == {"max_difference": 0, "min_rank": 1}
    assert found["agreement"]["pairs"] == 50
    assert found["a"] == found["b"]
    assert found["a"]["model"]["file"] == alex.name
    assert found["latency"]["seconds"]["b"] > 0


def test_other_weighting_does_not_pass(
    alex: Path, baseline: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert run(alex, baseline, photos, "--json", str(report)) == 1
    assert "\nnot the same: mean relative difference " in capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["same"] is False
    assert found["misses"]


def test_limits_decide(alex: Path, baseline: Path, photos: Path) -> None:
    assert run(alex, baseline, photos, "--max-difference", "1e9", "--min-rank", "-1") == 0
    assert run(alex, baseline, photos, "--max-difference", "1e9", "--min-rank", "1") == 1


@pytest.mark.parametrize(
    "more", [["--max-difference", "-1"], ["--min-rank", "1.5"], ["--rounds", "7"], ["--max-difference", "nan"]]
)
def test_limit_that_cannot_be_meant_is_a_wrong_call(alex: Path, photos: Path, more: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(alex, alex, photos, *more)
    assert stop.value.code == 2


def test_missing_model_and_missing_photographs_are_wrong_calls(alex: Path, photos: Path, tmp_path: Path) -> None:
    assert run(alex, tmp_path / "missing.onnx", photos) == 2
    assert run(alex, alex, tmp_path / "missing") == 2
    assert main(["compare", str(alex), str(alex), "--photos", str(photos), "--side", "65"]) == 2


def test_damaged_photograph_and_damaged_model_are_failures(alex: Path, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(whole[: len(whole) // 2])
    assert run(alex, alex, tmp_path) == 3
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(alex.read_bytes()[:-100])
    assert run(alex, damaged, photos) == 3


def test_report_is_whole_or_not_there(alex: Path, photos: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert run(alex, tmp_path / "missing.onnx", photos, "--json", str(report)) == 2
    assert list(tmp_path.iterdir()) == []


def test_distribution_of_differences_is_of_distances_that_can_be_seen() -> None:
    expected = np.array([0.1, 0.2, 0.4, 0.001])
    found = differences(expected, np.array([0.101, 0.2, 0.38, 1.0]))
    assert found["signed"] == pytest.approx((0.01 + 0 - 0.05) / 3)
    assert found["median"] == pytest.approx(0.01)
    assert found["99 %"] == pytest.approx(np.quantile([0.01, 0, 0.05], 0.99))


def test_each_limit_that_is_missed_is_named_and_no_number_meets_none() -> None:
    expected = np.array([0.1, 0.2, 0.3, 0.4])
    how = agreement(expected, expected[::-1], np.zeros(4), ["blur"] * 4)
    assert [text.split()[0] for text in misses(how, 0.025, 0.99)] == ["mean", "Spearman"]
    assert misses(how, 10, -1) == []
    nothing = agreement(expected, np.full(4, np.nan), np.zeros(4), ["blur"] * 4)
    assert "mean" in misses(nothing, 10, -1)[0]


def test_time_that_differs_in_every_round_is_significant() -> None:
    rng = np.random.default_rng(0)
    drift = 1 + rng.random(30)
    seconds = np.stack([0.010 * drift, 0.012 * drift * (1 + 0.01 * rng.standard_normal(30))])
    found = timing(seconds)
    assert found.ratio[1] == pytest.approx(1.2, rel=0.01)
    assert found.p < 1e-6
    assert found.verdict == "B is slower"
    assert timing(seconds[::-1]).verdict == "B is faster"


def test_time_that_only_varies_is_not() -> None:
    seconds = np.random.default_rng(1).normal(1, 0.05, (2, 30))
    found = timing(seconds)
    assert found.p > 0.01
    assert found.verdict == "no significant difference"
    assert timing(np.ones((2, 30))).p == 1
    # However large the difference, four rounds cannot show it.
    assert timing(np.array([[1.0] * 4, [2.0] * 4])).verdict == "no significant difference"
