"""The PyTorch reference: `lpips` 0.1.4 itself, on the weights that are exported, in float64."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .vision import torchvision  # must come before lpips, which imports torchvision plainly
from .weights import LinWeights

with warnings.catch_warnings():
    # torchvision 0.28 warns of arguments that lpips 0.1.4 still passes to it.
    warnings.simplefilter("ignore")
    import lpips

__all__ = ["REFERENCE_NAME", "Reference", "Truth", "reference_metric"]

REFERENCE_NAME = "lpips 0.1.4"

assert torchvision is not None

# A case's reference and distorted images, and its first reference alone. The largest take 200 MB each with VGG16.
_KEPT_IMAGES = 3


@dataclass(frozen=True)
class Truth:
    """What the reference says of a batch: distance float64 [N], layers float64 [N, L], map float64 [N, H, W]."""

    distance: np.ndarray
    layers: np.ndarray
    map: np.ndarray


def reference_metric(net: str, version: str, state: Mapping[str, Tensor], lin: LinWeights) -> Any:
    """`lpips.LPIPS` with the given weights, in float32, as it is.

    net, version: as in lpips. state: backbone tensors with torchvision's keys. lin: lin weights, or the baseline.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = lpips.LPIPS(
            net=net, version=version, lpips=lin.kind != "baseline", pretrained=False, pnet_rand=True, verbose=False
        )
    # lpips names its slices slice1.0, slice2.2, ... with torchvision's numbers after the dot.
    metric.net.load_state_dict(
        {key: state[f"features.{key.split('.', 1)[1]}"] for key in metric.net.state_dict()}, strict=True
    )
    if lin.kind != "baseline":
        for layer, weight in zip(metric.lins, lin.tensors, strict=True):
            layer.load_state_dict({"model.1.weight": weight}, strict=True)
    return metric.eval().requires_grad_(False)


class Reference:
    """`reference_metric` in float64: its own arithmetic without its rounding."""

    def __init__(self, net: str, version: str, state: Mapping[str, Tensor], lin: LinWeights) -> None:
        self._metric = reference_metric(net, version, state, lin).double()
        self._metric.net.forward = _remembering(self._metric.net.forward)

    @torch.no_grad()
    def __call__(self, reference: np.ndarray, distorted: np.ndarray) -> Truth:
        """Float [N, 3, H, W] in [-1, 1], twice -> Truth. One reference may stand against many distorted."""
        pair = [torch.from_numpy(np.asarray(image, dtype=np.float64)) for image in (reference, distorted)]
        self._metric.spatial = False
        distance, layers = self._metric(*pair, retPerLayer=True)
        self._metric.spatial = True
        spatial = self._metric(*pair)
        return Truth(
            distance=distance.reshape(-1).numpy(),
            layers=torch.cat([layer.reshape(-1, 1) for layer in layers], 1).numpy(),
            map=spatial[:, 0].numpy(),
        )

    @torch.no_grad()
    def features(self, image: np.ndarray) -> list[np.ndarray]:
        """Float [N, 3, H, W] in [-1, 1] -> the unit-length features that lpips compares, float64 [N, C_k, h_k, w_k]."""
        x = torch.from_numpy(np.asarray(image, dtype=np.float64))
        if self._metric.version == "0.1":
            x = self._metric.scaling_layer(x)
        return [lpips.normalize_tensor(tap).numpy() for tap in self._metric.net(x)]


def _remembering(backbone: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """The same function, without computing the taps of the last few images again.

    lpips gives either the distance or the map, and runs its backbone for each; the graphs of a split export are
    validated on the same images. The backbone in float64 is what validation takes its time for.
    """
    kept: dict[tuple, Any] = {}

    def forward(x: Tensor) -> Any:
        key = x.shape, hashlib.sha256(x.numpy().tobytes()).digest()
        if key not in kept:
            while len(kept) >= _KEPT_IMAGES:
                kept.pop(next(iter(kept)))
            kept[key] = backbone(x)
        return kept[key]

    return forward
