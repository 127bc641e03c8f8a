"""The torch modules that are traced: Encoder, Comparator and Pair.

The maths is that of `lpips` 0.1.4 (Zhang et al., CVPR 2018), eps included: with f a tap of the backbone,
unit(f) = f / (sqrt(sum_c f^2) + 1e-10), and per depth k the map lin_k . (unit(f_ref) - unit(f_dist))^2, whose mean
over positions is the layer's share of the distance. How it is written matters as much as what it says: each
arrangement that torch.onnx turns into something else is named where it was avoided, and what follows the backbone is
written as matrix products over [channels, positions], with which ONNX Runtime's CPU provider is fastest (docs/graph.md
has the figures, `benchmarks.tail` measures them).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .backbones import Backbone

__all__ = ["CONVOLUTION_TYPES", "EPS", "Comparator", "Encoder", "Pair", "square"]

EPS = 1e-10

# What the backbone computes in while it is traced; all else is float32 in every precision. INT8 comes after.
CONVOLUTION_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.float32}

# lpips.ScalingLayer: ImageNet's mean and deviation, moved from [0, 1] to [-1, 1]. Version 0.0 left it out.
_SCALING = {"0.1": ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)), "0.0": None}


def _flat(x: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, C, h*w]. By reshape: of flatten torch.onnx makes a dozen nodes that work out the batch."""
    return x.reshape(-1, x.shape[1], x.shape[2] * x.shape[3])


def square(x: Tensor) -> Tensor:
    """x^2, the same to the bit as x.square(). As a product: torch.onnx writes Pow for that, and ONNX Runtime's CPU
    provider takes half as long again for Pow as for Mul."""
    return x * x


class Encoder(nn.Module):
    """Image -> one unit-length feature per depth.

    input "float32": float32 [N, 3, H, W], RGB in [-1, 1]; "uint8": uint8 [N, H, W, 3], RGB 0..255.
    Output k: float32 [N, C_k, h_k, w_k].

    gains: None, or one float32 [1, C_k, 1, 1] per tap that it is multiplied by before it is normalised: what
    undoes the scaling of channels in `equalisation`.
    """

    shift: Tensor
    scale: Tensor
    eps: Tensor

    def __init__(
        self,
        backbone: Backbone,
        state: dict[str, Tensor],
        *,
        version: str,
        image_input: str,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        features = backbone.features()
        features.load_state_dict({key.removeprefix("features."): value for key, value in state.items()}, strict=True)
        self.slices = nn.ModuleList(
            features[start:stop] for start, stop in zip(backbone.cuts, backbone.cuts[1:], strict=False)
        )
        self.dtype = CONVOLUTION_TYPES[precision]
        self.slices.to(self.dtype)
        self.gains: list[Tensor] | None = None
        self.uint8 = image_input == "uint8"
        self.scaled = _SCALING[version] is not None
        shift, scale = _SCALING[version] or ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        # Three dimensions, because torch.onnx's optimiser takes a 0-d constant below 1e-8 for zero and removes the
        # addition: where all channels are zero the graph would then give 0/0.
        self.register_buffer("eps", torch.full((1, 1, 1), EPS))

    def image(self, x: Tensor) -> Tensor:
        """The graph's input as float32 [N, 3, H, W] in [-1, 1]."""
        # Cast first: on uint8 NVIDIA's parser takes nothing but a Cast, neither Transpose nor Concat.
        return x.float().permute(0, 3, 1, 2) / 127.5 - 1 if self.uint8 else x

    def taps(self, x: Tensor) -> list[Tensor]:
        """Float32 [N, 3, H, W] in [-1, 1] -> what the backbone gives at each depth, float32 [N, C_k, h_k, w_k]."""
        if self.scaled:
            x = (x - self.shift) / self.scale
        x = x.to(self.dtype)
        taps = []
        for k, part in enumerate(self.slices):
            x = part(x)
            # float32 from here on: SqueezeNet's sums of squares reach 1.5e6, where half ends at 65,504.
            tap = x.float()
            taps.append(tap if self.gains is None else tap * self.gains[k])
        return taps

    def unit(self, tap: Tensor) -> Tensor:
        """A tap scaled to unit length over its channels: [N, C, h, w] -> [N, C, h*w]."""
        flat = _flat(tap)
        ones = flat.new_ones((1, flat.shape[1]))
        return flat / (torch.matmul(ones, square(flat)).sqrt() + self.eps)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        taps = self.taps(self.image(image))
        return tuple(self.unit(tap).reshape(-1, *tap.shape[1:]) for tap in taps)


class Comparator(nn.Module):
    """Unit-length features of two images -> distance [N], layers [N, L], depth_0 .. depth_{L-1} [N, h_k, w_k].

    lins: one float32 [1, C_k, 1, 1] per depth. The features of one reference broadcast over many distorted.
    """

    def __init__(self, lins: Sequence[Tensor]) -> None:
        super().__init__()
        for k, lin in enumerate(lins):
            self.register_buffer(f"lin{k}", lin.flatten(1))

    def weigh(self, differences: Sequence[Tensor], sizes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
        """Differences of unit-length features, [N, C_k, h_k*w_k] each, and each depth's h_k, w_k -> the outputs."""
        depths = [
            torch.matmul(getattr(self, f"lin{k}"), square(difference)).reshape(-1, *size)
            for k, (difference, size) in enumerate(zip(differences, sizes, strict=True))
        ]
        layers = torch.stack([depth.mean((1, 2)) for depth in depths], 1)
        return layers.sum(1), layers, *depths

    def forward(self, reference: Sequence[Tensor], distorted: Sequence[Tensor]) -> tuple[Tensor, ...]:
        differences = [_flat(a - b) for a, b in zip(reference, distorted, strict=True)]
        return self.weigh(differences, [feature.shape[2:] for feature in distorted])


class Pair(nn.Module):
    """Two images -> what Comparator gives; both go through the backbone in one batch."""

    sign: Tensor

    def __init__(self, encoder: Encoder, comparator: Comparator) -> None:
        super().__init__()
        self.encoder = encoder
        self.comparator = comparator
        self.register_buffer("sign", torch.tensor([[1.0, -1.0]]))

    def difference(self, both: Tensor) -> Tensor:
        """Features of the references, then of the distorted, [2N, C, P] -> the former less the latter, [N, C, P]."""
        # As a product, which for two terms is the same to the bit: a slice would copy, and chunk(2, 0) would freeze the
        # batch at the example's size without a word.
        return torch.matmul(self.sign, both.reshape(2, -1)).reshape(-1, *both.shape[1:])

    def forward(self, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
        # The concatenation takes images, that is, floats (see Encoder.image).
        both = torch.cat([self.encoder.image(reference), self.encoder.image(distorted)], 0)
        taps = self.encoder.taps(both)
        differences = [self.difference(self.encoder.unit(tap)) for tap in taps]
        return self.comparator.weigh(differences, [tap.shape[2:] for tap in taps])
