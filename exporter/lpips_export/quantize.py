"""INT8: Q/DQ around the backbone's convolutions, by ONNX Runtime's quantiser, with our ranges.

Two flavours, because no graph serves both: x86's 8-bit kernels take unsigned activations, biases in int32 and
quantised outputs; TensorRT wants symmetric signed activations, float biases, and a Q/DQ pair on the float weights, so
that the file keeps those. There taps are taken in float, before the next convolution's input is rounded; on the CPU a
convolution whose output is not rounded would not run in INT8 at all.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto

from .equalisation import Range
from .errors import StructureError
from .graph import backbone_convolutions

__all__ = ["FLAVOURS", "quantised"]


@dataclass(frozen=True)
class Flavour:
    """How ONNX Runtime's quantiser is called for a target, and what the graph must then satisfy.

    activation: "QUInt8" or "QInt8", the type of activations. levels: its steps from 0 to the high end of a range that
    begins at 0. rounds_outputs: whether what a convolution writes is rounded where it is written. operators: which
    are quantised. options: its extra_options. max_error: what --max-error is by default.
    """

    activation: str
    levels: int
    rounds_outputs: bool
    operators: tuple[str, ...]
    options: Mapping[str, object]
    max_error: float


FLAVOURS = {
    "cpu": Flavour(
        activation="QUInt8",
        levels=255,
        rounds_outputs=True,
        operators=("Conv", "MaxPool", "Concat"),
        options={},
        max_error=0.025,
    ),
    "tensorrt": Flavour(
        activation="QInt8",
        levels=127,
        rounds_outputs=False,
        operators=("Conv",),
        options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,  # NVIDIA's parser refuses biases in int32
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
        max_error=0.05,
    ),
}

# What a convolution's output goes through before it is read again, values unchanged or chosen among.
_CARRYING = ("Relu", "MaxPool", "Concat")


def quantised(
    model: onnx.ModelProto, ranges: Sequence[tuple[Range, Range]], target: str, in_float: Collection[int]
) -> onnx.ModelProto:
    """A copy of a traced float32 graph with its backbone in INT8.

    ranges: of what each of `backbone_convolutions` reads and writes. target: a key of FLAVOURS. in_float: numbers of
    the convolutions that stay as they are. A graph without a backbone, a comparison's, comes back unchanged.

    Raises StructureError if the graph is not one of the encoder that the ranges come from.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    convolutions = backbone_convolutions(model)
    if not convolutions:
        return model
    if len(convolutions) != len(ranges):
        raise StructureError(f"the graph has {len(convolutions)} convolutions, its encoder has {len(ranges)}")
    flavour = FLAVOURS[target]
    known = _tensor_ranges(model, convolutions, ranges)
    chosen = [node.name for number, node in enumerate(convolutions) if number not in in_float]
    if not chosen:  # ONNX Runtime's quantiser takes no names for all names
        return model
    carrying = _carrying(model, {node.output[0] for node in convolutions if node.name in chosen})
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(copy.deepcopy(model)),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType[flavour.activation],
        tensors_range=TensorsData(CalibrationMethod.MinMax, dict(known)),
        nodes_to_quantize=chosen + carrying,
        nodes_to_exclude=[],
        op_types_to_quantize=list(flavour.operators),
        extra_options=dict(flavour.options),
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    _read_unrounded(quantizer.model.model, {*chosen, *carrying})
    return _cleaned(quantizer.model.model, model)


def _carrying(model: onnx.ModelProto, rounded: set[str]) -> list[str]:
    """Names of the nodes between convolutions all of whose inputs come from outputs that are rounded."""
    names = []
    for node in model.graph.node:
        if node.op_type in _CARRYING and rounded.issuperset(node.input):
            rounded = rounded | set(node.output)
            names.append(node.name)
    return names


def _read_unrounded(model: onnx.ModelProto, quantised_nodes: Collection[str]) -> None:
    """Let what computes in float read what was written, unless that is where it was rounded.

    ONNX Runtime's quantiser puts all readers of a tensor behind the Q/DQ pair of the one that is quantised: a tap, or
    the remainder of two planes, would be rounded for the sake of the next convolution. And a convolution in float that
    reads a DequantizeLinear is none for ONNX Runtime 1.31: it quantises the weights while it optimises.
    """
    producer = {name: node for node in model.graph.node for name in node.output}

    def rounded(name: str) -> bool:
        node = producer.get(name)
        if node is None or node.op_type == "DequantizeLinear":
            return node is not None
        return node.op_type in _CARRYING and any(map(rounded, node.input))

    for node in model.graph.node:
        if node.name in quantised_nodes or node.op_type == "QuantizeLinear":
            continue
        for at, name in enumerate(node.input):
            pair = producer.get(name)
            if pair is not None and pair.op_type == "DequantizeLinear" and pair.input[0] in producer:
                written = producer[pair.input[0]].input[0]
                if node.op_type == "Conv" or not rounded(written):
                    node.input[at] = written


def _tensor_ranges(
    model: onnx.ModelProto, convolutions: Sequence[NodeProto], ranges: Sequence[tuple[Range, Range]]
) -> dict[str, tuple[np.float32, np.float32]]:
    known: dict[str, Range] = {}
    for node, (read, written) in zip(convolutions, ranges, strict=True):
        known.setdefault(node.input[0], read)
        known[node.output[0]] = written
    for node in model.graph.node:
        if node.op_type in _CARRYING and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
    return {name: (np.float32(low), np.float32(high)) for name, (low, high) in known.items()}


def _cleaned(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Without what the quantiser leaves besides the nodes: its name, opsets that nothing uses, shapes, metadata."""
    model.producer_name, model.producer_version = original.producer_name, original.producer_version
    del model.opset_import[:]
    model.opset_import.extend(original.opset_import)
    model.ir_version = original.ir_version
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    del model.graph.value_info[:]
    model.graph.name = original.graph.name
    for part in (*model.graph.node, *model.graph.initializer):
        part.doc_string = ""
    return model
