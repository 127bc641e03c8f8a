"""A model with what the rules of structure ask of it."""

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from lpips_runtime.contract import ModelInfo

__all__ = ["QUANTISING", "Graph", "backbone_convolutions", "is_product_with_itself"]

QUANTISING = ("QuantizeLinear", "DequantizeLinear")


def is_product_with_itself(node: NodeProto) -> bool:
    return node.op_type == "Mul" and node.input[0] == node.input[1]


def backbone_convolutions(model: onnx.ModelProto) -> list[NodeProto]:
    """In the order of the graph. Others take squares, which they add up in a graph for OpenVINO."""
    squares = {node.output[0] for node in model.graph.node if is_product_with_itself(node)}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[0] not in squares]


class Graph:
    """Producers, constants, inferred types, ancestors.

    Raises InferenceError of onnx if the types of the model do not fit.
    """

    def __init__(self, model: onnx.ModelProto, info: ModelInfo) -> None:
        self.model = model
        self.info = info
        self.nodes = list(model.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.HasField("t"):
                        self.constants[node.output[0]] = attribute.t
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
        }
        self.types.update({name: tensor.data_type for name, tensor in self.constants.items()})

    def ancestors(self, name: str) -> set[str]:
        """Names of all values that `name` is computed from, itself included."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                waiting.extend(self.producer[current].input if current in self.producer else ())
        return seen

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element, else None."""
        tensor = self.constants.get(name)
        if tensor is None or int(np.prod(tensor.dims)) != 1:
            return None
        return float(numpy_helper.to_array(tensor).reshape(()))

    def convolutions(self) -> list[NodeProto]:
        return backbone_convolutions(self.model)

    def is_dequantised(self, name: str) -> bool:
        return name in self.producer and self.producer[name].op_type == "DequantizeLinear"

    def is_not_zero(self, name: str) -> bool:
        """Of a constant: whether any element is not 0."""
        return bool(numpy_helper.to_array(self.constants[name]).any())

    def consumers(self, name: str) -> list[NodeProto]:
        return [node for node in self.nodes if name in node.input]
