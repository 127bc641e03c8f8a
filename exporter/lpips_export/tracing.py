"""Module -> ONNX: one call of torch.onnx.export per kind of graph, and what must be put right after it."""

import logging
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn

from lpips_runtime.contract import METADATA_PREFIX, UNSEALED, ModelInfo, seal

from .arrangements import arrangement
from .errors import StructureError
from .layout import IMAGE_DIMENSIONS, Layout, layout_of
from .metric import Comparator, Encoder
from .shapes import simplify_reshapes

__all__ = ["OPSET", "serialized", "trace"]

OPSET = 18

# Two images, taller than wide, so that no dimension is 1 or equal to another and gets frozen or merged.
_EXAMPLE = {"batch": 2, "height": 96, "width": 72, "3": 3}


def trace(encoder: Encoder, comparator: Comparator, info: ModelInfo) -> onnx.ModelProto:
    """Trace the graph of info.kind: opset 18, dynamic axes by name, metadata of the contract and no one else's.

    Raises StructureError if it cannot be traced for every batch and size.
    """
    module, example = _CALLS[info.kind](encoder, comparator, info)
    inputs, outputs = layout_of(info)
    program = _export(
        module.eval(),
        example,
        dynamic_shapes=_dynamic_shapes(example, iter(inputs.values())),
        input_names=list(inputs),
        output_names=list(outputs),
    )
    model = program.model_proto
    simplify_reshapes(model)
    _clean(model)
    _name_dimensions(model.graph.input, inputs)
    _name_dimensions(model.graph.output, outputs)
    model.producer_name, model.producer_version = info.exporter.split(" ")
    model.graph.name = f"lpips_{info.net}_{info.kind}"
    for key, value in sorted(info.to_metadata().items()):
        model.metadata_props.add(key=key, value=value)
    return model


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of a model, sealed; the same for the same model."""
    place = next(entry for entry in model.metadata_props if entry.key == f"{METADATA_PREFIX}content_sha256")
    place.value = UNSEALED
    return seal(model.SerializeToString(deterministic=True))


def _example_image(image_input: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = [_EXAMPLE[name] for name in IMAGE_DIMENSIONS[image_input]]
    if image_input == "uint8":
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.rand(shape, generator=generator) * 2 - 1


def _pair_call(encoder: Encoder, comparator: Comparator, info: ModelInfo) -> tuple[nn.Module, tuple]:
    # Two different tensors: the same object twice would make the graph compute d(b, b) = 0 for ever.
    pair = arrangement(info.target).pair(encoder, comparator)
    return pair, (_example_image(info.input, 1), _example_image(info.input, 2))


def _features_call(encoder: Encoder, comparator: Comparator, info: ModelInfo) -> tuple[nn.Module, tuple]:
    return encoder, (_example_image(info.input, 1),)


def _compare_call(encoder: Encoder, comparator: Comparator, info: ModelInfo) -> tuple[nn.Module, tuple]:
    # Traced with the same batch on both sides. Nothing in the graph reads the reference's, so ONNX's broadcasting
    # takes one reference against many distorted; only the axis needs a name of its own.
    with torch.no_grad():
        return comparator, tuple(list(encoder(_example_image(info.input, seed))) for seed in (1, 2))


_CALLS = {"pair": _pair_call, "features": _features_call, "compare": _compare_call}


def _dynamic_shapes(example: Sequence, dimensions) -> list:
    """The names of the dynamic axes of each tensor, nested as the example is.

    Plain names: torch.export.Dim with bounds on height and width fails on the guards of the strided layers.
    """
    return [
        _dynamic_shapes(part, dimensions)
        if isinstance(part, list)
        else {axis: name for axis, name in enumerate(next(dimensions)) if not name.isdecimal()}
        for part in example
    ]


def _export(module: nn.Module, example: tuple, **arguments) -> torch.onnx.ONNXProgram:
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch and onnxscript warn of their own deprecations; structure.py checks what they made.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                verbose=False,
                **arguments,
            )
    except Exception as error:
        # torch.export, the translation and onnxscript's passes each raise what they like; of ours there is none here.
        cause = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        raise StructureError(f"the graph cannot be traced with free batch, height and width: {cause}") from error
    finally:
        logger.setLevel(level)
    assert program is not None, "torch.onnx.export returns a program when it is given no file"
    return program


def _clean(model: onnx.ModelProto) -> None:
    """Strip what torch.onnx leaves of the author's machine: stack traces, paths, class names."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]


def _name_dimensions(values: Sequence[onnx.ValueInfoProto], layout: Layout) -> None:
    """Give dynamic axes the names of the contract; an axis that tracing froze keeps its number, for all to see."""
    for value, dimensions in zip(values, layout.values(), strict=True):
        for dimension, name in zip(value.type.tensor_type.shape.dim, dimensions, strict=True):
            if not dimension.HasField("dim_value"):
                dimension.dim_param = name
