"""Every rule of structure.py fires on a graph that breaks it, and on no graph that does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lpips_export import structure
from lpips_export.errors import StructureError
from lpips_export.structure import RULES, check_structure
from lpips_runtime.contract import ModelInfo

Exported = Callable[..., list[Path]]


def load(path: Path) -> tuple[onnx.ModelProto, ModelInfo]:
    model = onnx.load(path)
    return model, ModelInfo.from_metadata({entry.key: entry.value for entry in model.metadata_props}, path)


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


def through_half(model: onnx.ModelProto, operator: str) -> None:
    """float32 -> half -> float32 before the first node of this operator."""
    graph = model.graph
    at, node = next((i, node) for i, node in enumerate(graph.node) if node.op_type == operator)
    source = node.input[0]
    graph.node.insert(at, helper.make_node("Cast", ["a_half"], ["a_float"], to=TensorProto.FLOAT))
    graph.node.insert(at, helper.make_node("Cast", [source], ["a_half"], to=TensorProto.FLOAT16))
    node.input[0] = "a_float"


def half_behind_the_squares(model: onnx.ModelProto) -> None:
    through_half(model, "Sqrt")


def half_before_the_squares(model: onnx.ModelProto) -> None:
    through_half(model, "Relu")


def uint8_concat(model: onnx.ModelProto) -> None:
    graph = model.graph
    graph.node.insert(0, helper.make_node("Concat", ["reference", "distorted"], ["joined"], axis=0))


def strangers_note(model: onnx.ModelProto) -> None:
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File metric.py, line 1")


def strangers_key(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="author", value="somebody")


MUTATIONS = [
    ("_checker", wrong_type),
    ("_opset", newer_opset),
    ("_standard_operators", custom_operator),
    ("_self_contained", external),
    ("_tensors", frozen_axis),
    ("_inputs_used", unused_input),
    ("_eps", eps_removed),
    ("_eps", eps_of_another_size),
    ("_float32_from_squares", half_behind_the_squares),
    ("_precision", half_before_the_squares),
    ("_no_uint8_concat", uint8_concat),
    ("_no_strangers", strangers_note),
    ("_no_strangers", strangers_key),
]


@pytest.mark.parametrize(("rule", "mutate"), MUTATIONS, ids=[mutate.__name__ for _, mutate in MUTATIONS])
def test_a_rule_fires_on_the_graph_that_breaks_it(
    rule: str, mutate: Callable[[onnx.ModelProto], None], exported: Exported
) -> None:
    (path,) = exported(net="alex", input="uint8")
    model, info = load(path)
    mutate(model)
    with pytest.raises(StructureError):
        check_structure(model, info)
    try:
        graph = structure.Graph(model, info)
    except onnx.shape_inference.InferenceError:
        assert rule == "_checker"
        return
    assert list(getattr(structure, rule)(graph)), f"{rule} itself finds nothing"


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    assert {rule for rule, _ in MUTATIONS} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_what_is_exported_keeps_every_rule(net: str, exported: Exported) -> None:
    for path in exported(net=net, split=True):
        model, info = load(path)
        assert check_structure(model, info) == tuple(rule.__name__.strip("_") for rule in RULES)


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
