"""Every rule of structure.py fires on a graph that breaks it, and on no graph that does not."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from traced_graph import pair_graph

from lpips_export import structure
from lpips_export.errors import StructureError
from lpips_export.graph import backbone_convolutions
from lpips_export.quantize import FLAVOURS, quantised
from lpips_export.structure import RULES, check_structure
from lpips_runtime.contract import ModelInfo

Exported = Callable[..., list[Path]]
Backbones = Callable[[str], Path]
Loaded = tuple[onnx.ModelProto, ModelInfo]


def load(path: Path) -> Loaded:
    model = onnx.load(path)
    return model, ModelInfo.from_metadata({entry.key: entry.value for entry in model.metadata_props}, path)


def relabelled(model: onnx.ModelProto, info: ModelInfo, **fields: str) -> Loaded:
    """A copy of the model whose metadata says something else."""
    model, info = copy.deepcopy(model), replace(info, **fields)
    del model.metadata_props[:]
    for key, value in sorted(info.to_metadata().items()):
        model.metadata_props.add(key=key, value=value)
    return model, info


def in_int8(model: onnx.ModelProto, info: ModelInfo, target: str) -> Loaded:
    """The graph with its backbone in INT8. Nothing here looks at the numbers, so the ranges are made up: the scaled
    image's, and the same behind every ReLU."""
    ranges = [
        ((-2.2, 2.7) if number == 0 else (0.0, 6.0), (0.0, 6.0)) for number in range(len(backbone_convolutions(model)))
    ]
    return relabelled(quantised(model, ranges, target, frozenset()), info, precision="int8", target=target)


@pytest.fixture(scope="module")
def graph_of(exported: Exported, random_backbone: Backbones) -> Callable[[str], Loaded]:
    """Precision, or an INT8 target -> a sound graph of AlexNet and its metadata; a copy, to be spoilt."""
    made: dict[str, Loaded] = {}

    def find(which: str) -> Loaded:
        if which not in made:
            made[which] = {
                "fp32": lambda: load(exported(net="alex", input="uint8")[0]),
                "fp16": lambda: pair_graph("alex", random_backbone("alex")),
                "cpu": lambda: in_int8(*find("fp32"), "cpu"),
                "tensorrt": lambda: in_int8(*find("fp32"), "tensorrt"),
            }[which]()
        model, info = made[which]
        return copy.deepcopy(model), info

    return find


def wrong_type(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "Rleu"


def newer_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 19


def custom_operator(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)
    next(node for node in model.graph.node if node.op_type == "Relu").domain = "com.microsoft"


def external(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")


def frozen_axis(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 96


def unused_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["distorted" if name == "reference" else name for name in node.input]


def eps_removed(model: onnx.ModelProto) -> None:
    norm = next(node for node in model.graph.node if node.op_type == "Add" and "eps" in "".join(node.input))
    root = next(name for name in norm.input if "eps" not in name)
    for node in model.graph.node:
        node.input[:] = [root if name == norm.output[0] else name for name in node.input]
    model.graph.node.remove(norm)


def eps_of_another_size(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if "eps" in tensor.name)
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.full_like(value, 1e-8), tensor.name))


def through(model: onnx.ModelProto, operator: str, kind: int) -> None:
    """float32 -> another type -> float32 before the first node of this operator."""
    graph = model.graph
    at, node = next((i, node) for i, node in enumerate(graph.node) if node.op_type == operator)
    source, node.input[0] = node.input[0], "cast_back"
    graph.node.insert(at, helper.make_node("Cast", ["cast_away"], ["cast_back"], to=TensorProto.FLOAT))
    graph.node.insert(at, helper.make_node("Cast", [source], ["cast_away"], to=kind))


def half_behind_the_squares(model: onnx.ModelProto) -> None:
    through(model, "Sqrt", TensorProto.FLOAT16)


def half_before_the_squares(model: onnx.ModelProto) -> None:
    through(model, "Relu", TensorProto.FLOAT16)


def half_before_the_scaling(model: onnx.ModelProto) -> None:
    through(model, "Sub", TensorProto.FLOAT16)


def uint8_concat(model: onnx.ModelProto) -> None:
    graph = model.graph
    graph.node.insert(0, helper.make_node("Concat", ["reference", "distorted"], ["joined"], axis=0))


def strangers_note(model: onnx.ModelProto) -> None:
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File metric.py, line 1")


def strangers_key(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="author", value="somebody")


# --- half


def producer(model: onnx.ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def recast(model: onnx.ModelProto, node: NodeProto, numbers: tuple[int, ...], kind: int) -> None:
    """Have a node read some of its inputs, and write its output, in another type, and cast around it."""
    graph = model.graph
    before = graph.node[:]
    at = next(number for number, other in enumerate(before) if other is node)
    outer = TensorProto.FLOAT16 if kind == TensorProto.FLOAT else TensorProto.FLOAT
    casts = []
    for number in numbers:
        name = node.input[number]
        casts.append(helper.make_node("Cast", [name], [f"{name}_recast"], to=kind))
        node.input[number] = f"{name}_recast"
    result = node.output[0]
    node.output[0] = f"{result}_recast"
    back = helper.make_node("Cast", [node.output[0]], [result], to=outer)
    after = [copy.deepcopy(other) for other in (*before[:at], *casts, node, back, *before[at + 1 :])]
    del graph.node[:]
    graph.node.extend(after)


def one_convolution_in_float32(model: onnx.ModelProto) -> None:
    recast(model, backbone_convolutions(model)[2], (0, 1, 2), TensorProto.FLOAT)


def first_lin(model: onnx.ModelProto) -> tuple[NodeProto, TensorProto]:
    weights = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("lin0"))
    return next(node for node in model.graph.node if weights.name in node.input), weights


def lin_in_half(model: onnx.ModelProto) -> None:
    lin, weights = first_lin(model)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), weights.name))
    recast(model, lin, (1,), TensorProto.FLOAT16)


