"""Multiply-accumulates, counted once by arithmetic and once by torch as it runs; and what a machine makes of them."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import physical
from benchmarks.physical import RATES, limits, macs, share
from lpips_export.backbones import BACKBONES


def counted(net: str, height: int, width: int) -> tuple[int, int]:
    """Of one image, from the shapes that torch itself makes: multiply-accumulates, and numbers at the taps."""
    total, taps = 0, 0

    def count(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    backbone = BACKBONES[net]
    with torch.device("meta"):
        features = backbone.features()
        for layer in features.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        x = torch.empty(1, 3, height, width)
        for number, layer in enumerate(features, 1):
            x = layer(x)
            taps += x.numel() if number in backbone.cuts[1:] else 0
    return total, taps


@pytest.mark.parametrize("net", BACKBONES)
@pytest.mark.parametrize("size", [(256, 256), (224, 224), (64, 64), (1080, 1920), (97, 131), (33, 45), (70, 66)])
def test_a_pair_takes_what_torch_computes_for_both_images(net: str, size: tuple[int, int]) -> None:
    assert macs(net, *size) == 2 * counted(net, *size)[0]


@pytest.mark.parametrize("net", BACKBONES)
def test_smallest_images_too(net: str) -> None:
    least = BACKBONES[net].min_size
    for height in range(least, least + 20):
        assert macs(net, height, least) == 2 * counted(net, height, least)[0]


@pytest.mark.parametrize("net", BACKBONES)
def test_what_follows_the_backbone_does_not_matter(net: str) -> None:
    """For each number at a tap of both images a square for its norm; of the pair a difference, squared and weighted."""
    _, taps = counted(net, 256, 256)
    assert 5 * taps < 0.02 * macs(net, 256, 256)


def test_a_layer_of_another_kind_is_not_passed_over() -> None:
    with pytest.raises(NotImplementedError, match="AvgPool2d"):
        physical._through(nn.AvgPool2d(2), (8, 8))


def test_share_is_of_the_rate_and_unknown_without_one() -> None:
    flops = 2 * macs("alex", 64, 64) * 8
    assert share("alex", 64, 64, 16, 0.5, flops / 1e9) == pytest.approx(2.0)
    assert share("alex", 64, 64, 16, 0.5, None) is None


def test_limits_are_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(call: list[str], **_: object) -> Any:
        calls.append(call)
        return SimpleNamespace(stdout=json.dumps({"float32": 100.0}) + "\n", returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    assert limits(3) == {"float32": 100.0, "bfloat16": None}
    assert calls == [[sys.executable, "-m", "benchmarks.physical", "3"]]


def test_without_torch_they_are_unknown_and_it_is_said_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = SimpleNamespace(
        stdout="", returncode=1, stderr="Traceback\nModuleNotFoundError: No module named 'torch'\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert limits(1) == {"float32": None, "bfloat16": None}
    assert "No module named 'torch'" in capsys.readouterr().err


def test_a_rate_is_the_best_of_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physical, "_SIDES", (8, 16))
    found = [physical._best(RATES[name]) for name in ("float32", "bfloat16")]
    assert all(rate > 0 for rate in found)


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2, 3, ceil_mode=True), nn.MaxPool2d(3, 2, 1, ceil_mode=True)])
def test_windows_rounded_up_are_those_of_torch(layer: nn.MaxPool2d) -> None:
    for length in range(3, 20):
        expected = layer(torch.empty(1, 1, length, length + 1)).shape[2:]
        assert physical._windows(layer, (length, length + 1)) == tuple(expected)
