"""Q/DQ graphs in both flavours, and convolutions that read two planes."""

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from int8_graph import Int8Net, as_float, photo_batch, weight_of
from onnx import NodeProto, TensorProto, numpy_helper
from torch import nn

from lpips_export import trt, trt_library
from lpips_export.backbones import BACKBONES
from lpips_export.equalisation import convolutions, stages
from lpips_export.errors import StructureError
from lpips_export.graph import backbone_convolutions
from lpips_export.planes import FINER, TwoPlanes, with_planes
from lpips_export.profiles import EngineSpec
from lpips_export.quantize import FLAVOURS, quantised
from lpips_export.structure import RULES, Graph, check_structure
from lpips_export.tracing import OPSET, serialized
from lpips_runtime.contract import DISTANCE, DISTORTED, REFERENCE, depth

Int8Nets = Callable[[str], Int8Net]

every_net = pytest.mark.parametrize("net", BACKBONES)
both = pytest.mark.parametrize("target", FLAVOURS)


def session(model: onnx.ModelProto, optimised: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def pair(height: int = 96, width: int = 96, count: int = 4) -> dict[str, np.ndarray]:
    """Photographs, and the same darker and noisy."""
    images = as_float(photo_batch(96)[:count, :height, :width])
    noise = np.random.default_rng(0).normal(0, 0.15, images.shape).astype(np.float32)
    return {REFERENCE: images, DISTORTED: np.clip(0.8 * images + noise, -1, 1)}


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray], outputs: list[str] | None = None) -> list[np.ndarray]:
    return [np.asarray(value) for value in session(model).run(outputs or [DISTANCE], inputs)]


def quantised_convolutions(model: onnx.ModelProto, net: Int8Net) -> list[bool]:
    """Of each convolution of the backbone, in the order of the graph, whether it reads and weighs in 8 bits."""
    graph = Graph(model, net.info())
    backbone = graph.convolutions()
    return [all(map(graph.is_dequantised, node.input[:2])) for node in backbone]


# --- what is built


@every_net
@both
def test_every_flavour_of_every_net_keeps_the_rules_of_structure(int8_net: Int8Nets, net: str, target: str) -> None:
    model, plain = int8_net(net).graph(target), int8_net(net).traced(target)
    onnx.checker.check_model(model, full_check=True)
    assert len(check_structure(model, int8_net(net).info(target))) == len(RULES)
    assert all(quantised_convolutions(model, int8_net(net)))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    for name in ("producer_name", "producer_version", "ir_version"):
        assert getattr(model, name) == getattr(plain, name)
    for name in ("metadata_props",):
        assert list(getattr(model, name)) == list(getattr(plain, name))
    assert model.graph.name == plain.graph.name
    assert list(model.graph.input) == list(plain.graph.input)
    assert list(model.graph.output) == list(plain.graph.output)


@both
def test_the_graph_that_is_given_stays_as_it_is_and_the_result_is_always_the_same(
    int8_net: Int8Nets, target: str
) -> None:
    net = int8_net("alex")
    plain = net.traced(target)
    before = plain.SerializeToString(deterministic=True)
    one, other = (serialized(quantised(plain, net.ranges, target, {0})) for _ in range(2))
    assert plain.SerializeToString(deterministic=True) == before
    assert one == other


@every_net
def test_the_cpu_flavour_runs_every_convolution_in_8_bits(int8_net: Int8Nets, net: str, tmp_path: Path) -> None:
    """ONNX Runtime's optimiser turns Q/DQ into integer kernels only where it recognises the pattern; and where it sees
    more of it than there is, as once with SqueezeNet's number 3, whose input and output others round."""
    for in_float in (frozenset[int](), frozenset({0, 3}), frozenset({1, 2})):
        path = tmp_path / f"{len(in_float)}.onnx"
        session(int8_net(net).graph("cpu", in_float), path)
        optimised = onnx.load(path).graph
        count = Counter(node.op_type for node in optimised.node if not is_depthwise(node))
        assert count["QLinearConv"] == len(convolutions(int8_net(net).encoder)) - len(in_float)
        assert count["Conv"] + count["FusedConv"] == len(in_float), "all others"
        assert not count["ConvInteger"]