def scaling_in_half(model: onnx.ModelProto) -> None:
    """The image is cast before the scaling instead of after, which no number shows: see test_half.py."""
    recast(model, next(node for node in model.graph.node if node.op_type == "Sub"), (0, 1), TensorProto.FLOAT16)


def tap_scaled_in_half(model: onnx.ModelProto) -> None:
    """Between the backbone and the cast to float32, where it would be harmless if half had the range."""
    graph = model.graph
    back = [node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT]
    at = list(graph.node).index(back[1])
    graph.initializer.append(numpy_helper.from_array(np.full((1, 1, 1, 1), 200, np.float16), "a_gain"))
    source, graph.node[at].input[0] = graph.node[at].input[0], "a_scaled_tap"
    graph.node.insert(at, helper.make_node("Mul", [source, "a_gain"], ["a_scaled_tap"]))


def one_tap_squared_in_half(model: onnx.ModelProto) -> None:
    square = next(node for node in model.graph.node if node.op_type == "Mul" and node.input[0] == node.input[1])
    square.input[1] = f"{square.input[0]}_recast"  # one cast serves both
    recast(model, square, (0,), TensorProto.FLOAT16)


def double_before_the_squares(model: onnx.ModelProto) -> None:
    through(model, "Div", TensorProto.DOUBLE)


# --- INT8


def quantised_float32(model: onnx.ModelProto) -> None:
    """One Q/DQ pair in a graph that is to be float32."""
    graph = model.graph
    node = next(node for node in graph.node if node.op_type == "Relu")
    at = list(graph.node).index(node)
    graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "a_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "a_zero"))
    source, node.input[0] = node.input[0], "a_dequantised"
    graph.node.insert(at, helper.make_node("DequantizeLinear", ["a_quantised", "a_scale", "a_zero"], ["a_dequantised"]))
    graph.node.insert(at, helper.make_node("QuantizeLinear", [source, "a_scale", "a_zero"], ["a_quantised"]))


def quantised_convolutions(model: onnx.ModelProto) -> list[NodeProto]:
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[0] in dequantised]


def weights_in_float(model: onnx.ModelProto) -> None:
    """One convolution reads INT8, its weights are float."""
    node = quantised_convolutions(model)[1]
    producers = {name: other for other in model.graph.node for name in other.output}
    source = node.input[1]
    while source in producers:
        source = producers[source].input[0]
    kept = next(tensor for tensor in model.graph.initializer if tensor.name == source)
    floats = numpy_helper.to_array(kept).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(floats, "float_weights"))
    node.input[1] = "float_weights"


