"""Reports are written whole, read back as they were, and anything else is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import pytest

from benchmarks.machine import described
from benchmarks.schema import eager_of, fits_well, fitted, read_report, write_report
from benchmarks.words import growth
from lpips_runtime.errors import UsageError


@pytest.mark.parametrize("make", [made_up.latency, made_up.scaling])
def test_what_is_written_is_read(make: Callable[[], Any], tmp_path: Path) -> None:
    report = make()
    report["machine"] = described()
    write_report(tmp_path / "cpu.json", report)
    assert read_report(tmp_path / "cpu.json") == report
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.json"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    write_report(path, made_up.latency())
    before, broken = path.read_bytes(), made_up.latency()
    broken["limits"]["float32"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        write_report(path, broken)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def _without(*keys: Any) -> Callable[[Any], None]:
    def change(report: Any) -> None:
        for key in keys[:-1]:
            report = report[key]
        del report[keys[-1]]

    return change


def _with(value: Any, *keys: Any) -> Callable[[Any], None]:
    def change(report: Any) -> None:
        for key in keys[:-1]:
            report = report[key]
        report[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("cells"), "it has no 'cells'"),
        (_without("cells", 0, "ms"), "cells[0] has no 'ms'"),
        (_without("cells", 0, "ms", "p99"), "cells[0].ms has no 'p99'"),
        (_without("machine", "cpu"), "machine has no 'cpu'"),
        (_with("accuracy", "command"), "command is 'accuracy'"),
        (_with("3", "cells", 1, "batch"), "cells[1].batch is '3', not int"),
        (_with(True, "cells", 1, "batch"), "cells[1].batch is True, not int"),
        (_with(1, "cells", 1, "exact"), "cells[1].exact is 1, not bool"),
        (_with("fast", "limits", "float32"), "limits['float32'] is 'fast', not float"),
        (_with("none", "notes"), "notes is no list"),
        (_with([1], "notes"), "notes[0] is 1, not str"),
        (_with([], "limits"), "limits is no object"),
        (_with(0, "cells", 0, "ms", "p50"), "cells[0].ms.p50 is 0, not above 0"),
        (_with(-3.0, "cells", 0, "ms", "q1"), "cells[0].ms.q1 is -3.0, not above 0"),
        (_with(1e999, "cells", 0, "ms", "p50"), "cells[0].ms.p50 is inf, no number"),
        (_with(-1.0, "cells", 0, "error"), "cells[0].error is -1.0, below 0"),
        (_with(0, "cells", 0, "at"), "cells[0].at is 0, not above 0"),
        (_with("absent", "cells", 0, "state"), "cells[0] is absent and has 'calls'"),
        (_with("scaling", "command"), "cells[0] has no 'against'"),
    ],
)
def test_a_fault_is_named_with_its_place(change: Callable[[Any], None], words: str, tmp_path: Path) -> None:
    report = made_up.latency()
    change(report)
    (tmp_path / "x.json").write_text(json.dumps(report).replace("Infinity", "1e999"))
    with pytest.raises(UsageError) as caught:
        read_report(tmp_path / "x.json")
    assert words in str(caught.value)
    assert "x.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b'{"a": NaN}', b'{"command": "latency"', b"[" * 100_000])
def test_what_is_no_report_is_refused_in_a_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.json: is no report") as caught:
        read_report(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_a_missing_one_is_a_line_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.json: cannot be read"):
        read_report(tmp_path / "x.json")


def test_cells_are_compared_with_lpips_on_their_own_device() -> None:
    cell: Any = made_up.latency()["cells"][0]
    eager, on_gpu = cell | {"subject": "eager"}, cell | {"subject": "eager-cuda", "device": "cuda"}
    assert eager_of(cell, [on_gpu, eager]) is eager
    assert eager_of(cell | {"device": "cuda"}, [on_gpu, eager]) is on_gpu
    assert eager_of(cell, [on_gpu, made_up.without_figures(eager, "absent", "gone")]) is None


@pytest.mark.parametrize(
    ("exponent", "residual", "fits"),
    [(1.0, 0.02, True), (1.0, 0.15, True), (1.0, 0.2, False), (3.0, 0.0, False), (-1.5, 0.0, False), (2.99, 0.1, True)],
)
def test_an_exponent_at_the_end_or_points_far_off_are_no_fit(exponent: float, residual: float, fits: bool) -> None:
    fit: Any = {"exponent": exponent, "residual": residual}
    assert fits_well(fit) is fits
    assert growth(fit) == (f"{exponent:.2f}" if fits else "none fits")


def test_a_fit_is_a_constant_and_a_power() -> None:
    fit: Any = {"constant_ms": 2.0, "per_unit_ms": 3.0, "exponent": 2.0}
    assert fitted(fit, 5) == 77.0
