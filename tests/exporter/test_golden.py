"""The figures of golden.json: three images of the reference project with real weights, and seeded tensors.

The seeded squeeze figures are those that torchmetrics 1.9.0 publishes.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lpips_runtime import Scorer

Exported = Callable[..., list[Path]]
Real = Callable[[str], Path]


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict:
    return json.loads((golden_dir / "golden.json").read_text())


def model(exported: Exported, real_weights: Real, net: str, **fields: str) -> Path:
    return exported(net=net, backbone=real_weights(net), quick=True, **fields)[0]


@pytest.mark.parametrize("image_input", ["float32", "uint8"])
@pytest.mark.parametrize(("version", "key"), [("0.1", "float64"), ("0.0", "v0.0_float64")])
def test_images(
    version: str,
    key: str,
    image_input: str,
    golden: dict,
    golden_dir: Path,
    exported: Exported,
    real_weights: Real,
) -> None:
    path = model(exported, real_weights, "alex", version=version, input=image_input)
    with Scorer(path) as scorer:
        for name in ("p0", "p1"):
            found = scorer.score(golden_dir / "ex_ref.png", golden_dir / f"ex_{name}.png")
            assert found == pytest.approx(golden["alex"][key][f"ref_{name}"], abs=1e-6)


def test_layers_and_map(golden: dict, golden_dir: Path, exported: Exported, real_weights: Real) -> None:
    with Scorer(model(exported, real_weights, "alex")) as scorer:
        for name in ("p0", "p1"):
            detail = scorer.detail(golden_dir / "ex_ref.png", golden_dir / f"ex_{name}.png")
            assert detail.map.mean() == pytest.approx(golden["alex"]["map_mean"][f"ref_{name}"], abs=1e-6)
        detail = scorer.detail(golden_dir / "ex_ref.png", golden_dir / "ex_p0.png")
        np.testing.assert_allclose(detail.layers[0], golden["alex"]["layers_ref_p0"], atol=1e-6)


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_seeded_tensors(net: str, golden: dict, exported: Exported, real_weights: Real) -> None:
    generator = torch.Generator().manual_seed(42)
    pair = [(torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1).numpy() for _ in range(2)]
    with Scorer(model(exported, real_weights, net)) as scorer:
        found = scorer.score(*pair, value_range=(-1, 1))
    np.testing.assert_allclose(found, golden["seeded"][net], atol=1e-6)
    if net == "squeeze":
        np.testing.assert_allclose(found, golden["seeded"]["squeeze_published_by_torchmetrics_1.9.0"], atol=5e-5)
