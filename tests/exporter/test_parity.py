"""Exported graphs, run by the runtime, against the `lpips` package as its users run it: float32, eager."""

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from lpips_export.backbones import BACKBONES
from lpips_export.reference import lpips
from lpips_runtime import Scorer

Exported = Callable[..., list[Path]]

# float32 against float32: both sides round, so twice the limit of validate.py, where the reference is float64.
RELATIVE, ABSOLUTE = 2e-3, 2e-7


def eager(net: str, backbone: Path, **options: Any) -> Any:
    """`lpips.LPIPS` with its own lin weights; only the backbone, which it would download, is put in by hand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False, **options)
    state = load_file(backbone)
    own = model.net.state_dict()
    model.net.load_state_dict({key: state[f"features.{key.split('.', 1)[1]}"] for key in own}, strict=True)
    return model.eval()


def images(seed: int, count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (count, 3, 8, 8)).astype(np.float32)
    reference = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(height, width), mode="bilinear").numpy()
    noise = rng.choice([0.01, 0.1, 0.5]) * rng.standard_normal(reference.shape)
    return reference, np.clip(reference + noise, -1, 1).astype(np.float32)


def assert_parity(scorer: Scorer, model: Any, reference: np.ndarray, distorted: np.ndarray) -> None:
    detail = scorer.detail(reference, distorted, value_range=(-1, 1))
    with torch.no_grad():
        pair = torch.from_numpy(reference), torch.from_numpy(distorted)
        model.spatial = False
        distance, layers = model(*pair, retPerLayer=True)
        model.spatial = True
        spatial = model(*pair)
    expected_layers = torch.cat([layer.flatten(1) for layer in layers], 1).numpy()
    np.testing.assert_allclose(detail.distance, distance.flatten().numpy(), rtol=RELATIVE, atol=ABSOLUTE)
    np.testing.assert_allclose(detail.layers, expected_layers, rtol=RELATIVE, atol=ABSOLUTE)
    np.testing.assert_allclose(detail.map, spatial[:, 0].numpy(), rtol=RELATIVE, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "version", "lin"),
    list(itertools.product(["alex", "vgg", "squeeze"], ["0.1", "0.0"], [None, "none"])),
)
def test_every_net_version_and_weighting(
    net: str, version: str, lin: str | None, exported: Exported, random_backbone: Callable[[str], Path]
) -> None:
    plain = version == "0.1" and lin is None
    fields = {"split": True} if plain else {"version": version, "lin": lin, "quick": True}
    path, *_ = exported(net=net, **fields)
    model = eager(net, random_backbone(net), version=version, lpips=lin is None)
    with Scorer(path) as scorer:
        assert_parity(scorer, model, *images(1, 2, 70, 53))


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_any_size_and_batch(net: str, exported: Exported, random_backbone: Callable[[str], Path]) -> None:
    path, *_ = exported(net=net, split=True)
    model = eager(net, random_backbone(net))
    smallest = BACKBONES[net].min_size
    sides = st.integers(smallest, 130)

    with Scorer(path) as scorer:

        @settings(max_examples=25, deadline=None)
        @given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 5), height=sides, width=sides)
        def holds(seed: int, count: int, height: int, width: int) -> None:
            assert_parity(scorer, model, *images(seed, count, height, width))

        holds()


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_real_weights(net: str, exported: Exported, real_weights: Callable[[str], Path]) -> None:
    backbone = real_weights(net)
    (path,) = exported(net=net, backbone=backbone)
    with Scorer(path) as scorer:
        assert scorer.info.peculiarities == []
        assert_parity(scorer, eager(net, backbone), *images(2, 2, 96, 80))


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_uint8_input_gives_the_numbers_of_float32(net: str, exported: Exported) -> None:
    rng = np.random.default_rng(3)
    pair = rng.integers(0, 256, (2, 3, 64, 48, 3), dtype=np.uint8)
    floats, *_ = exported(net=net, split=True)
    (bytes_,) = exported(net=net, input="uint8", quick=net != "alex")
    with Scorer(floats) as one, Scorer(bytes_) as other:
        np.testing.assert_allclose(one.score(*pair), other.score(*pair), rtol=1e-5)


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_split_graphs_compose_to_the_pair_graph(net: str, exported: Exported) -> None:
    from lpips_runtime.session import Session

    pair, features, compare = exported(net=net, split=True)
    reference, distorted = images(4, 3, 64, 72)
    encode, judge = Session(features, kind="features"), Session(compare, kind="compare")
    names = [f"feature_{k}" for k in range(encode.depths)]
    one = encode.run({"image": reference[:1]}, names)
    many = encode.run({"image": distorted}, names)
    sides = {"reference": one, "distorted": many}
    inputs = {f"{side}_{k}": value for side, values in sides.items() for k, value in enumerate(values)}
    (distance,) = judge.run(inputs, ["distance"])
    with Scorer(pair) as scorer:
        expected = scorer.score(np.repeat(reference[:1], 3, 0), distorted, value_range=(-1, 1))
    np.testing.assert_allclose(distance, expected, rtol=1e-5)


def test_own_lin_weights(exported: Exported, random_backbone: Callable[[str], Path], tmp_path: Path) -> None:
    torch.manual_seed(5)
    weights = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(BACKBONES["alex"].channels)}
    file = tmp_path / "lin.pth"
    torch.save(weights, file)
    (path,) = exported(net="alex", lin=file, quick=True)
    model = eager("alex", random_backbone("alex"), model_path=str(file))
    with Scorer(path) as scorer:
        assert scorer.info.lin == "custom"
        assert_parity(scorer, model, *images(6, 2, 64, 64))
