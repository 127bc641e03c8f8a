"""Cells of a report: what is measured, what is left out and why, what is wrong; and the journal of a stopped run."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest

from benchmarks import cells
from benchmarks.budget import Budget, Forecast
from benchmarks.cells import Journal, measure, spread, unsteady
from benchmarks.job import Job
from benchmarks.markdown import as_markdown
from benchmarks.physical import macs
from benchmarks.report import make
from benchmarks.schema import read_report, write_report
from benchmarks.speed import SAME
from benchmarks.turns import Turns
from lpips_runtime.errors import OutputError, UsageError

JOB = Job("alex", "none.onnx", 64, 2, 1)
AMPLE = Budget(1e9, 1e15)
LIMITS = {"float32": 100.0, "bfloat16": 400.0}


def _turns(*distances: float, seconds: float = 0.01, **more: Any) -> Turns:
    calls = [seconds] * 8
    given = {"distances": np.array(distances), "started": 1.5, "first": 1.0, "peak": 200_000_000}
    return Turns(**{"seconds": calls[:2], "calls": calls, **given, **more})


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Name -> the Turns that it is to have, in place of processes; gives the names that turns were asked of."""

    def give(**found: Turns) -> list[str]:
        asked: list[str] = []

        def turns(of: Mapping[str, Any], *_: object) -> dict[str, Turns]:
            asked.extend(of)
            return {name: found[name] for name in of}

        monkeypatch.setattr(cells, "take_turns", turns)
        return asked

    monkeypatch.setattr(cells, "disk_bytes", lambda *_: None)
    return give


def _measure(*names: str, budget: Budget = AMPLE, forecast: Forecast | None = None) -> dict[str, Any]:
    of = {name: (name, JOB) for name in names}
    return {cell["subject"]: cell for cell in measure(of, 2, LIMITS, budget, forecast or Forecast(100.0))}


def test_figures_of_a_cell(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, 0.25), eager=_turns(0.5, 0.25, seconds=0.03))
    ours = _measure("eager", "ours")["ours"]
    assert ours["ms"] == pytest.approx(dict.fromkeys(("p50", "p90", "p99", "q1", "q3", "fastest"), 10.0))
    assert (ours["calls"], ours["warm_up"], ours["peak_bytes"], ours["first_seconds"]) == (8, 3, 200_000_000, 1.5)
    assert ours["pairs_per_second"] == pytest.approx(200)
    assert ours["times"] == pytest.approx({"p50": 3, "q1": 3, "q3": 3})
    assert (ours["error"], ours["wrong"], ours["distance"], ours["device_ms"]) == (0, False, 0.5, None)
    assert (ours["state"], ours["why"], ours["predicted"]) == ("measured", "", None)
    assert ours["share"] == pytest.approx(2 * macs("alex", 64, 64) * 2 / 0.01 / 100e9)


def test_share_is_of_the_fastest_type_that_may_be_computed_in(taken: Callable[..., list[str]]) -> None:
    taken(**{"ours": _turns(0.5, 0.25), "fast-math": _turns(0.5, 0.25)})
    found = _measure("ours", "fast-math")
    assert found["ours"]["share"] == pytest.approx(4 * found["fast-math"]["share"])


@pytest.mark.parametrize(
    ("name", "factor", "wrong"),
    [
        ("ours", 1 + SAME / 2, False),
        ("ours", 1 - SAME * 2, True),
        ("ours", 0, True),
        ("compile-bf16", 1.04, False),
        ("compile-bf16", 1.06, True),
        ("compile-bf16", float("inf"), True),
    ],
)
def test_a_fast_wrong_number_is_marked_wrong(
    name: str, factor: float, wrong: bool, taken: Callable[..., list[str]]
) -> None:
    taken(**{name: _turns(0.5, 0.25 * factor, seconds=1e-6), "eager": _turns(0.5, 0.25)})
    cell = _measure("eager", name)[name]
    assert cell["wrong"] is wrong
    assert cell["error"] == (pytest.approx(abs(factor - 1)) if np.isfinite(factor) else None)


