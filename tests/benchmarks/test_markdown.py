"""Reports as Markdown: figures in their columns, what was not measured named below, never as zero."""

from typing import Any

import made_up
import pytest

from benchmarks.markdown import as_markdown, table
from benchmarks.words import number, off, percent, times_as_fast


def _row(text: str, start: str) -> dict[str, str]:
    """The first row of a table that starts so, by the names of its columns."""
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"| {start} |"))
    head = max(number for number in range(at) if lines[number].startswith("| ---")) - 1
    cells = [[cell.strip() for cell in lines[which].strip("|").split(" | ")] for which in (head, at)]
    return dict(zip(*cells, strict=True))


def test_head_says_which_machine_and_which_call() -> None:
    text = as_markdown(made_up.latency(), "cpu.json", [("Latency by subject", "cpu-latency.png")])
    for words in (
        "# Latency on Nobody Counted Processor\n",
        "2 cores, 25 GB, avx2 avx512f.",
        "numpy 2.4.6, onnxruntime 1.32.0, torch 2.13.0, lpips-export 0.1.0, commit 0123456789ab, 2026-11-26.",
        "Models, SHA-256: lpips_alex_fp32.onnx 0123456789ab.",
        "`python -m benchmarks latency 'artifacts/a model.onnx' --rounds 20`",
        "- **unsteady: ",
        "GFLOP/s: float32 361.",
        "![Latency by subject](cpu-latency.png)",
    ):
        assert words in text
    assert "bfloat16 0" not in text


def test_a_row_has_the_figures_of_its_cell() -> None:
    row = _row(as_markdown(made_up.latency(), "cpu.json", []), "ours")
    assert row == {
        "subject": "ours",
        "": "this project, CPU provider",
        "p50, ms": "13.0",
        "p90": "14.3",
        "p99": "18.2",
        "calls": "80 of 103",
        "pairs/s": "76.9",
        "times as fast": "1.46",
        "first number, s": "0.420",
        "memory, MB": "210",
        "installed, MB": "212",
        "share of the limit": "37 % of float32",
        "distance": "0.186404",
    }


def test_rows_stand_in_the_order_of_their_time() -> None:
    text = as_markdown(made_up.latency(), "cpu.json", [])
    section = text[text.index("## alex, a pair of 256x256, 2 threads") : text.index("## alex, 8 pairs of 256x256")]
    assert section.index("| fast-math |") < section.index("| ours |") < section.index("| eager |")


def test_unmeasured_subjects_are_named_with_their_reason_and_have_no_row() -> None:
    text = as_markdown(made_up.latency(), "cpu.json", [])
    assert "- absent: torchmetrics, torchmetrics: torchmetrics is not installed\n" in text
    assert "- not run: compile, lpips 0.1.4, torch.compile: over the budget; predicted: 31.0 s, 0.200 GB\n" in text
    assert "| torchmetrics |" not in text
    scaling = as_markdown(made_up.scaling(), "cpu.json", [])
    assert "- not run: openvino, this project, OpenVINO, float32 at 16: over the budget; predicted: " in scaling
    last = _row(scaling[scaling.index("## vgg against images") :], "16")
    assert last["openvino"] == ""


def test_a_fast_wrong_number_is_marked() -> None:
    row = _row(as_markdown(made_up.latency(), "cpu.json", []), "piq")
    assert row["distance"] == "0.186404, **WRONG, 3 % off**"
    report: Any = made_up.scaling()
    report["cells"][0] |= {"wrong": True, "error": 0.031}
    assert _row(as_markdown(report, "x.json", []), "1")["ours"] == "13.0, **WRONG, 3.1 % off**"


def test_gpu_time_and_quartiles_show_where_they_are_known() -> None:
    report: Any = made_up.latency()
    report["machine"]["gpus"] = [{"name": "NVIDIA H0", "driver": None}]
    report["cells"] = [
        cell | {"device": "cuda", "device_ms": 0.5, "times": {"p50": 2.0, "q1": 1.9, "q3": 2.1}}
        for cell in report["cells"][:1]
    ]
    text = as_markdown(report, "x.json", [])
    assert _row(text, "ours")["GPU, ms"] == "0.500"
    assert _row(text, "ours")["times as fast"] == "2.00 (1.90 to 2.10)"
    assert "# Latency on Nobody Counted Processor, NVIDIA H0\n" in text
    assert "NVIDIA H0 (driver unknown)" in text


def test_scaling_has_times_and_fits_by_what_is_varied() -> None:
    text = as_markdown(made_up.scaling(), "x.json", [])
    section = text[text.index("## alex against pixels: a pair, 2 threads") :]
    assert _row(section, "65536") == {
        "pixels of an image": "65536",
        "ours": "13.0",
        "eager": "19.0",
        "plain": "14.4",
        "openvino": "12.1",
    }
    section = text[text.index("## alex against threads: 256x256, a pair") :]
    fit = _row(section[section.index("| fit of |") :], "ours")
    assert fit == {
        "fit of": "ours",
        "exponent": "-1.00",
        "constant, ms": "0.00",
        "per unit, ms": "26.0",
        "residual": "2.1 %",
        "points": "3",
    }


def test_columns_without_anything_are_left_out() -> None:
    assert table(["a", "b", "c"], [["", "", "1|2"]]) == "| a | c |\n| --- | --- |\n|  | 1\\|2 |"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0.00"),
        (0.0123, "0.0123"),
        (0.9, "0.900"),
        (1.234, "1.23"),
        (9.996, "10.0"),
        (99.96, "100"),
        (12345.6, "12346"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0 %"), (1e-7, "below 0.01 %"), (0.0312, "3.1 %"), (0.37, "37 %"), (2.5, "250 %")]
)
def test_shares_have_two(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_inexact_distances_say_how_far_off_they_are() -> None:
    cell: Any = made_up.latency()["cells"][0]
    assert off(cell) == ""
    assert off(cell | {"exact": False, "error": 0.004}) == "0.4 % off"
    assert off(cell | {"exact": False, "error": None}) == "not compared"
    assert off(cell | {"error": None}) == "not compared"
    assert off(cell | {"wrong": True, "error": None}) == "WRONG"


def test_without_lpips_there_is_no_ratio() -> None:
    report = made_up.latency()
    ours = report["cells"][0]
    assert times_as_fast(ours, [cell for cell in report["cells"] if cell["subject"] != "eager"]) == ""
