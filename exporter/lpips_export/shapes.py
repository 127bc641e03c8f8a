"""Targets of Reshape, as constants or as the shape of a tensor at hand.

torch.onnx works every size out from those of the inputs, by integer arithmetic: a third of the nodes of a pair graph,
and nothing in them says that a map has the size of the tap it was made from. Shape inference knows it: where a
dimension is that of the input in the same place, Reshape copies it (0); one other may be left to it (-1); and of what
remains, a tensor that the input was computed from has it.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

__all__ = ["simplify_reshapes"]

Dimensions = Sequence[int | str]


def simplify_reshapes(model: onnx.ModelProto) -> int:
    """Rewrite what it can of a model that torch.onnx has just made, symbolic shapes in its value_info; returns how many
    Reshape nodes still have a target that is worked out."""
    known = _dimensions(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    nodes, left = [], 0
    for number, node in enumerate(model.graph.node):
        if node.op_type == "Reshape" and node.input[1] not in constants:
            target = _target(node, known, producer, f"shape_{number}")
            if target is None:
                left += 1
            else:
                initializer, more = target
                model.graph.initializer.append(initializer)
                nodes.extend(more)
                node.input[1] = more[-1].output[0] if more else initializer.name
                del node.attribute[:]  # allowzero, with which 0 would not copy
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in _used(model, nodes)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    needed = {name for node in kept for name in node.input}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    return left


def _name(value: onnx.ValueInfoProto) -> str:
    return value.name


def _dimensions(model: onnx.ModelProto) -> Mapping[str, Dimensions]:
    graph = model.graph
    return {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }


def _target(
    node: NodeProto, known: Mapping[str, Dimensions], producer: Mapping[str, NodeProto], name: str
) -> tuple[onnx.TensorProto, list[NodeProto]] | None:
    """The constant part of the target, and the nodes that put the rest behind it; None if it must stay worked out."""
    before, after = known.get(node.input[0], ()), known.get(node.output[0], ())
    if not after or not all(after):
        return None
    constant = [
        dim if isinstance(dim, int) else 0 if at < len(before) and before[at] == dim else -1
        for at, dim in enumerate(after)
    ]
    if constant.count(-1) <= 1:
        return numpy_helper.from_array(np.array(constant, np.int64), name), []
    # All but the first dimension from a tensor that ends in them.
    rest = list(after[1:])
    upstream = _upstream(node.input[0], producer)
    source = next((other for other in upstream if list(known.get(other, ()))[-len(rest) :] == rest), None)
    if source is None:
        return None
    start = len(known[source]) - len(rest)
    shape = helper.make_node("Shape", [source], [f"{name}_of"], name=f"{name}_of", start=start)
    whole = helper.make_node("Concat", [name, f"{name}_of"], [f"{name}_whole"], name=f"{name}_whole", axis=0)
    return numpy_helper.from_array(np.array(constant[:1], np.int64), name), [shape, whole]


def _upstream(name: str, producer: Mapping[str, NodeProto]) -> Iterator[str]:
    """What a value is computed from, itself first, the nearest before those behind them."""
    waiting, seen = deque([name]), {name}
    while waiting:
        current = waiting.popleft()
        yield current
        if current in producer:
            fresh = [other for other in producer[current].input if other not in seen]
            waiting.extend(fresh)
            seen.update(fresh)


def _used(model: onnx.ModelProto, nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes that an output depends on, in their order."""
    needed = set(map(_name, model.graph.output))
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]
