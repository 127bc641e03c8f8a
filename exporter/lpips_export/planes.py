"""Two planes: an activation in twelve bits or so, for a convolution that computes in eight.

x = S floor(x/S) + r, with 0 <= r < S the remainder that rounding to steps of S would lose. Both go to the convolution
side by side as channels, the remainder 8 times as large and its weights 8 times as small. In float nothing has changed;
in INT8 the first plane is exact, since S is the step of its quantiser, and of the remainder three bits more are kept.
It costs the convolution's multiplications once more, a quarter or so of what float would.
"""

import copy
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from .equalisation import Range, convolution_names
from .metric import Encoder

__all__ = ["FINER", "TwoPlanes", "with_planes"]

# 2 or 16 gain less: fewer steps of the remainder, or weights that round to nothing.
FINER = 8


class TwoPlanes(nn.Module):
    """A convolution, and the same in two planes. step: S, in units of the input; x must not be negative."""

    step: Tensor

    def __init__(self, convolution: nn.Conv2d, step: float) -> None:
        super().__init__()
        self.convolution = copy.deepcopy(convolution)
        self.convolution.in_channels *= 2
        weight = convolution.weight.data
        self.convolution.weight = nn.Parameter(torch.cat([weight, weight / FINER], 1), requires_grad=False)
        self.register_buffer("step", torch.full((1, 1, 1, 1), step))

    def forward(self, x: Tensor) -> Tensor:
        coarse = torch.floor(x / self.step) * self.step
        return self.convolution(torch.cat([coarse, (x - coarse) * FINER], 1))


def with_planes(
    encoder: Encoder, numbers: Collection[int], ranges: Sequence[tuple[Range, Range]], levels: int
) -> Encoder:
    """A copy of the encoder in which the convolutions of these numbers read two planes.

    ranges: of what each convolution reads and writes. levels: steps of the quantiser from 0 to the high end.
    """
    encoder = copy.deepcopy(encoder)
    for number, name in enumerate(convolution_names(encoder)):
        if number in numbers:
            (_, high), _ = ranges[number]
            parent, _, child = name.rpartition(".")
            module = encoder.slices.get_submodule(parent)
            convolution = module.get_submodule(child)
            assert isinstance(convolution, nn.Conv2d)
            setattr(module, child, TwoPlanes(convolution, high / levels))
    return encoder
