"""What the graphs are traced from, under PyTorch's CUDA: the golden figures, in float32 and half. `pytest -m gpu`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.gpu

Real = Callable[[str], Path]

# Of distance and layers. Half is half there, not float32 as on the CPU provider.
LIMITS = {"fp32": 1e-5, "fp16": 1e-3}


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    """PyTorch with a GPU, computing in float32 what is float32."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA device")
    # TF32 has ten bits of mantissa, and cuDNN's convolutions use it unless told otherwise.
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield torch
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict:
    return json.loads((golden_dir / "golden.json").read_text())


def image(path: Path) -> np.ndarray:
    """float32 [1, 3, H, W] in [-1, 1]"""
    from lpips_runtime.images import load_image

    return (load_image(path).pixels[None].transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)


def seeded() -> list[np.ndarray]:
    import torch

    generator = torch.Generator().manual_seed(42)
    return [(torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1).numpy() for _ in range(2)]


def on_gpu(torch: Any, net: str, weights: Path, precision: str, pair: list[np.ndarray]) -> list[np.ndarray]:
    from traced_graph import pair_module

    module, _ = pair_module(net, weights, precision)
    with torch.no_grad():
        outputs = module.cuda()(*(torch.from_numpy(array).cuda() for array in pair))
    return [output.cpu().numpy() for output in outputs]


@pytest.mark.parametrize("precision", LIMITS)
def test_the_golden_images_under_cuda_torch(
    torch: Any, precision: str, golden: dict, golden_dir: Path, real_weights: Real
) -> None:
    for name in ("p0", "p1"):
        pair = [image(golden_dir / f"ex_{which}.png") for which in ("ref", name)]
        distance, layers, *_ = on_gpu(torch, "alex", real_weights("alex"), precision, pair)
        print(f"alex {precision} ref_{name}: {distance[0]:.7f}, {golden['alex']['float64'][f'ref_{name}']:.7f} wanted")
        assert distance[0] == pytest.approx(golden["alex"]["float64"][f"ref_{name}"], abs=LIMITS[precision])
        if name == "p0":
            np.testing.assert_allclose(layers[0], golden["alex"]["layers_ref_p0"], atol=LIMITS[precision])


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_the_seeded_tensors_under_cuda_torch(
    torch: Any, net: str, precision: str, golden: dict, real_weights: Real
) -> None:
    distance, *_ = on_gpu(torch, net, real_weights(net), precision, seeded())
    print(f"{net} {precision} seeded: {distance}, {golden['seeded'][net]} wanted")
    np.testing.assert_allclose(distance, golden["seeded"][net], atol=LIMITS[precision])
