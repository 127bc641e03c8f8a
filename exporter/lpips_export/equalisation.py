"""Channels of equal range: what lets eight bits per tensor serve every channel, without a change of the numbers.

A tensor has one scale in INT8, and its channels differ a hundredfold: most of them would use a few of the 256 levels.
ReLU, max pooling and concatenation commute with a positive factor per channel, so a channel can be scaled by s where
it is written (weights and bias of its convolution), by 1/s where it is read (the next convolution's weights), and by
1/s at the tap (Encoder.gains), and the metric stays what it was. Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, equalise by weights; here it is done by the activations of photographs,
as in SmoothQuant (Xiao et al., ICML 2023). Equal ranges throughout would move all of the trouble into the weights that
read them; an exponent of 0.75 shares it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from .metric import Encoder
from .vision import torchvision  # which torch and torchvision of different builds need

__all__ = ["Range", "Stage", "convolution_names", "convolutions", "equalised", "stages"]

_Fire = torchvision.models.squeezenet.Fire

# Low and high end of what is not cut off.
Range = tuple[float, float]

# Chosen on 228 pairs of 24 photographs under 19 distortions that are not those of `distortions`, AlexNet: mean error of
# a tensor 1.1 to 0.85 % (depth 0), 0.80 to 0.62 % (depth 1) against no equalisation and the best percentile for that.
_EXPONENT = 0.75
_MOST = 32.0
_CHANNEL_QUANTILE = 0.999
_TENSOR_QUANTILE = 0.99995

# Positions looked at of each image and tensor, and of all images, which bounds the memory: 0.7 GB for VGG16.
_POSITIONS, _MOST_POSITIONS = 256, 40_000
_BATCH = 8


@dataclass(eq=False)
class Stage:
    """One tensor between convolutions: who writes it (in the order of its channels), who reads it, and at which depth
    it is tapped, if at all."""

    writers: list[nn.Conv2d]
    readers: list[nn.Conv2d] = field(default_factory=list)
    tap: int | None = None


def stages(encoder: Encoder) -> list[Stage]:
    """The tensors of the backbone, in the order of the network; the image itself is none of them."""
    found: list[Stage] = []

    def step(reads: Sequence[nn.Conv2d], writers: list[nn.Conv2d]) -> None:
        if found:
            found[-1].readers.extend(reads)
        found.append(Stage(writers))

    for depth, part in enumerate(encoder.slices):
        for module in part.children():
            if isinstance(module, nn.Conv2d):
                step([module], [module])
            elif isinstance(module, _Fire):
                step([module.squeeze], [module.squeeze])
                expand = [module.expand1x1, module.expand3x3]
                step(expand, expand)
        found[-1].tap = depth
    return found


def convolutions(encoder: Encoder) -> list[nn.Conv2d]:
    """Those of the backbone, in the order in which they run, which is also their order in the graph."""
    return [module for module in encoder.slices.modules() if isinstance(module, nn.Conv2d)]


def convolution_names(encoder: Encoder) -> list[str]:
    """Names of `convolutions` below encoder.slices, as in `2.6.expand3x3`; torchvision's begin behind the first dot."""
    return [name for name, module in encoder.slices.named_modules() if isinstance(module, nn.Conv2d)]


def equalised(encoder: Encoder, images: Tensor) -> tuple[Encoder, list[tuple[Range, Range]]]:
    """A copy of the encoder with channels of nearly equal range, and for each of `convolutions` the range of what it
    reads and of what it writes (behind the ReLU).

    images: what the encoder takes, a batch of any length. The copy gives the numbers of the original up to rounding.
    """
    encoder = copy.deepcopy(encoder)
    tensors = stages(encoder)
    seen = _activations(encoder, images)
    gains = [torch.empty(0)] * len(encoder.slices)
    read: dict[nn.Conv2d, Range] = dict.fromkeys([convolutions(encoder)[0]], image_range(encoder))
    written: dict[nn.Conv2d, Range] = {}
    for stage in tensors:
        values = np.concatenate([seen[conv] for conv in stage.writers])
        scale = _scales(values)
        high = float(np.quantile(values * scale[:, None], _TENSOR_QUANTILE)) or 1.0
        read.update(dict.fromkeys(stage.readers, (0.0, high)))
        written.update(dict.fromkeys(stage.writers, (0.0, high)))
        factor = torch.from_numpy(scale)
        _scale_writers(stage.writers, factor)
        for conv in stage.readers:
            conv.weight.data /= factor.view(1, -1, 1, 1)
        if stage.tap is not None:
            gains[stage.tap] = (1 / factor).view(1, -1, 1, 1)
    encoder.gains = gains
    return encoder, [(read[conv], written[conv]) for conv in convolutions(encoder)]


def image_range(encoder: Encoder) -> Range:
    """What the first convolution reads: [-1, 1], scaled."""
    if not encoder.scaled:
        return -1.0, 1.0
    ends = [(end - encoder.shift) / encoder.scale for end in (-1, 1)]
    return float(ends[0].min()), float(ends[1].max())


def _activations(encoder: Encoder, images: Tensor) -> dict[nn.Conv2d, np.ndarray]:
    """What each convolution writes, behind the ReLU: float32 [channels, samples]."""
    found: dict[nn.Conv2d, list[np.ndarray]] = {conv: [] for conv in convolutions(encoder)}
    generator = torch.Generator().manual_seed(2018)
    positions = max(1, min(_POSITIONS, _MOST_POSITIONS // len(images)))

    def look(conv: nn.Conv2d, _: object, output: Tensor) -> None:
        flat = output.transpose(0, 1).flatten(1)
        count = min(flat.shape[1], positions * output.shape[0])
        at = torch.randint(flat.shape[1], (count,), generator=generator)
        found[conv].append(flat[:, at].clamp_min(0).numpy())

    handles = [conv.register_forward_hook(look) for conv in found]
    with torch.no_grad():
        for batch in images.split(_BATCH):
            encoder(batch)
    for handle in handles:
        handle.remove()
    return {conv: np.concatenate(parts, 1) for conv, parts in found.items()}


def _scales(values: np.ndarray) -> np.ndarray:
    """float32 [channels], at least 1: what brings the channels' ranges nearer to the largest one's."""
    ranges = np.quantile(values, _CHANNEL_QUANTILE, axis=1)
    largest = ranges.max()
    if largest == 0:  # nothing is ever active here
        return np.ones(len(ranges), np.float32)
    return np.minimum((largest / np.maximum(ranges, largest * 1e-3)) ** _EXPONENT, _MOST).astype(np.float32)


def _scale_writers(writers: Sequence[nn.Conv2d], factor: Tensor) -> None:
    start = 0
    for conv in writers:
        part = factor[start : start + conv.out_channels]
        start += conv.out_channels
        conv.weight.data *= part.view(-1, 1, 1, 1)
        assert conv.bias is not None, "every convolution of these backbones has a bias"
        conv.bias.data *= part
