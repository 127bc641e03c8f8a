"""The table of backbones: where torchvision's `features` are cut, and what follows from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from lpips_runtime.contract import BACKBONE_SHA256

from .vision import torchvision

__all__ = ["BACKBONES", "STRIDE", "Backbone"]

# All three nets halve their resolution four times on the way to the last tap.
STRIDE = 16


@dataclass(frozen=True)
class Backbone:
    """One of the networks LPIPS is defined on.

    net: name in LPIPS. model: torchvision constructor. file: stem of its weight file. url: torchvision's
    IMAGENET1K_V1 weights. cuts: slice k of `features` is [cuts[k]:cuts[k+1]], its output is tap k. channels: of
    each tap. min_size: smallest height and width, pixels, that every tap survives. halo: pixels around a tile that
    its positions depend on, a multiple of the stride.
    """

    net: str
    model: Callable[..., Any]
    file: str
    url: str
    cuts: tuple[int, ...]
    channels: tuple[int, ...]
    min_size: int
    halo: int

    @property
    def sha256(self) -> str:
        """Tensor hash of torchvision's weights, `features` only: 64 hexadecimal digits."""
        return BACKBONE_SHA256[self.net]

    def features(self) -> nn.Sequential:
        """Fresh `features` with random weights, in evaluation mode."""
        features = self.model(weights=None).features[: self.cuts[-1]].eval()
        return features.requires_grad_(False)


_models = torchvision.models

BACKBONES = {
    backbone.net: backbone
    for backbone in (
        Backbone(
            net="alex",
            model=_models.alexnet,
            file="alexnet",
            url=_models.AlexNet_Weights.IMAGENET1K_V1.url,
            cuts=(0, 2, 5, 8, 10, 12),
            channels=(64, 192, 384, 256, 256),
            min_size=31,
            halo=96,
        ),
        Backbone(
            net="vgg",
            model=_models.vgg16,
            file="vgg16",
            url=_models.VGG16_Weights.IMAGENET1K_V1.url,
            cuts=(0, 4, 9, 16, 23, 30),
            channels=(64, 128, 256, 512, 512),
            min_size=16,
            halo=96,
        ),
        Backbone(
            net="squeeze",
            model=_models.squeezenet1_1,
            file="squeezenet1_1",
            url=_models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url,
            cuts=(0, 2, 5, 8, 10, 11, 12, 13),
            channels=(64, 128, 256, 384, 384, 512, 512),
            min_size=17,
            halo=112,
        ),
    )
}
