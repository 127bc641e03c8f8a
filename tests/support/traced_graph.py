"""Modules and graphs as they are exported, but not validated: that takes longer than what most tests look at."""

from pathlib import Path

import onnx

from lpips_export.backbones import BACKBONES
from lpips_export.metric import Comparator, Encoder, Pair
from lpips_export.spec import ExportSpec, describe
from lpips_export.tracing import trace
from lpips_export.weights import load_backbone, load_lin
from lpips_runtime.contract import ModelInfo


def pair_module(net: str, weights: Path, precision: str = "fp16") -> tuple[Pair, ModelInfo]:
    """What the pair graph of this export is traced from."""
    backbone = load_backbone(net, weights, allow_unknown=True, log=lambda _: None)
    lin = load_lin(net, "0.1")
    info = describe(ExportSpec(net=net, precision=precision), "pair", backbone, lin)
    encoder = Encoder(BACKBONES[net], backbone.state, version="0.1", image_input="float32", precision=precision)
    return Pair(encoder, Comparator(lin.tensors)).eval(), info


def pair_graph(net: str, weights: Path, precision: str = "fp16") -> tuple[onnx.ModelProto, ModelInfo]:
    module, info = pair_module(net, weights, precision)
    return trace(module.encoder, module.comparator, info), info
