"""How the modules are written for a target: as matrix products, or in four dimensions for OpenVINO.

OpenVINO keeps channels last. What `metric` writes over [channels, positions] costs it a reordering of each tap; what is
written here stays in its layout, sums over channels being convolutions with one output. In bfloat16 on AMX that takes
0.6 of the time on SqueezeNet and 0.76 on AlexNet, and comes nearer to float32, since a convolution adds up in float32;
ONNX Runtime's CPU provider takes longer for it (docs/graph.md, `benchmarks tail`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from .metric import Comparator, Encoder, Pair, square

__all__ = ["Arrangement", "arrangement"]


class Arrangement(NamedTuple):
    """The classes of modules that make up the graphs."""

    encoder: type[Encoder]
    comparator: type[Comparator]
    pair: type[Pair]


class _Encoder(Encoder):
    def unit(self, tap: Tensor) -> Tensor:
        """A tap scaled to unit length over its channels: [N, C, h, w] both."""
        ones = tap.new_ones((1, tap.shape[1], 1, 1))
        return tap / (conv2d(square(tap), ones).sqrt() + self.eps.unsqueeze(0))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(self.unit, self.taps(self.image(image))))


class _Comparator(Comparator):
    def forward(self, reference: Sequence[Tensor], distorted: Sequence[Tensor]) -> tuple[Tensor, ...]:
        depths = [
            conv2d(square(a - b), getattr(self, f"lin{k}")[:, :, None, None]).squeeze(1)
            for k, (a, b) in enumerate(zip(reference, distorted, strict=True))
        ]
        layers = torch.stack([depth.mean((1, 2)) for depth in depths], 1)
        return layers.sum(1), layers, *depths


class _Pair(Pair):
    """Each image through the backbone by itself: nothing to slice."""

    def forward(self, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
        return self.comparator(self.encoder(reference), self.encoder(distorted))


_PRODUCTS = Arrangement(Encoder, Comparator, Pair)
_FOUR_DIMENSIONS = Arrangement(_Encoder, _Comparator, _Pair)


def arrangement(target: str) -> Arrangement:
    """That of graphs for this target of the contract."""
    return _FOUR_DIMENSIONS if target == "openvino" else _PRODUCTS
