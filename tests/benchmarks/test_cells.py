"""Cells of a report: what is measured, what is left out and why, and what is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest

from benchmarks import cells
from benchmarks.budget import Budget, Forecast
from benchmarks.cells import measure, set_shares, spread, unsteady
from benchmarks.job import Job
from benchmarks.markdown import as_markdown
from benchmarks.physical import macs
from benchmarks.report import make
from benchmarks.schema import read_report, write_report
from benchmarks.speed import SAME
from benchmarks.subjects import REUSE
from benchmarks.turns import Turns
from benchmarks.words import times_as_fast

JOB = Job("alex", "none.onnx", 64, 2, 1)
AMPLE = Budget(1e9, 1e15)
LIMITS = {"float32": 100.0, "bfloat16": 400.0}


def _turns(*distances: float, seconds: float = 0.01, **more: Any) -> Turns:
    calls = [seconds] * 16
    given = {"distances": np.array(distances), "started": 1.5, "first": 1.0, "peak": 200_000_000, "uncounted": 5}
    return Turns(**{"seconds": calls[:4], "calls": calls, **given, **more})


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
    found = measure(of, 2, budget, forecast or Forecast(LIMITS))
    set_shares(found, LIMITS, JOB.threads)
    return {cell["subject"]: cell for cell in found}


def test_figures_of_a_cell(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, 0.25), eager=_turns(0.5, 0.25, seconds=0.03))
    ours = _measure("eager", "ours")["ours"]
    assert ours["ms"] == pytest.approx(dict.fromkeys(("p50", "p90", "p99", "q1", "q3", "fastest"), 10.0))
    assert (ours["calls"], ours["uncounted"], ours["peak_bytes"], ours["first_seconds"]) == (16, 5, 200_000_000, 1.5)
    assert (ours["pairs"], ours["steady"], ours["transfer_ms"]) == (2, True, None)
    assert ours["pairs_per_second"] == pytest.approx(200)
    assert ours["times"] == pytest.approx({"p50": 3, "q1": 3, "q3": 3})
    assert (ours["error"], ours["wrong"], ours["distance"], ours["device_ms"]) == (0, False, 0.5, None)
    assert (ours["state"], ours["why"], ours["predicted"]) == ("measured", "", None)
    assert ours["share"] == pytest.approx(2 * macs("alex", 64, 64) * 2 / 0.01 / 100e9)


def test_with_other_threads_than_the_limit_was_measured_with_there_is_no_share(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, 0.25))
    found = measure({"ours": ("ours", JOB)}, 2, AMPLE, Forecast(LIMITS))
    set_shares(found, LIMITS, JOB.threads + 1)
    assert found[0].get("share") is None
    set_shares(found, LIMITS, JOB.threads)
    assert found[0].get("share")


def test_pairs_and_share_of_a_set_are_those_of_its_comparisons_and_encodings(taken: Callable[..., list[str]]) -> None:
    """Of six images all 15 pairs; ours encodes six images, the reference thirty."""
    titles = {way: REUSE["all pairs", way].title for way in ("reusing", "lpips")}
    distances = [0.5] * 15
    taken(**{titles["reusing"]: _turns(*distances), titles["lpips"]: _turns(*distances, seconds=0.04)})
    job = replace(JOB, batch=6)
    found = measure({name: (name, job) for name in titles.values()}, 2, AMPLE, Forecast(LIMITS))
    set_shares(found, LIMITS, job.threads)
    cells: dict[str, Any] = {cell["subject"]: cell for cell in found}
    ours, lpips = cells[titles["reusing"]], cells[titles["lpips"]]
    assert (ours["pairs"], lpips["pairs"]) == (15, 15)
    assert ours["pairs_per_second"] == pytest.approx(1500)
    assert ours["share"] == pytest.approx(macs("alex", 64, 64) * 6 / 0.01 / 100e9)
    assert lpips["share"] == pytest.approx(macs("alex", 64, 64) * 30 / 0.04 / 100e9)
    assert (ours["error"], ours["wrong"]) == (0, False)


def test_a_wrong_distance_within_a_set_is_found(taken: Callable[..., list[str]]) -> None:
    ours, lpips = (REUSE["one against the others", way].title for way in ("reusing", "lpips"))
    taken(**{ours: _turns(0.5, 0.3), lpips: _turns(0.5, 0.25)})
    found = measure({name: (name, replace(JOB, batch=3)) for name in (ours, lpips)}, 2, AMPLE, Forecast(LIMITS))
    assert [cell.get("wrong") for cell in found] == [True, False]


def test_on_a_gpu_answers_are_held_against_float32_and_times_against_what_torch_does(
    taken: Callable[..., list[str]],
) -> None:
    taken(
        **{
            "cuda": _turns(0.5, 0.25, device=[0.001, 0.002, 0.009], transfer=[0.0005]),
            "eager-cuda": _turns(0.5, 0.2505, seconds=0.02),
            "eager-cuda-float32": _turns(0.5, 0.25, seconds=0.05),
        }
    )
    found = _measure("cuda", "eager-cuda", "eager-cuda-float32")
    assert found["cuda"]["times"]["p50"] == pytest.approx(2)
    assert found["cuda"]["error"] == 0
    assert (found["cuda"]["device_ms"], found["cuda"]["transfer_ms"]) == pytest.approx((2, 0.5))
    assert found["eager-cuda"]["error"] == pytest.approx(0.002)
    assert found["eager-cuda"]["wrong"] is False
    taken(**{"cuda": _turns(0.5, 0.2505), "eager-cuda-float32": _turns(0.5, 0.25)})
    assert _measure("cuda", "eager-cuda-float32")["cuda"]["wrong"] is True


def test_few_rounds_say_nothing_of_how_sure_a_ratio_is(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, seconds=0.01), eager=_turns(0.5, seconds=0.03))
    assert "times" in _measure("eager", "ours")["ours"]
    few = {name: _turns(0.5, seconds=seconds) for name, seconds in (("ours", 0.01), ("eager", 0.03))}
    for turns in few.values():
        turns.seconds = turns.seconds[:3]
    taken(**few)
    found = _measure("eager", "ours")
    assert "times" not in found["ours"]
    assert times_as_fast(found["ours"], list(found.values())) == "3.00"


@pytest.mark.parametrize(("others", "steady"), [(None, True), (0.0, True), (0.05, True), (0.06, False), (0.5, False)])
def test_where_others_had_some_of_the_machine_there_are_no_ratios(
    others: float | None, steady: bool, taken: Callable[..., list[str]]
) -> None:
    taken(ours=_turns(0.5, 0.25, others=others), eager=_turns(0.5, 0.25, others=others))
    found = _measure("eager", "ours")
    for cell in found.values():
        assert cell["steady"] is steady
        assert ("times" in cell) is steady
        assert bool(times_as_fast(cell, list(found.values()))) is steady
        assert (cell["share"] is not None) is steady
    notes = unsteady(list(found.values()), 4, "alex")
    unknown = "what others had of the cores while alex was measured is not known on this system"
    assert notes == ([] if steady and others is not None else [unknown] if steady else notes[:1])
    if not steady:
        assert notes[0].startswith(f"unsteady: others had {others:.0%} of the cores while alex was measured")


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
    [(Budget(1, 1e15), "would pass the budget of 1 s"), (Budget(1e9, 1e8), "would pass the budget of 100MB")],
)
def test_what_would_pass_the_budget_is_not_run_and_has_no_process(
    budget: Budget, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", started)
    cell = _measure("ours", budget=budget)["ours"]
    assert (cell["state"], cell["why"]) == ("not run", why)
    assert cell["predicted"] == Forecast(LIMITS).predict("ours", JOB, 2)
    assert "ms" not in cell
    report = made_up.latency()
    report["cells"] = [cell]
    assert f"- not run: ours, this project, CPU provider: {why}; predicted: 2.10 s, 0.202 GB" in as_markdown(
        report, "r.json", []
    )


def test_subjects_of_a_job_share_its_memory_and_one_left_out_takes_none(taken: Callable[..., list[str]]) -> None:
    """The reference comes first, since the others are held against it; then those that need the least."""
    forecast = Forecast(LIMITS)
    one, eager = (forecast.predict(name, JOB, 2)["bytes"] for name in ("ours", "eager"))
    speed = {"pairs": 1, "pairs_per_second": 1e-6}
    slow: Any = {"state": "measured", **speed, "first_seconds": 1.0, "peak_bytes": 1}
    forecast.learn("native", JOB, slow)
    asked = taken(eager=_turns(0.5, 0.25), ours=_turns(0.5, 0.25), plain=_turns(0.5, 0.25))
    budget = Budget(1e4, eager + 2.5 * one)
    found = _measure("piq", "torchmetrics", "native", "ours", "plain", "eager", budget=budget, forecast=forecast)
    assert asked == ["ours", "plain", "eager"]
    assert found["native"]["why"] == "would pass the budget of 10000 s"
    assert "of other subjects" in found["piq"]["why"]
    assert "of other subjects" in found["torchmetrics"]["why"]


def test_what_was_measured_is_learned(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, 0.25, seconds=100.0))
    forecast = Forecast(LIMITS)
    assert _measure("ours", budget=Budget(60, 1e15), forecast=forecast)["ours"]["state"] == "measured"
    assert _measure("ours", budget=Budget(60, 1e15), forecast=forecast)["ours"]["state"] == "not run"


def test_spread_is_in_milliseconds_and_drops_nothing() -> None:
    found = spread([number / 1000 for number in range(100, -1, -1)])
    assert found == pytest.approx({"p50": 50, "p90": 90, "p99": 99, "q1": 25, "q3": 75, "fastest": 0})
    assert spread([*[0.001] * 9, 1.0])["p99"] > 900
    assert set(spread([0.002]).values()) == {2.0}


def _cell(ms: dict[str, float], calls: int = 8, others: float | None = 0.0) -> Any:
    return {"state": "measured", "subject": "ours", "device": "cpu", "ms": ms, "calls": calls, "others": others}


@pytest.mark.parametrize(
    ("spreads", "noted"), [([], False), ([0.05, 0.06, 9.0], False), ([0.3, 0.2, 0.01], True), ([0.1], False)]
)
def test_machine_is_unsteady_by_its_median_subject(spreads: list[float], noted: bool) -> None:
    found: list[Any] = [_cell({"q1": 10, "p50": 10, "q3": 10 + 10 * each}) for each in spreads]
    notes = unsteady([*found, {"state": "absent"}], 2, "alex, 1 x 64x64")
    assert len(notes) == noted
    if noted:
        assert notes[0].startswith("unsteady: half of the calls on alex, 1 x 64x64 spread over 20% of the median")


def test_a_machine_that_slows_down_is_unsteady_though_no_round_spreads(taken: Callable[..., list[str]]) -> None:
    rounds = [0.010, 0.010, 0.011, 0.011, 0.012, 0.012]
    slowing = _turns(0.5)
    slowing.seconds = rounds
    taken(ours=slowing)
    cell = _measure("ours")["ours"]
    assert cell["drift"] == pytest.approx(0.2)
    cell["others"] = 0.0
    (note,) = unsteady([cell], 4, "alex")
    assert note.startswith("unsteady: calls on alex drifted by 20% from the first rounds to the last; ")
    assert unsteady([cell | {"drift": -0.05}], 4, "alex") == []


def test_rounds_that_there_was_no_time_for_are_noted() -> None:
    ms = {"q1": 10.0, "p50": 10.0, "q3": 10.0}
    assert unsteady([_cell(ms, calls=8), _cell(ms, calls=4)], 2, "alex") == [
        "there was no time for all rounds of alex: some subjects have 4 calls"
    ]


def test_a_subject_that_is_wrong_only_later_is_wrong(taken: Callable[..., list[str]]) -> None:
    taken(ours=_turns(0.5, 0.25, later=[np.array([0.5, 0.25]), np.array([0.5, 0.2])]), eager=_turns(0.5, 0.25))
    ours = _measure("eager", "ours")["ours"]
    assert (ours["error"], ours["wrong"]) == (pytest.approx(0.2), True)
    taken(ours=_turns(0.5, 0.25, later=[np.array([0.5, np.nan])]))
    assert _measure("ours")["ours"]["wrong"] is True


def test_a_share_names_its_limit_and_int8_has_none(taken: Callable[..., list[str]]) -> None:
    """Nobody measured products of matrices in INT8."""
    names = ("ours", "fast-math", "int8")
    taken(**{name: _turns(0.5, 0.25) for name in names})
    found = _measure(*names)
    assert [found[name]["limit"] for name in names] == ["float32", "bfloat16", None]
    assert found["int8"]["share"] is None


def test_one_that_had_fewer_rounds_than_lpips_has_no_ratio_round_by_round(taken: Callable[..., list[str]]) -> None:
    ours, eager = _turns(0.5, seconds=0.01), _turns(0.5, seconds=0.03)
    eager.seconds = eager.seconds * 2
    taken(ours=ours, eager=eager)
    assert "times" not in _measure("eager", "ours")["ours"]


def test_a_restless_lpips_is_named_since_all_ratios_are_to_it() -> None:
    ms = {"q1": 10.0, "p50": 10.0, "q3": 10.0}
    restless = _cell({"q1": 1500.0, "p50": 1531.0, "q3": 3400.0}) | {"subject": "eager", "device": "cpu"}
    assert unsteady([_cell(ms), _cell(ms), restless], 2, "squeeze") == [
        "half of the calls of eager on squeeze spread over 124% of the median: so do all ratios to it"
    ]
