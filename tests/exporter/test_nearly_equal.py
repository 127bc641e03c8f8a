"""Images that are nearly equal: no further from float64 than the reference itself in float32."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from traced_graph import pair_graph

from lpips_export.metric import Pair
from lpips_export.reference import Reference, reference_metric
from lpips_export.tracing import serialized
from lpips_export.weights import load_backbone, load_lin
from lpips_runtime.session import Session

Backbones = Callable[[str], Path]

# Median of the relative errors, as many times the reference's: which of two float32 computations is nearer to the truth
# on one pair is chance.
TIMES = 2


def one_pixel_changed(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(2018)
    for _ in range(count):
        image = (rng.integers(20, 230, (1, 3, 64, 64)) / 127.5 - 1).astype(np.float32)
        changed = image.copy()
        changed[0, rng.integers(3), rng.integers(64), rng.integers(64)] += np.float32(1 / 127.5)
        yield image, changed


def errors(net: str, weights: Path, path: Path) -> tuple[float, float]:
    """Median relative error of the graph as Pair is now, and of the reference in float32."""
    backbone = load_backbone(net, weights, allow_unknown=True, log=lambda _: None)
    lin = load_lin(net, "0.1")
    truth = Reference(net, "0.1", backbone.state, lin)
    metric = reference_metric(net, "0.1", backbone.state, lin)
    path.write_bytes(serialized(pair_graph(net, weights, "fp32")[0]))
    session = Session(path, provider="cpu")
    found = []
    for pair in one_pixel_changed(12):
        expected = truth(*pair).distance[0]
        (ours,) = session.run(dict(zip(("reference", "distorted"), pair, strict=True)), ["distance"])
        with torch.no_grad():
            theirs = float(metric(*map(torch.from_numpy, pair)))
        found.append((abs(ours[0] / expected - 1), abs(theirs / expected - 1)))
    mine, others = np.median(found, 0)
    return float(mine), float(others)


def expanded_square(self: Pair, both: Tensor) -> Tensor:
    """(a - b)^2 as a^2 + b^2 - 2ab: the same on paper, and mere rounding where a and b are nearly equal."""
    count = both.shape[0] // 2
    a, b = both[:count], both[count:]
    return (a.square() + b.square() - 2 * (a * b)).clamp_min(0).sqrt()


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_one_changed_pixel_comes_out_as_well_as_from_the_reference_in_float32(
    net: str, real_weights: Backbones, tmp_path: Path
) -> None:
    ours, theirs = errors(net, real_weights(net), tmp_path / "graph.onnx")
    assert ours < TIMES * theirs


def test_an_expansion_that_cancels_would_show(
    real_weights: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pair, "difference", expanded_square)
    ours, theirs = errors("alex", real_weights("alex"), tmp_path / "graph.onnx")
    assert ours > 10 * TIMES * theirs
