"""Pictures: drawn of whatever a report holds, carrying the hash of it, labels beside one another."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.labels import overlap, place_labels
from benchmarks.plots import draw, made_from, pictures
from lpips_runtime.errors import UsageError


def _one() -> Any:
    report = made_up.latency()
    return {**report, "cells": [cell for cell in report["cells"] if cell["subject"] == "eager"][:1]}


def _drawn(report: Any, name: str) -> Figure:
    """The picture as matplotlib has it."""
    page = Figure()
    FigureCanvasAgg(page)
    pictures(report)[name][1](page, report)
    return page


@pytest.mark.parametrize("make", [made_up.latency, made_up.scaling, _one])
def test_each_is_a_png_as_wide_as_a_readme_that_names_its_report(make: Callable[[], Any], tmp_path: Path) -> None:
    report = make()
    for name in pictures(report):
        path = tmp_path / f"{name}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of what does not fit on the page
            draw(report, name, path, "5ca1ab1e")
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width == 1800
        assert made_from(path) == "5ca1ab1e"
    assert len(list(tmp_path.iterdir())) == len(pictures(report))


def test_which_pictures_there_are_is_what_was_measured() -> None:
    assert list(pictures(made_up.latency())) == ["latency", "error"]
    assert list(pictures(made_up.scaling())) == ["batch", "pixels", "threads", "images-all-pairs"]
    report: Any = made_up.latency()
    report["cells"] = [cell | {"error": None} for cell in report["cells"] if "ms" in cell]
    assert list(pictures(report)) == ["latency"]
    report["cells"] = [made_up.without_figures(cell, "absent", "") for cell in report["cells"]]
    assert pictures(report) == {}


def test_latency_has_each_net_with_its_fastest_first_and_wrong_ones_named() -> None:
    panels = _drawn(made_up.latency(), "latency").axes
    assert [panel.get_title(loc="left") or panel.get_title() for panel in panels] == ["alex", "squeeze", "vgg"]
    names = [[label.get_text() for label in panel.get_yticklabels()] for panel in panels]
    assert names[0][0] == "this project, OpenVINO, fast-math"
    assert names[0][-1] == "lpips 0.1.4, eager"
    assert not [name for name in names[0] if "torchmetrics" in name]
    assert [panel.get_xscale() for panel in panels] == ["linear", "linear", "log"]
    assert "5400  WRONG, 3 % off" in [text.get_text() for text in panels[2].texts]


def test_no_error_has_a_place_of_its_own_below_the_least() -> None:
    panel = _drawn(made_up.latency(), "error").axes[0]
    heights = sorted(float(np.asarray(line.get_ydata())[0]) for line in panel.lines)
    assert heights[0] < heights[1] / 5
    low, high = panel.get_ylim()
    assert all(low < height < high for height in heights)


def test_a_subject_whose_error_nobody_knows_is_named_below() -> None:
    report: Any = made_up.latency()
    report["cells"][0]["error"] = None
    assert "error unknown: ours (alex)" in _drawn(report, "error").axes[-1].get_xlabel()


def test_scaling_has_the_exponent_in_its_legend() -> None:
    legend = _drawn(made_up.scaling(), "images-all-pairs").axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        f"{subject}, $n^{{2.08}}$" for subject in ("ours", "eager", "plain", "openvino")
    ]


def test_labels_of_a_crowd_cover_neither_one_another_nor_a_point() -> None:
    page = Figure(figsize=(9, 3), dpi=100)
    FigureCanvasAgg(page)
    axes = page.subplots()
    points = [(0.5 + 0.01 * column, 0.5 + 0.04 * row) for column in range(3) for row in range(2)]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    boxes = place_labels(axes, points, [f"subject {number}" for number in range(6)], ["black"] * 6)
    at = axes.transData.transform(points)
    dots = np.hstack([at - 3, at + 3])
    for number, box in enumerate(boxes):
        assert overlap(box, np.delete(boxes, number, axis=0)) == 0
        assert overlap(box, dots) == 0
        assert overlap(box, np.array([axes.bbox.extents])) == pytest.approx((box[2] - box[0]) * (box[3] - box[1]))


def test_settings_of_the_user_are_neither_heeded_nor_changed(tmp_path: Path) -> None:
    draw(_one(), "latency", tmp_path / "plain.png", "")
    with matplotlib.rc_context({"lines.markersize": 40, "axes.facecolor": "red"}):
        draw(_one(), "latency", tmp_path / "red.png", "")
        assert matplotlib.rcParams["axes.facecolor"] == "red"
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "red.png").read_bytes()


def test_without_matplotlib_it_is_said_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"^pictures need matplotlib; pip install '\.\[bench\]'$"):
        draw(_one(), "latency", tmp_path / "x.png", "")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_picture_of_ours_was_made_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (2, 2)).save(tmp_path / "other.png")
    assert [made_from(tmp_path / name) for name in ("text.png", "other.png", "missing.png")] == [None, None, None]
