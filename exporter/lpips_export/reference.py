"""The PyTorch reference: `lpips` 0.1.4 itself, on the weights that are exported, in float64."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

__all__ = ["REFERENCE_NAME", "Reference", "Truth"]

REFERENCE_NAME = "lpips 0.1.4"

assert torchvision is not None


@dataclass(frozen=True)
class Truth:
    """What the reference says of a batch: distance float64 [N], layers float64 [N, L], map float64 [N, H, W]."""

    distance: np.ndarray
    layers: np.ndarray
    map: np.ndarray


class Reference:
    """`lpips.LPIPS` with the given weights, in float64: its own arithmetic without its rounding.

    net, version: as in lpips. state: backbone tensors with torchvision's keys. lin: lin weights, or the baseline.
    """

    def __init__(self, net: str, version: str, state: Mapping[str, Tensor], lin: LinWeights) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            metric = lpips.LPIPS(
                net=net,
                version=version,
                lpips=lin.kind != "baseline",
                pretrained=False,
                pnet_rand=True,
                verbose=False,
            )
        # lpips names its slices slice1.0, slice2.2, ... with torchvision's numbers after the dot.
        metric.net.load_state_dict(
            {key: state[f"features.{key.split('.', 1)[1]}"] for key in metric.net.state_dict()}, strict=True
        )
        if lin.kind != "baseline":
            for layer, weight in zip(metric.lins, lin.tensors, strict=True):
                layer.load_state_dict({"model.1.weight": weight}, strict=True)
        self._metric = metric.double().eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, reference: np.ndarray, distorted: np.ndarray) -> Truth:
        """Float [N, 3, H, W] in [-1, 1], twice -> Truth."""
        pair = [torch.from_numpy(np.asarray(image, dtype=np.float64)) for image in (reference, distorted)]
        with self._backbone_runs_once():
            self._metric.spatial = False
            distance, layers = self._metric(*pair, retPerLayer=True)
            self._metric.spatial = True
            spatial = self._metric(*pair)
        return Truth(
            distance=distance.reshape(-1).numpy(),
            layers=torch.cat([layer.reshape(-1, 1) for layer in layers], 1).numpy(),
            map=spatial[:, 0].numpy(),
        )

    @contextmanager
    def _backbone_runs_once(self) -> Iterator[None]:
        """lpips gives either the distance or the map, and runs its backbone for each; the taps are the same."""
        net: Any = self._metric.net
        run, taps = net.forward, []

        def forward(x: Tensor) -> tuple[Tensor, ...]:
            if len(taps) < 2:
                taps.append(run(x))
                return taps[-1]
            taps.append(taps.pop(0))
            return taps[-1]

        net.forward = forward
        try:
            yield
        finally:
            net.forward = run

    @torch.no_grad()
    def features(self, image: np.ndarray) -> list[np.ndarray]:
        """Float [N, 3, H, W] in [-1, 1] -> the unit-length features that lpips compares, float64 [N, C_k, h_k, w_k]."""
        x = torch.from_numpy(np.asarray(image, dtype=np.float64))
        if self._metric.version == "0.1":
            x = self._metric.scaling_layer(x)
        return [lpips.normalize_tensor(tap).numpy() for tap in self._metric.net(x)]