def is_depthwise(node: NodeProto) -> bool:
    """What ONNX Runtime makes of a multiplication by gains, where the tap is in its blocked layout."""
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def test_weights_are_stored_in_a_byte_each_for_cpus_and_in_float_for_tensorrt(int8_net: Int8Nets) -> None:
    parameters = sum(conv.weight.numel() for conv in convolutions(int8_net("alex").encoder))
    cpu, tensorrt = (len(serialized(int8_net("alex").graph(target))) for target in FLAVOURS)
    assert parameters < cpu < 1.1 * parameters
    assert 4 * parameters < tensorrt < 4.6 * parameters


@every_net
def test_the_tensorrt_flavour_is_as_nvidias_parser_wants_it(int8_net: Int8Nets, net: str) -> None:
    model = int8_net(net).graph("tensorrt", in_float={1})
    graph = Graph(model, int8_net(net).info("tensorrt"))
    plain = {tensor.name: tensor for tensor in int8_net(net).traced("tensorrt").graph.initializer}
    backbone = graph.convolutions()
    for node, original in zip(backbone, backbone_convolutions(int8_net(net).traced("tensorrt")), strict=True):
        weight = weight_of(graph, node)
        assert weight.data_type == TensorProto.FLOAT
        assert np.array_equal(numpy_helper.to_array(weight), numpy_helper.to_array(plain[original.input[1]]))
        assert not any(map(graph.is_dequantised, node.input[2:])), "NVIDIA's parser refuses biases in int32"
    assert not any(tensor.data_type == TensorProto.INT32 for tensor in model.graph.initializer)
    assert not any(tensor.data_type == TensorProto.UINT8 for tensor in model.graph.initializer)
    points = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert points
    assert not any(graph.is_not_zero(name) for name in points)


@every_net
def test_taps_are_rounded_on_the_cpu_and_not_for_tensorrt(int8_net: Int8Nets, net: str) -> None:
    """A convolution whose output is not rounded does not run in INT8 on a CPU; TensorRT's do, and keep the tap."""
    directly = {}
    for target in FLAVOURS:
        graph = Graph(int8_net(net).graph(target), int8_net(net).info(target))
        directly[target] = [list(behind_the_square(graph, depth(k))) for k in range(len(BACKBONES[net].channels))]
    assert all("DequantizeLinear" not in path for path in directly["tensorrt"])
    assert all("DequantizeLinear" in path for path in directly["cpu"])


def test_a_tap_that_was_written_in_float_is_not_rounded_for_the_sake_of_the_next_convolution(
    int8_net: Int8Nets,
) -> None:
    net = int8_net("alex")
    graph = Graph(net.graph("cpu", in_float={2}), net.info())
    rounded = ["DequantizeLinear" in list(behind_the_square(graph, depth(k))) for k in range(5)]
    assert rounded == [True, True, False, True, True]


def test_a_remainder_is_taken_of_what_was_written_although_another_convolution_rounds_it(int8_net: Int8Nets) -> None:
    """SqueezeNet's expand1x1 and expand3x3 read one tensor: planes for one of them, and a Q/DQ pair for the other."""
    net = int8_net("squeeze")
    graph = Graph(net.graph("tensorrt", in_planes={2}), net.info("tensorrt"))
    (floor,) = (node for node in graph.nodes if node.op_type == "Floor")
    (division,) = (node for node in graph.nodes if node.output[0] == floor.input[0])
    assert not graph.is_dequantised(division.input[0])
    (others_pair,) = (
        node for node in graph.nodes if node.op_type == "QuantizeLinear" and node.input[0] == division.input[0]
    )
    assert others_pair


def behind_the_square(graph: Graph, name: str) -> Iterator[str]:
    """Operators from what is normalised for this depth back to the convolutions, theirs left out."""
    norm = next(node for node in graph.nodes if node.op_type == "Div" and node.output[0] in nearest_norms(graph, name))
    waiting = [norm.input[0]]
    while waiting:
        node = graph.producer.get(waiting.pop())
        if node is not None and node.op_type != "Conv":
            yield node.op_type
            waiting.append(node.input[0])
            if node.op_type == "Concat":
                waiting.extend(node.input[1:])


