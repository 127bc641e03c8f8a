"""Sizes in a graph are copied, left to Reshape, or those of a tensor at hand: none is worked out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from traced_graph import pair_graph

from lpips_export import tracing
from lpips_export.shapes import simplify_reshapes

Backbones = Callable[[str], Path]


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, inputs)]


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_no_size_is_worked_out_in_what_is_exported(net: str, exported: Callable[..., list[Path]]) -> None:
    for path in exported(net=net, split=True):
        graph = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True).graph
        integers = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.INT64}
        makers = {node.op_type for node in graph.node if integers.intersection(node.output)}
        assert makers <= {"Shape", "Concat"}, path.name
        constants = {tensor.name for tensor in graph.initializer}
        assert constants <= {name for node in graph.node for name in node.input}, "nothing is left over"


def test_the_numbers_stay_what_they_were(random_backbone: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    simple, _ = pair_graph("alex", random_backbone("alex"), "fp32")
    monkeypatch.setattr(tracing, "simplify_reshapes", lambda model: 0)
    plain, _ = pair_graph("alex", random_backbone("alex"), "fp32")
    assert len(simple.graph.node) < len(plain.graph.node)
    rng = np.random.default_rng(0)
    for count, height, width in ((1, 31, 31), (3, 65, 97), (2, 203, 48)):
        inputs = {
            name: rng.uniform(-1, 1, (count, 3, height, width)).astype(np.float32)
            for name in ("reference", "distorted")
        }
        for ours, theirs in zip(run(simple, inputs), run(plain, inputs), strict=True):
            assert np.array_equal(ours, theirs)


def model_of(after: list[int | str], *, told: bool = True) -> onnx.ModelProto:
    """x [n, 4, h, w] -> Reshape to a target that is worked out, of which shape inference says `after` if told."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Mul", ["shape", "one"], ["target"]),
        helper.make_node("Reshape", ["x", "target"], ["y"], allowzero=1),
        helper.make_node("Identity", ["y"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(4, np.int64), "one")],
        value_info=[helper.make_tensor_value_info("y", TensorProto.FLOAT, after)] if told else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def target_of(model: onnx.ModelProto) -> list[int] | None:
    (reshape,) = (node for node in model.graph.node if node.op_type == "Reshape")
    constants = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer}
    return constants.get(reshape.input[1])


@pytest.mark.parametrize(
    ("after", "target"),
    [(["n", 4, "h*w"], [0, 4, -1]), (["n", 4, "h", "w"], [0, 4, 0, 0]), ([2, "2*n*h*w"], [2, -1])],
)
def test_what_is_copied_or_left_to_reshape_becomes_a_constant(after: list[int | str], target: list[int]) -> None:
    model = model_of(after)
    assert simplify_reshapes(model) == 0
    assert target_of(model) == target
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Identity"]


def test_what_remains_is_the_shape_of_what_it_was_computed_from() -> None:
    model = model_of(["4*n", "h", "w"])
    assert simplify_reshapes(model) == 0
    assert [node.op_type for node in model.graph.node] == ["Shape", "Concat", "Reshape", "Identity"]
    (output,) = run(model, {"x": np.zeros((2, 4, 3, 5), np.float32)})
    assert output.shape == (8, 3, 5)


@pytest.mark.parametrize("model", [model_of([], told=False), model_of(["a", "b", "c"])], ids=["untold", "nowhere"])
def test_what_nothing_is_known_of_stays(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert simplify_reshapes(model) == 1
    assert model.SerializeToString() == before