def test_distances_of_another_number_are_not_held_against_the_reference(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5), eager=_turns(0.5, 0.25))
    ours = _measure("eager", "ours")["ours"]
    assert ours["error"] is None
    assert "times" not in ours


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_wrong_and_the_report_of_it_can_be_written(
    value: float, taken: Callable[..., list[str]], tmp_path: Path
) -> None:
    taken(ours=_turns(value, 0.25), eager=_turns(0.5, 0.25))
    found = _measure("eager", "ours")
    assert (found["ours"]["wrong"], found["ours"]["distance"], found["ours"]["error"]) == (True, None, None)
    report = made_up.latency()
    report["cells"] = list(found.values())
    write_report(tmp_path / "r.json", report)
    assert read_report(tmp_path / "r.json") == report
    assert "no number, **WRONG**" in make(tmp_path / "r.json")[-1].read_text(encoding="utf-8")


def test_a_reference_that_is_no_number_makes_nothing_else_wrong(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, 0.25), eager=_turns(0.5, float("nan")))
    found = _measure("eager", "ours")
    assert found["eager"]["wrong"] is True
    assert (found["ours"]["wrong"], found["ours"]["error"]) == (False, None)


def test_absent_subjects_are_listed_with_their_reason_and_no_figure(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, 0.25), piq=Turns(absent="not installed"), eager=_turns(0.5, 0.25, absent="out of memory"))
    found = _measure("ours", "piq", "eager")
    assert (found["piq"]["state"], found["piq"]["why"]) == ("absent", "not installed")
    assert (found["eager"]["state"], found["eager"]["why"]) == ("absent", "out of memory")
    assert not {"ms", "distance", "peak_bytes"} & (found["piq"].keys() | found["eager"].keys())
    assert found["ours"]["state"] == "measured"


@pytest.mark.parametrize(
    ("budget", "why"),
    [(Budget(5, 1e15), "would pass the budget of 5 s"), (Budget(1e9, 1e8), "would pass the budget of 100MB")],
)
def test_what_would_pass_the_budget_is_not_run_and_has_no_process(
    budget: Budget, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", started)
    cell = _measure("ours", budget=budget)["ours"]
    assert (cell["state"], cell["why"]) == ("not run", why)
    assert cell["predicted"] == Forecast(100.0).predict("ours", JOB, 2)
    assert "ms" not in cell
    report = made_up.latency()
    report["cells"] = [cell]
    assert f"- not run: ours, this project, CPU provider: {why}; predicted: 10" in as_markdown(report, "r.json", [])


def test_subjects_of_a_job_share_its_memory_and_one_left_out_takes_none(taken: Callable[..., list[str]]) -> None:
    forecast = Forecast(100.0)
    one = forecast.predict("ours", JOB, 2)["bytes"]
    slow: Any = {"state": "measured", "ms": {"p99": 1e9}, "first_seconds": 1.0, "peak_bytes": 1}
    forecast.learn("eager", JOB, slow)
    asked = taken(ours=_turns(0.5, 0.25), plain=_turns(0.5, 0.25))
    found = _measure("eager", "ours", "plain", "piq", budget=Budget(1e4, 2.5 * one), forecast=forecast)
    assert asked == ["ours", "plain"]
    assert found["eager"]["why"] == "would pass the budget of 10000 s"
    assert "of other subjects" in found["piq"]["why"]


def test_what_was_measured_is_learned(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, 0.25, seconds=100.0))
    forecast = Forecast(100.0)
    assert _measure("ours", budget=Budget(60, 1e15), forecast=forecast)["ours"]["state"] == "measured"
    assert _measure("ours", budget=Budget(60, 1e15), forecast=forecast)["ours"]["state"] == "not run"


def test_spread_is_in_milliseconds_and_drops_nothing() -> None:
    found = spread([number / 1000 for number in range(100, -1, -1)])
    assert found == pytest.approx({"p50": 50, "p90": 90, "p99": 99, "q1": 25, "q3": 75, "fastest": 0})
    assert spread([*[0.001] * 9, 1.0])["p99"] > 900
    assert set(spread([0.002]).values()) == {2.0}


@pytest.mark.parametrize(
    ("spreads", "noted"), [([], False), ([0.05, 0.06, 9.0], False), ([0.3, 0.2, 0.01], True), ([0.1], False)]
)
def test_machine_is_unsteady_by_its_median_subject(spreads: list[float], noted: bool) -> None:
    found: list[Any] = [{"ms": {"q1": 10, "p50": 10, "q3": 10 + 10 * each}} for each in spreads]
    notes = unsteady([*found, {"state": "absent"}], "alex, 1 x 64x64")
    assert len(notes) == noted
    if noted:
        assert notes[0].startswith("unsteady: half of the calls on alex, 1 x 64x64 spread over 20% of the median")


