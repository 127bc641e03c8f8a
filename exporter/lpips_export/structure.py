"""What must be true of a graph's structure, whatever numbers it gives.

Each rule is here because its absence once gave a graph that passed a casual look: see `RULES`. A rule is a function
of a `Graph` that yields what it finds wrong, one line each.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from lpips_runtime.contract import DISTANCE, METADATA_PREFIX, ModelInfo, depth, feature

from .backbones import BACKBONES
from .errors import StructureError
from .graph import QUANTISING, Graph, is_product_with_itself
from .layout import layout_of
from .metric import EPS
from .tracing import OPSET

__all__ = ["MAX_IR_VERSION", "RULES", "Graph", "check_structure"]

# ONNX Runtime 1.20, the oldest that the runtime admits, reads up to IR version 10.
MAX_IR_VERSION = 10

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
_INPUT_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
# Float types that may stand anywhere in a graph of this precision.
_PRECISION_TYPES = {
    "fp32": {TensorProto.FLOAT},
    "fp16": {TensorProto.FLOAT, TensorProto.FLOAT16},
    "int8": {TensorProto.FLOAT},
}
# What the backbone's convolutions compute in.
_CONVOLUTION_TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "int8": TensorProto.FLOAT}
# What a backbone consists of, and the casts into and out of it.
_HALF_OPERATORS = {"Conv", "Relu", "MaxPool", "Concat", "Cast"}
# INT8 target -> type of quantised activations.
_ACTIVATION_TYPES = {"cpu": TensorProto.UINT8, "tensorrt": TensorProto.INT8}


def _checker(graph: Graph) -> Iterator[str]:
    """The model is valid ONNX, shapes and types included."""
    try:
        onnx.checker.check_model(graph.model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"onnx.checker: {str(error).splitlines()[0]}"


def _opset(graph: Graph) -> Iterator[str]:
    """One opset, and no newer a file format than the oldest admitted ONNX Runtime reads."""
    opsets = {(entry.domain, entry.version) for entry in graph.model.opset_import}
    if opsets != {("", OPSET)}:
        yield f"opsets are {sorted(opsets)}, must be the standard one, {OPSET}"
    if graph.model.ir_version > MAX_IR_VERSION:
        yield f"IR version is {graph.model.ir_version}, must be at most {MAX_IR_VERSION}"


def _standard_operators(graph: Graph) -> Iterator[str]:
    """Standard operators only, no functions, no control flow: every runtime and engine builder takes them."""
    foreign = Counter(f"{node.domain}::{node.op_type}" for node in graph.nodes if node.domain not in ("", "ai.onnx"))
    if foreign:
        yield f"operators of other domains: {dict(foreign)}"
    if graph.model.functions:
        yield f"local functions: {[function.name for function in graph.model.functions]}"
    for node in graph.nodes:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            yield f"control flow: {node.op_type} {node.name}"


def _self_contained(graph: Graph) -> Iterator[str]:
    """One file, no external data."""
    for tensor in graph.constants.values():
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            yield f"tensor {tensor.name} lies outside the file"


def _tensors(graph: Graph) -> Iterator[str]:
    """Inputs and outputs of the contract, by name, type and dimension: a frozen axis shows as a number."""
    expected_inputs, expected_outputs = layout_of(graph.info)
    image = _INPUT_TYPES[graph.info.input] if graph.info.kind != "compare" else TensorProto.FLOAT
    sides = (
        ("input", graph.model.graph.input, expected_inputs, image),
        ("output", graph.model.graph.output, expected_outputs, TensorProto.FLOAT),
    )
    for side, values, expected, kind in sides:
        found = {
            value.name: [
                dim.dim_param or str(dim.dim_value) if dim.WhichOneof("value") else "?"
                for dim in value.type.tensor_type.shape.dim
            ]
            for value in values
        }
        if list(found) != list(expected):
            yield f"{side}s are {list(found)}, must be {list(expected)}"
            continue
        for value in values:
            if found[value.name] != list(expected[value.name]):
                yield f"{side} {value.name} is {found[value.name]}, must be {list(expected[value.name])}"
            if value.type.tensor_type.elem_type != kind:
                yield f"{side} {value.name} is {_name(value.type.tensor_type.elem_type)}, must be {_name(kind)}"


def _inputs_used(graph: Graph) -> Iterator[str]:
    """The distance depends on every input: traced with one tensor for both, a graph computes d(b, b) = 0."""
    outputs = [value.name for value in graph.model.graph.output]
    used = graph.ancestors(DISTANCE) if DISTANCE in outputs else set().union(*map(graph.ancestors, outputs))
    for value in graph.model.graph.input:
        if value.name not in used:
            yield f"input {value.name} has no influence on the result"


def _eps(graph: Graph) -> Iterator[str]:
    """sqrt(...) + 1e-10 is there, once per depth and pass, and divides: torch.onnx's optimiser removes it if it can."""
    channels = BACKBONES[graph.info.net].channels
    results, per_result = {
        # For OpenVINO each image passes through the backbone by itself.
        "pair": ([depth(k) for k in range(len(channels))], 2 if graph.info.target == "openvino" else 1),
        "features": ([feature(k) for k in range(len(channels))], 1),
        "compare": ([depth(k) for k in range(len(channels))], 0),
    }[graph.info.kind]
    norms = {node.output[0] for node in graph.nodes if _is_norm(graph, node)}
    for result in results:
        found = len(norms & graph.ancestors(result))
        if found != per_result:
            yield f"{result} divides by sqrt(...) + {EPS:g} {found} times, must be {per_result}"
    stray = [node.name for node in graph.nodes if node.op_type == "Sqrt" and not _feeds_norm(graph, node, norms)]
    if stray:
        yield f"square roots without eps: {stray}"