def image_in_float(model: onnx.ModelProto) -> None:
    """One convolution's weights are INT8, what it reads is not."""
    node = quantised_convolutions(model)[1]
    node.input[0] = producer(model, producer(model, node.input[0]).input[0]).input[0]


def nothing_quantised(model: onnx.ModelProto) -> None:
    """Q/DQ taken out again, weights back in float."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    renamed: dict[str, str] = {}
    for node in list(model.graph.node):
        if node.op_type == "QuantizeLinear":
            renamed[node.output[0]] = node.input[0]
            model.graph.node.remove(node)
        elif node.op_type == "DequantizeLinear":
            source = node.input[0]
            if source in constants:
                floats = numpy_helper.to_array(constants[source]).astype(np.float32)
                model.graph.initializer.append(numpy_helper.from_array(floats, node.output[0]))
            else:
                renamed[node.output[0]] = source
            model.graph.node.remove(node)
    for node in model.graph.node:
        for number, name in enumerate(node.input):
            while name in renamed:
                name = renamed[name]
            node.input[number] = name


def quantised_lin(model: onnx.ModelProto) -> None:
    graph = model.graph
    lin, _ = first_lin(model)
    at = list(graph.node).index(lin)
    graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "lin_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "lin_zero"))
    for number in (0, 1):
        name, q, dq = lin.input[number], f"lin_{number}_q", f"lin_{number}_dq"
        lin.input[number] = dq
        graph.node.insert(at, helper.make_node("DequantizeLinear", [q, "lin_scale", "lin_zero"], [dq]))
        graph.node.insert(at, helper.make_node("QuantizeLinear", [name, "lin_scale", "lin_zero"], [q]))


def quantised_bias(model: onnx.ModelProto) -> None:
    """As ONNX Runtime does it unless told otherwise: int32, with the scale of image times weights."""
    node = quantised_convolutions(model)[0]
    graph = model.graph
    count = {tensor.name: tensor for tensor in graph.initializer}[node.input[2]].dims[0]
    graph.initializer.append(numpy_helper.from_array(np.zeros(count, np.int32), "bias_q"))
    graph.initializer.append(numpy_helper.from_array(np.full(count, 1e-3, np.float32), "bias_scale"))
    graph.node.insert(0, helper.make_node("DequantizeLinear", ["bias_q", "bias_scale"], ["bias_dq"], axis=0))
    next(other for other in graph.node if other.name == node.name).input[2] = "bias_dq"


def zero_point(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    zero = numpy_helper.to_array({t.name: t for t in model.graph.initializer}[node.input[2]])
    model.graph.initializer.append(numpy_helper.from_array(np.full_like(zero, 3), "a_zero_point"))
    for other in model.graph.node:
        if other is node or (other.op_type == "DequantizeLinear" and other.input[0] == node.output[0]):
            other.input[2] = "a_zero_point"


def says_tensorrt(model: onnx.ModelProto) -> None:
    """A graph of the other flavour: unsigned activations, biases in int32."""
    next(entry for entry in model.metadata_props if entry.key == "lpips.target").value = "tensorrt"


def says_cpu(model: onnx.ModelProto) -> None:
    next(entry for entry in model.metadata_props if entry.key == "lpips.target").value = "cpu"


def says_fp32(model: onnx.ModelProto) -> None:
    values = {"lpips.precision": "fp32", "lpips.target": ""}
    for entry in list(model.metadata_props):
        entry.value = values.get(entry.key, entry.value)


# The rule, what breaks it, and of which graph: a precision, or the target of an INT8 one.
MUTATIONS = [
    ("_checker", wrong_type, "fp32"),
    ("_opset", newer_opset, "fp32"),
    ("_standard_operators", custom_operator, "fp32"),
    ("_self_contained", external, "fp32"),
    ("_tensors", frozen_axis, "fp32"),
    ("_inputs_used", unused_input, "fp32"),
    ("_eps", eps_removed, "fp32"),
    ("_eps", eps_of_another_size, "fp32"),
    ("_eps", eps_removed, "fp16"),
    ("_float32_from_squares", half_behind_the_squares, "fp32"),
    ("_float32_from_squares", half_behind_the_squares, "fp16"),
    ("_float32_from_squares", half_behind_the_squares, "cpu"),
    ("_float32_from_squares", one_tap_squared_in_half, "fp16"),
    ("_float32_from_squares", lin_in_half, "fp16"),
    ("_precision", half_before_the_squares, "fp32"),
    ("_precision", half_before_the_squares, "tensorrt"),
    ("_precision", double_before_the_squares, "fp16"),
    ("_precision", scaling_in_half, "fp16"),
    ("_precision", lin_in_half, "fp16"),
    ("_precision", half_before_the_scaling, "fp16"),
    ("_precision", tap_scaled_in_half, "fp16"),
    ("_convolutions", one_convolution_in_float32, "fp16"),
    ("_quantisation", quantised_float32, "fp32"),
    ("_quantisation", says_fp32, "cpu"),
    ("_quantisation", weights_in_float, "cpu"),
    ("_quantisation", weights_in_float, "tensorrt"),
    ("_quantisation", image_in_float, "cpu"),
    ("_quantisation", nothing_quantised, "cpu"),
    ("_quantisation", quantised_lin, "cpu"),
    ("_quantisation", quantised_lin, "tensorrt"),
    ("_quantisation", says_tensorrt, "cpu"),
    ("_quantisation", says_cpu, "tensorrt"),
    ("_quantisation", quantised_bias, "tensorrt"),
    ("_quantisation", zero_point, "tensorrt"),
    ("_no_uint8_concat", uint8_concat, "fp32"),
    ("_no_strangers", strangers_note, "fp32"),
    ("_no_strangers", strangers_key, "fp32"),
]


@pytest.mark.parametrize(
    ("rule", "mutate", "which"),
    MUTATIONS,
    ids=[f"{rule}-{mutate.__name__}-{which}" for rule, mutate, which in MUTATIONS],
)
def test_a_rule_fires_on_the_graph_that_breaks_it(
    rule: str, mutate: Callable[[onnx.ModelProto], None], which: str, graph_of: Callable[[str], Loaded]
) -> None:
    model, info = graph_of(which)
    mutate(model)
    if mutate in (says_tensorrt, says_cpu, says_fp32):
        info = ModelInfo.from_metadata({entry.key: entry.value for entry in model.metadata_props}, Path("x.onnx"))
    with pytest.raises(StructureError):
        check_structure(model, info)
    try:
        graph = structure.Graph(model, info)
    except onnx.shape_inference.InferenceError:
        assert rule == "_checker"
        return
    assert list(getattr(structure, rule)(graph)), f"{rule} itself finds nothing"


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    assert {rule for rule, *_ in MUTATIONS} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_what_is_exported_keeps_every_rule(net: str, exported: Exported) -> None:
    for path in exported(net=net, split=True):
        model, info = load(path)
        assert check_structure(model, info) == tuple(rule.__name__.strip("_") for rule in RULES)


@pytest.mark.parametrize("target", FLAVOURS)
@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_what_is_quantised_keeps_every_rule(net: str, target: str, exported: Exported) -> None:
    for path in exported(net=net, split=True):
        # The comparison has no convolution of the backbone, and stays as it is.
        assert check_structure(*in_int8(*load(path), target))


def test_no_byte_of_a_model_names_a_file_of_the_machine(exported: Exported) -> None:
    for path in exported(net="alex", split=True):
        data = path.read_bytes()
        for trace in (
            b".py",
            b"site-packages",
            b"lpips_export/",
            b"stack_trace",
            str(Path.home()).encode() + b"/",
        ):
            assert trace not in data, f"{trace!r} in {path.name}"


def test_no_module_shadows_one_of_the_standard_library() -> None:
    """A module named inspect.py or trace.py breaks every script that is run from its folder."""
    import sys

    import lpips_export
    import lpips_runtime

    for package in (lpips_export, lpips_runtime):
        names = {path.stem for folder in package.__path__ for path in Path(folder).glob("*.py")}
        assert not names & sys.stdlib_module_names
