"""A float32 graph quantised as TensorRT takes it: symmetric, per channel, no quantised bias. For tests of the builder
alone, which wants the layout of such a graph and not its accuracy."""

from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization

from lpips_runtime.contract import DISTORTED, METADATA_PREFIX, REFERENCE


class _Noise(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        shape = (1, 3, 64, 64)
        pair = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name in (REFERENCE, DISTORTED)}
        self._pairs = iter([pair])

    def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return next(self._pairs, None)


def quantised(graph: Path, folder: Path) -> Path:
    """A copy in `folder` whose backbone's convolutions are INT8, and whose metadata says so."""
    path = folder / graph.name.replace("fp32", "int8")
    content = onnx.load(graph).graph
    single = {tensor.name for tensor in content.initializer if tensor.dims[:1] == [1]}
    lins = [node.name for node in content.node if node.op_type == "Conv" and node.input[1] in single]
    assert lins, "the lin convolutions, of one output channel, stay in float32"
    quantization.quantize_static(
        graph,
        path,
        _Noise(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        nodes_to_exclude=lins,
        extra_options={
            "QuantizeBias": False,
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
        },
    )
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = {"precision": "int8", "target": "tensorrt"}.get(
            entry.key.removeprefix(METADATA_PREFIX), entry.value
        )
    onnx.save(model, path)
    return path