def _is_norm(graph: Graph, node: NodeProto) -> bool:
    if node.op_type != "Add":
        return False
    for root, constant in (node.input, reversed(node.input)):
        value = graph.scalar(constant)
        source = graph.producer.get(root)
        if value == float(np.float32(EPS)) and source is not None and source.op_type == "Sqrt":
            users = graph.consumers(node.output[0])
            return bool(users) and all(user.op_type == "Div" and user.input[1] == node.output[0] for user in users)
    return False


def _feeds_norm(graph: Graph, node: NodeProto, norms: set[str]) -> bool:
    return all(user.output[0] in norms for user in graph.consumers(node.output[0]))


def _float32_from_squares(graph: Graph) -> Iterator[str]:
    """Everything from the squares on is float32: sums of squares pass half's 65504, and CPUs hide it."""
    tainted: set[str] = set()
    for node in graph.nodes:
        if _is_square(graph, node) or tainted.intersection(node.input):
            tainted.update(node.output)
    for name in sorted(tainted):
        kind = graph.types.get(name)
        if kind is None or (kind in _FLOATS and kind != TensorProto.FLOAT):
            yield f"{name}, behind a square, is {_name(kind)}, must be float32"
    for value in graph.model.graph.output:
        if graph.info.kind != "features" and value.name not in tainted:
            yield f"{value.name} is computed without a square"


def _is_square(graph: Graph, node: NodeProto) -> bool:
    return is_product_with_itself(node) or (node.op_type == "Pow" and graph.scalar(node.input[1]) == 2)


def _precision(graph: Graph) -> Iterator[str]:
    """Float types are those of the precision, and no other; half is the backbone's, from the scaled image to the taps.

    A scaling in half stays within the limits of every case, so that numbers would not tell.
    """
    allowed = _PRECISION_TYPES[graph.info.precision]
    wrong = Counter(_name(kind) for kind in graph.types.values() if kind in _FLOATS - allowed)
    if wrong:
        yield f"values that are not {graph.info.precision}: {dict(wrong)}"
    for node in graph.nodes:
        half = [name for name in (*node.input, *node.output) if graph.types.get(name) == TensorProto.FLOAT16]
        if half and node.op_type not in _HALF_OPERATORS:
            yield f"{node.op_type} {node.name} computes in half, which only the backbone may"
        if node.op_type == "Cast" and node.output[0] in half:
            others = {user.op_type for user in graph.consumers(node.output[0])} - {"Conv"}
            if others:
                yield f"{node.output[0]} is cast to half for {', '.join(sorted(others))}; only a convolution needs it"


def _convolutions(graph: Graph) -> Iterator[str]:
    """The backbone computes in the type of the precision."""
    needed = _CONVOLUTION_TYPES[graph.info.precision]
    for node in graph.convolutions():
        found = {graph.types.get(name) for name in (*node.input, *node.output)}
        if found != {needed}:
            yield f"Conv {node.name} is {', '.join(map(_name, found))}, must be {_name(needed)}"


