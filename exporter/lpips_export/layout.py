"""Names and dimensions of each kind of graph: what tracing writes and structure.py demands."""

from collections.abc import Mapping, Sequence

from lpips_runtime import contract
from lpips_runtime.contract import ModelInfo

from .backbones import BACKBONES

__all__ = ["IMAGE_DIMENSIONS", "Layout", "layout_of"]

# A dimension is a name (dynamic) or a number in digits (fixed).
Layout = Mapping[str, Sequence[str]]

IMAGE_DIMENSIONS = {"float32": ("batch", "3", "height", "width"), "uint8": ("batch", "height", "width", "3")}


def _features(channels: Sequence[int], side: str, batch: str = "batch") -> Layout:
    return {
        contract.feature(k, side): (batch, str(count), f"height_{k}", f"width_{k}") for k, count in enumerate(channels)
    }


def layout_of(info: ModelInfo) -> tuple[Layout, Layout]:
    """Inputs and outputs of the graph of info.kind, name -> dimensions, in order."""
    channels = BACKBONES[info.net].channels
    image = IMAGE_DIMENSIONS[info.input]
    results = {
        contract.DISTANCE: ("batch",),
        contract.LAYERS: ("batch", str(len(channels))),
        **{contract.depth(k): ("batch", f"height_{k}", f"width_{k}") for k in range(len(channels))},
    }
    pair = {contract.REFERENCE: image, contract.DISTORTED: image}
    # One reference broadcasts over many distorted, so its batch has a name of its own.
    both = {**_features(channels, "reference", "reference_batch"), **_features(channels, "distorted")}
    return {
        "pair": (pair, results),
        "features": ({contract.IMAGE: image}, _features(channels, "feature")),
        "compare": (both, results),
    }[info.kind]