def nearest_norms(graph: Graph, name: str) -> set[str]:
    """The quotient that this depth is computed from: the only one that no convolution of the backbone lies behind."""
    backbone = graph.convolutions()
    inner = {node.output[0] for node in backbone}
    seen: set[str] = set()
    waiting = [name]
    found: set[str] = set()
    while waiting:
        current = waiting.pop()
        if current in seen or current in inner:
            continue
        seen.add(current)
        node = graph.producer.get(current)
        if node is None:
            continue
        if node.op_type == "Div":
            found.add(current)
        else:
            waiting.extend(node.input)
    return found


@pytest.mark.parametrize("in_float", [frozenset({0}), frozenset({2, 3}), frozenset({0, 1, 4})], ids=sorted)
@both
def test_what_is_to_stay_in_float_stays_and_nothing_else(
    int8_net: Int8Nets, target: str, in_float: frozenset[int]
) -> None:
    model = int8_net("alex").graph(target, in_float)
    assert quantised_convolutions(model, int8_net("alex")) == [number not in in_float for number in range(5)]
    check_structure(model, int8_net("alex").info(target))


def test_with_all_in_float_nothing_is_quantised_and_structure_says_so(int8_net: Int8Nets) -> None:
    model = int8_net("alex").graph("cpu", in_float=range(5))
    with pytest.raises(StructureError, match="no convolution is quantised"):
        check_structure(model, int8_net("alex").info())


def test_a_graph_without_a_backbone_is_left_alone_and_one_of_another_net_refused(int8_net: Int8Nets) -> None:
    lins_only = copy.deepcopy(int8_net("alex").traced("cpu"))
    for node in backbone_convolutions(lins_only):
        lins_only.graph.node.remove(node)
    assert quantised(lins_only, int8_net("alex").ranges, "cpu", ()) is lins_only
    with pytest.raises(StructureError, match="the graph has 5 convolutions, its encoder has 25"):
        quantised(int8_net("alex").traced("cpu"), int8_net("squeeze").ranges, "cpu", ())


# --- what it computes


@every_net
@both
def test_the_numbers_are_near_those_of_float32(int8_net: Int8Nets, net: str, target: str) -> None:
    (exact,) = run(int8_net(net).traced(target), pair())
    (found,) = run(int8_net(net).graph(target), pair())
    assert exact.min() > 0.005, "of some size, so that a relative error says something"
    assert not np.array_equal(found, exact)
    assert np.abs(found / exact - 1).max() < 0.1


@pytest.mark.parametrize("shape", [(31, 31, 1), (67, 33, 3), (96, 45, 2)], ids=str)
@pytest.mark.parametrize("net", ["alex", "squeeze"])
@both
def test_batch_height_and_width_stay_free_and_identical_images_are_exactly_0(
    int8_net: Int8Nets, net: str, target: str, shape: tuple[int, int, int]
) -> None:
    sides = pair(*shape)
    outputs = [DISTANCE, *(depth(k) for k in range(len(BACKBONES[net].channels)))]
    found = run(int8_net(net).graph(target), sides, outputs)
    exact = run(int8_net(net).traced(target), sides, outputs)
    assert [value.shape for value in found] == [value.shape for value in exact]
    assert np.abs(found[0] / exact[0] - 1).max() < 0.2
    same = run(int8_net(net).graph(target), dict.fromkeys(sides, sides[DISTORTED]), outputs)
    assert not any(value.any() for value in same)


# --- two planes


