"""INT8 graphs for tests: of random weights, calibrated on photographs, without the search for what stays in float."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import needed
import numpy as np
import onnx
import torch
from PIL import Image

from benchmarks import photographs
from lpips_export.backbones import BACKBONES
from lpips_export.equalisation import equalised
from lpips_export.graph import QUANTISING, Graph
from lpips_export.metric import Comparator, Encoder
from lpips_export.planes import with_planes
from lpips_export.quantize import FLAVOURS, quantised
from lpips_export.spec import ExportSpec, describe
from lpips_export.tracing import trace
from lpips_export.weights import load_backbone, load_lin
from lpips_runtime.contract import ModelInfo


def cut_photographs() -> Iterator[Image.Image]:
    """18 pictures of 213x213 or 256x200 pixels that share none; skips where the packages are missing."""
    for name, (package, _, _) in photographs.PHOTOGRAPHS.items():
        needed.file_of(package, name)
    yield from photographs.cut_photographs()


def save_photographs(folder: Path) -> Path:
    """The same as files in a folder, half of them JPEG."""
    for number, picture in enumerate(cut_photographs()):
        # The JPEG of every other one, since that is what a user's folder holds.
        picture.save(folder / f"{number:02}.{'jpg' if number % 2 else 'png'}", quality=95)
    return folder


def photo_batch(side: int) -> np.ndarray:
    """uint8 [18, side, side, 3]: a piece of each picture."""
    return np.stack([np.asarray(picture.crop((20, 20, 20 + side, 20 + side))) for picture in cut_photographs()])


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    return images.transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1)


def weight_of(graph: Graph, convolution: onnx.NodeProto) -> onnx.TensorProto:
    """Its weights as they lie in the file, quantised or not."""
    name = convolution.input[1]
    while name in graph.producer and graph.producer[name].op_type in QUANTISING:
        name = graph.producer[name].input[0]
    return graph.constants[name]


class Int8Net:
    """A net on its way to INT8. encoder: as it is; equalised: with channels of equal range; ranges: see there."""

    def __init__(self, net: str, weights: Path) -> None:
        self.net = net
        self.backbone = load_backbone(net, weights, allow_unknown=True, log=lambda _: None)
        self.lin = load_lin(net, "0.1", None)
        self.comparator = Comparator(self.lin.tensors)
        self.encoder = Encoder(BACKBONES[net], self.backbone.state, version="0.1", image_input="float32")
        self.images = torch.from_numpy(as_float(photo_batch(96)))
        self.equalised, self.ranges = equalised(self.encoder, self.images)
        self._traced: dict[tuple, onnx.ModelProto] = {}

    def info(self, target: str = "cpu") -> ModelInfo:
        spec = ExportSpec(net=self.net, precision="int8", target=target, calibration=Path("photographs"))
        return describe(spec, "pair", self.backbone, self.lin)

    def traced(self, target: str, in_planes: Collection[int] = ()) -> onnx.ModelProto:
        """The float32 graph that is to be quantised; of both targets the same one but for its metadata."""
        levels = FLAVOURS[target].levels
        key = (frozenset(in_planes), levels if in_planes else None)
        if key not in self._traced:
            encoder = with_planes(self.equalised, in_planes, self.ranges, levels)
            self._traced[key] = trace(encoder, self.comparator, self.info())
        model = onnx.ModelProto()
        model.CopyFrom(self._traced[key])
        del model.metadata_props[:]
        for name, value in sorted(replace(self.info(), target=target).to_metadata().items()):
            model.metadata_props.add(key=name, value=value)
        return model

    def graph(self, target: str, in_float: Collection[int] = (), in_planes: Collection[int] = ()) -> onnx.ModelProto:
        return quantised(self.traced(target, in_planes), self.ranges, target, in_float)