CALL = {"arguments": ["latency", "--größe"]}


def _stopped(report: Path, *steps: str) -> Path:
    """The journal of a run that was stopped after some steps; each has a cell with its name."""
    with suppress(KeyboardInterrupt), Journal(report, CALL) as journal:
        for step in steps:
            journal.add(step, [{"subject": step}])  # pyright: ignore[reportArgumentType]
        raise KeyboardInterrupt
    return report.with_name(".r.json.unfinished")


def test_journal_goes_on_after_a_stop_and_goes_when_all_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _stopped(tmp_path / "r.json", "one", "two")
    assert "steps measured so far: 2" in capsys.readouterr().err
    with Journal(tmp_path / "r.json", CALL) as journal:
        assert journal.steps == {"one": [{"subject": "one"}], "two": [{"subject": "two"}]}
        assert path.exists()
    assert list(tmp_path.iterdir()) == []


def test_journal_without_a_step_is_in_nobodys_way(tmp_path: Path) -> None:
    _stopped(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 20])
def test_a_torn_last_line_is_dropped_and_its_step_measured_again(cut: int, tmp_path: Path) -> None:
    path = _stopped(tmp_path / "r.json", "one", "two")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal(tmp_path / "r.json", CALL) as journal:
        assert list(journal.steps) == ["one"]
        journal.add("two", [{"subject": "two"}])  # pyright: ignore[reportArgumentType]
        assert path.read_bytes() == whole


def test_a_torn_first_line_is_no_other_call(tmp_path: Path) -> None:
    path = _stopped(tmp_path / "r.json", "one")
    path.write_bytes(path.read_bytes()[:10])
    assert _stopped(tmp_path / "r.json", "one") == path
    with Journal(tmp_path / "r.json", CALL) as journal:
        assert list(journal.steps) == ["one"]


def test_journal_of_another_call_is_left_alone_and_said_in_one_line(tmp_path: Path) -> None:
    path = _stopped(tmp_path / "r.json", "one")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"was left by another call or machine; delete it, or name") as refused:  # noqa: SIM117
        with Journal(tmp_path / "r.json", {"arguments": ["scaling"]}):
            raise AssertionError
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Journal(tmp_path / "r.json", CALL) as journal:
        with pytest.raises(OutputError, match="another process is writing it"), Journal(tmp_path / "r.json", CALL):
            raise AssertionError
        journal.add("one", [])
        assert len(journal.path.read_text(encoding="utf-8").splitlines()) == 2


def test_journal_that_cannot_be_written_is_an_error_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"cannot be written"), Journal(tmp_path / "missing" / "r.json", CALL):
        raise AssertionError

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with suppress(OutputError), Journal(tmp_path / "r.json", CALL) as journal:
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OutputError, match=r"\.r\.json\.unfinished: cannot be written: No space left"):
            journal.add("one", [])
        assert journal.steps == {}


def test_a_machine_that_slows_down_is_unsteady_though_no_round_spreads(taken: Callable[..., list[str]]) -> None:
    rounds = [0.010, 0.010, 0.011, 0.011, 0.012, 0.012]
    slowing = _turns(0.5)
    slowing.seconds = rounds
    taken(ours=slowing)
    cell = _measure("ours")["ours"]
    assert cell["drift"] == pytest.approx(0.2)
    assert unsteady([cell], "alex") == [
        "unsteady: calls on alex drifted by 20% from the first rounds to the last; ratios are not to be trusted either"
    ]
    assert unsteady([cell | {"drift": -0.05}], "alex") == []


def test_a_journal_that_was_damaged_is_a_wrong_call(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with suppress(KeyboardInterrupt), Journal(report, {"a": 1}) as journal:
        journal.add("one", [])
        raise KeyboardInterrupt
    with open(journal.path, "a") as file:
        file.write("no line of mine\n")
    with pytest.raises(UsageError, match=r"is damaged: .*; delete it"), Journal(report, {"a": 1}):
        pass