@pytest.mark.parametrize("finer", [2, FINER])
def test_two_planes_are_the_convolution_in_float(finer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpips_export.planes.FINER", finer)
    torch.manual_seed(1)
    convolution = nn.Conv2d(5, 7, 3, stride=2, padding=1).requires_grad_(False)
    x = torch.rand(2, 5, 13, 11) * 4
    before = convolution.weight.clone()
    planes = TwoPlanes(convolution, 4 / 255)
    assert torch.allclose(planes(x), convolution(x), rtol=1e-5, atol=1e-6)
    assert torch.equal(convolution.weight, before)
    assert convolution.in_channels == 5


def test_the_first_plane_is_a_multiple_of_the_step_and_the_second_what_is_left() -> None:
    read: list[torch.Tensor] = []
    convolution = nn.Conv2d(1, 1, 1).requires_grad_(False)
    planes = TwoPlanes(convolution, 0.5)
    planes.convolution.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    x = torch.tensor([0.0, 0.2, 0.5, 0.7, 3.9]).view(1, 1, 1, 5)
    planes(x)
    assert read[0][0, 0, 0].tolist() == [0, 0, 0.5, 0.5, 3.5]
    assert read[0][0, 1, 0].numpy() == pytest.approx(FINER * np.array([0, 0.2, 0, 0.2, 0.4]), abs=1e-6)


@every_net
def test_an_encoder_with_planes_gives_the_numbers_of_the_one_without(int8_net: Int8Nets, net: str) -> None:
    every = range(1, len(convolutions(int8_net(net).encoder)))
    found = with_planes(int8_net(net).equalised, every, int8_net(net).ranges, 255)
    assert sum(isinstance(module, TwoPlanes) for module in found.modules()) == len(every)
    assert not any(isinstance(module, TwoPlanes) for module in int8_net(net).equalised.modules())
    images = int8_net(net).images[:3]
    with torch.no_grad():
        for ours, theirs in zip(found(images), int8_net(net).encoder(images), strict=True):
            assert (ours - theirs).abs().max() < 3e-6


def test_planes_are_given_to_the_convolutions_of_these_numbers(int8_net: Int8Nets) -> None:
    net = int8_net("squeeze")
    found = with_planes(net.equalised, {3, 7}, net.ranges, 255)
    modules = [module for module in found.slices.modules() if isinstance(module, nn.Conv2d)]
    doubled = [
        number
        for number, (ours, theirs) in enumerate(zip(modules, convolutions(net.equalised), strict=True))
        if ours.in_channels == 2 * theirs.in_channels
    ]
    assert doubled == [3, 7]


# Of AlexNet, the first two that may: what the quantiser makes of the input of a convolution with planes.
PLANES = frozenset({1, 2})


@functools.cache
def scale_of_input(net: Int8Net, target: str, number: int) -> tuple[float, int]:
    graph = Graph(net.graph(target, {0}, PLANES), net.info(target))
    backbone = graph.convolutions()
    node: NodeProto = graph.producer[backbone[number].input[0]]
    assert node.op_type == "DequantizeLinear"
    scale = graph.scalar(node.input[1])
    assert scale is not None
    return scale, int(graph.scalar(node.input[2]) or 0)


@both
@pytest.mark.parametrize("number", sorted(PLANES))
def test_the_step_of_the_first_plane_is_that_of_its_quantiser(int8_net: Int8Nets, target: str, number: int) -> None:
    """So that it is exact, and all that is lost is in the remainder: FINER times finer."""
    net = int8_net("alex")
    scale, zero_point = scale_of_input(net, target, number)
    planes = [
        module
        for module in with_planes(net.equalised, PLANES, net.ranges, FLAVOURS[target].levels).modules()
        if isinstance(module, TwoPlanes)
    ]
    step = np.float32(planes[sorted(PLANES).index(number)].step.item())
    assert zero_point == 0
    assert scale == pytest.approx(float(step), rel=1e-6)
    top = {"cpu": 255, "tensorrt": 127}[target]
    coarse = step * np.arange(top + 1, dtype=np.float32)
    assert np.array_equal(np.rint(coarse / np.float32(scale)), np.arange(top + 1))
    assert FINER * step < coarse[-1], "the remainder is not cut off"


@both
def test_planes_lose_far_less_than_one_does(int8_net: Int8Nets, target: str) -> None:
    """Of the activations: the weights are made such that eight bits hold them, since planes do not help those."""
    net = int8_net("alex")
    writers_and_rest = frozenset({0, 2, 3, 4})
    errors = []
    for in_planes in (frozenset[int](), PLANES):
        plain = net.traced(target, in_planes)
        round_weights(plain, number=1, halves=2 if in_planes else 1)
        (exact,) = run(plain, pair())
        (found,) = run(quantised(plain, net.ranges, target, writers_and_rest), pair())
        errors.append(float(np.abs(found / exact - 1).mean()))
    assert errors[1] < 0.3 * errors[0], errors


def round_weights(model: onnx.ModelProto, number: int, halves: int) -> None:
    """To whole steps of their quantiser; those for the remainder are the same ones, smaller."""
    name = backbone_convolutions(model)[number].input[1]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weight = np.split(numpy_helper.to_array(tensor), halves, axis=1)[0]
    step = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
    rounded = (np.rint(weight / step) * step).astype(np.float32)
    both_planes = np.concatenate([rounded, rounded / FINER][:halves], 1)
    tensor.CopyFrom(numpy_helper.from_array(both_planes, name))


def test_a_step_that_is_not_the_quantisers_would_lose_more(int8_net: Int8Nets) -> None:
    """What the choice of the step is worth: the proof that the test above could fail."""
    net = int8_net("alex")
    convolution = convolutions(net.equalised)[1]
    (_, high), _ = net.ranges[1]
    x = torch.rand(1, convolution.in_channels, 9, 9) * high
    exact = convolution(x)

    def rounded(step: float) -> float:
        read: list[torch.Tensor] = []
        planes = TwoPlanes(convolution, step)
        handle = planes.convolution.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        with torch.no_grad():
            planes(x)
            handle.remove()
            scale = high / 255
            eight_bits = (read[0] / scale).round().clamp(0, 255) * scale
            return float((planes.convolution(eight_bits) - exact).norm())

    assert 4 * rounded(high / 255) < rounded(high / 255 * 128 / 127)


def test_stages_of_an_encoder_with_planes_are_not_asked_for(int8_net: Int8Nets) -> None:
    """with_planes comes last: its convolutions have channels that no stage knows of."""
    net = int8_net("alex")
    found = stages(with_planes(net.equalised, {1}, net.ranges, 255))
    assert len(found) < len(stages(net.equalised))


def test_where_nothing_in_int8_writes_or_reads_nothing_is_rounded(int8_net: Int8Nets) -> None:
    """SqueezeNet's joints once were, and every convolution's cost was theirs."""
    net = int8_net("squeeze")
    alone = 10
    graph = net.graph("cpu", in_float=set(range(len(convolutions(net.encoder)))) - {alone})
    node = Graph(graph, net.info("cpu")).convolutions()[alone]
    read, written = node.input[0], node.output[0]
    names = {node.input[0] for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    producer = {name: node for node in graph.graph.node for name in node.output}
    behind = {written, *(name for name, node in producer.items() if node.op_type == "Relu" and written in node.input)}
    before = producer[producer[read].input[0]].input[0]
    assert names <= {before, *behind}


# --- NVIDIA's parser


@every_net
def test_nvidias_parser_takes_the_tensorrt_flavour_with_planes_and_convolutions_in_float(
    int8_net: Int8Nets, net: str
) -> None:
    """Built without a GPU. Whole backbones in INT8 are built in test_engine.py."""
    pytest.importorskip("tensorrt_rtx_bindings")
    in_planes = {"alex": PLANES, "squeeze": {2}, "vgg": ()}[net]
    graph = int8_net(net).graph("tensorrt", in_float={0}, in_planes=in_planes)
    shapes = ((1, 3, 64, 64), (2, 3, 96, 128), (4, 3, 256, 256))
    library = trt_library.find_library()
    log = trt.Log(lambda _: None)
    plan = trt.build_plan(
        library, serialized(graph), [dict.fromkeys((REFERENCE, DISTORTED), shapes)], EngineSpec(), log, lambda: None
    )
    parameters = sum(conv.weight.numel() for conv in convolutions(int8_net(net).encoder))
    assert len(plan.data) > parameters