def _quantisation(graph: Graph) -> Iterator[str]:
    """INT8 is Q/DQ around convolutions of the backbone, in the types of the target; elsewhere there is none."""
    backbone = graph.convolutions()
    quantised = [node for node in backbone if graph.is_dequantised(node.input[1])]
    for node in backbone:
        image, weights = map(graph.is_dequantised, node.input[:2])
        if weights != image:
            yield f"Conv {node.name}: its {'weights' if weights else 'image'} alone quantised"
    for node in graph.nodes:
        if node.op_type == "MatMul" and any(map(graph.is_dequantised, node.input)):
            yield f"MatMul {node.name}: behind the backbone, quantised"
    if graph.info.precision != "int8":
        if any(node.op_type in QUANTISING for node in graph.nodes):
            yield f"quantisation in a graph of precision {graph.info.precision}"
    elif backbone and not quantised:
        yield "no convolution is quantised"
    for node in quantised if graph.info.target in _ACTIVATION_TYPES else ():
        for side, name, needed in zip(
            ("image", "weights"), node.input, (_ACTIVATION_TYPES[graph.info.target], TensorProto.INT8), strict=False
        ):
            kind = graph.types.get(graph.producer[name].input[0]) if graph.is_dequantised(name) else needed
            if kind != needed:
                yield f"Conv {node.name}: {side} in {_name(kind)}, must be {_name(needed)}"
        if graph.info.target == "tensorrt" and any(map(graph.is_dequantised, node.input[2:])):
            yield f"Conv {node.name}: a quantised bias, which NVIDIA's parser refuses"
    if graph.info.target == "tensorrt":
        for node in graph.nodes:
            if node.op_type in QUANTISING and len(node.input) > 2 and graph.is_not_zero(node.input[2]):
                yield f"{node.op_type} {node.name}: a zero point, which TensorRT does not take"


def _no_uint8_concat(graph: Graph) -> Iterator[str]:
    """NVIDIA's parser refuses Concat on uint8."""
    for node in graph.nodes:
        if node.op_type == "Concat" and graph.types.get(node.input[0]) == TensorProto.UINT8:
            yield f"Concat {node.name} joins uint8 tensors; cast each input first"


def _no_strangers(graph: Graph) -> Iterator[str]:
    """Metadata of the contract, and none of the machine that traced it."""
    found = {entry.key: entry.value for entry in graph.model.metadata_props}
    if found != graph.info.to_metadata():
        strange = sorted(set(found) ^ set(graph.info.to_metadata()))
        yield f"metadata is not that of the contract, apart from its {METADATA_PREFIX}* keys: {strange}"
    body = graph.model.graph
    for part in (
        graph.model,
        body,
        *graph.nodes,
        *body.initializer,
        *body.input,
        *body.output,
        *body.value_info,
    ):
        if part.doc_string or (part is not graph.model and part.metadata_props):
            yield f"{type(part).__name__} {getattr(part, 'name', '')!r} carries notes of the tracing machine"
            return


RULES = (
    _checker,
    _opset,
    _standard_operators,
    _self_contained,
    _tensors,
    _inputs_used,
    _eps,
    _float32_from_squares,
    _precision,
    _convolutions,
    _quantisation,
    _no_uint8_concat,
    _no_strangers,
)


def _name(kind: int | None) -> str:
    return "of unknown type" if kind is None else TensorProto.DataType.Name(kind).lower()


def check_structure(model: onnx.ModelProto, info: ModelInfo) -> tuple[str, ...]:
    """Check every rule and return their names. Raises StructureError naming the first three findings."""
    try:
        graph = Graph(model, info)
        # What is no valid ONNX breaks the assumptions of the other rules, on the number of a node's inputs say.
        findings = list(_checker(graph)) or list(_findings(graph, RULES))
    except (onnx.shape_inference.InferenceError, KeyError, ValueError) as error:
        raise StructureError(f"the graph does not type-check: {str(error).splitlines()[0]}") from error
    if findings:
        more = f" (and {len(findings) - 3} more)" if len(findings) > 3 else ""
        raise StructureError("the graph is not built as it must be: " + "; ".join(findings[:3]) + more)
    return tuple(rule.__name__.strip("_") for rule in RULES)


def _findings(graph: Graph, rules: Iterable) -> Iterator[str]:
    for rule in rules:
        yield from rule(graph)
