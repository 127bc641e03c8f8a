"""`scaling`: the growth that is fitted to exact curves and to noisy ones, and a run of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import runs, scaling
from benchmarks.__main__ import main
from benchmarks.scaling import fits, fitted_growth
from benchmarks.schema import AGAINST, fits_well, read_report


@pytest.mark.parametrize(
    ("at", "exponent", "constant", "factor"),
    [
        ((1, 2, 4, 8, 16), 1, 5, 3),
        ((1, 2, 4, 8, 16), 1, 0, 3),
        ((2, 4, 8, 16, 24), 2, 0, 0.7),
        ((2, 4, 8, 16, 24), 1.5, 4, 0.7),
        ((4096, 16384, 65536, 262144, 1048576), 1, 2, 1e-4),
        ((4096, 16384, 65536, 262144, 1048576), 0.5, 0, 0.1),
        # What one thread must do alone, and what all share.
        ((1, 2, 4, 8), -1, 2, 10),
        ((1, 2, 4), -1, 0, 10),
    ],
)
def test_exact_curves_are_found(at: tuple[float, ...], exponent: float, constant: float, factor: float) -> None:
    ms = [constant + factor * n**exponent for n in at]
    found = fitted_growth(at, ms)
    assert found[0] == pytest.approx(exponent, abs=0.005)
    assert found[1] == pytest.approx(constant, abs=1e-6)
    assert found[2] == pytest.approx(factor, rel=1e-6)
    assert found[3] < 1e-9


def test_noise_moves_the_fit_little_and_is_its_residual() -> None:
    rng, at = np.random.default_rng(1), np.array([1, 2, 4, 8, 16, 32])
    for _ in range(10):
        ms = (4 + 3 * at) * rng.uniform(0.97, 1.03, 6)
        exponent, constant, factor, residual = fitted_growth(at.tolist(), ms.tolist())
        assert exponent == pytest.approx(1, abs=0.15)
        assert min(constant, factor) >= 0
        assert residual <= 0.05
        worst = np.abs((constant + factor * at**exponent) / ms - 1).max()
        assert residual == pytest.approx(worst)


def test_what_does_not_grow_has_no_growth() -> None:
    exponent, constant, factor, residual = fitted_growth((1, 2, 4, 8), (5, 5, 5, 5))
    assert constant + factor * np.array([1, 8]) ** exponent == pytest.approx(5)
    assert residual < 1e-9


def _cell(
    subject: str, at: float, ms: float, net: str = "alex", against: str = "batch", state: str = "measured"
) -> Any:
    cell = {"net": net, "subject": subject, "against": against, "at": at, "ms": {"p50": ms}, "state": state}
    return {**cell, "steady": True, "wrong": False}


def test_each_curve_of_five_points_or_more_has_a_fit() -> None:
    cells = [
        *(_cell("ours", n, 3.0 * n) for n in (1, 2, 4, 8, 16)),
        *(_cell("ours", n, 3.0 * n**2, net="vgg") for n in (1, 2, 4, 8, 16)),
        *(_cell("ours", n, 8.0 / n, against="threads") for n in (1, 2, 4, 8)),
        *(_cell("eager", n, 5.0 * n) for n in (1, 2, 4, 8)),
        _cell("eager", 16, 1e9, state="absent"),
    ]
    found = {(fit["net"], fit["subject"], fit["against"]): fit for fit in fits(cells)}
    assert {key: round(fit["exponent"], 2) for key, fit in found.items()} == {
        ("alex", "ours", "batch"): 1,
        ("vgg", "ours", "batch"): 2,
    }
    assert found["alex", "ours", "batch"]["per_unit_ms"] == pytest.approx(3)
    assert found["alex", "ours", "batch"]["points"] == 5


@pytest.mark.parametrize("spoiled", [{"steady": False}, {"wrong": True}])
def test_what_is_wrong_or_had_no_quiet_machine_is_no_point_of_a_curve(spoiled: dict[str, bool]) -> None:
    cells = [_cell("ours", n, 3.0 * n) for n in (1, 2, 4, 8, 16, 32)]
    cells[2] |= {"ms": {"p50": 1e6}, **spoiled}
    (fit,) = fits(cells)
    assert (fit["points"], round(fit["exponent"], 2), fits_well(fit)) == (5, 1, True)
    cells[3] |= spoiled
    assert fits(cells) == []


def test_curves_are_those_that_a_report_may_have() -> None:
    assert list(scaling._CURVES) == list(AGAINST)


def test_threads_are_powers_of_two_and_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, expected in ((1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])):
        monkeypatch.setattr(scaling, "cores", lambda count=count: count)
        assert scaling._threads() == expected


def test_run_writes_the_report_with_its_fits(
    exported: Callable[..., list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr(runs, "limits", lambda _: {"float32": None})
    few = {
        "batch": (lambda: (1, 2, 3, 4, 5), scaling._CURVES["batch"][1]),
        "images, all pairs": (lambda: (2, 4), scaling._CURVES["images, all pairs"][1]),
    }
    monkeypatch.setattr(scaling, "_CURVES", few)
    monkeypatch.setattr(scaling, "_SIDE_OF_SETS", 48)
    of = scaling._subjects
    monkeypatch.setattr(scaling, "_subjects", lambda against: of(against)[:1])
    model, output = exported(net="alex", split=True)[0], tmp_path / "r.json"
    assert main(["scaling", str(model), "--rounds", "1", "--threads", "1", "-o", str(output)]) == 0
    names = ["r.json", "r-batch.png", "r-images-all-pairs.png", "r.md"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    report: Any = read_report(output)
    assert [(cell["state"], cell["against"], cell["at"], cell["batch"]) for cell in report["cells"]] == [
        *(("measured", "batch", n, n) for n in (1, 2, 3, 4, 5)),
        ("measured", "images, all pairs", 2, 2),
        ("measured", "images, all pairs", 4, 4),
    ]
    # It need not be steady: tests run side by side.
    steady = all(cell["steady"] for cell in report["cells"] if cell["against"] == "batch")
    assert [(fit["subject"], fit["against"]) for fit in report["fits"]] == [("ours", "batch")] * steady
