"""What a graph or a plan must show when it is opened: the tensors of the contract, and the net of its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from . import contract
from .contract import ModelInfo
from .errors import DamagedModelError, UsageError

__all__ = ["NETS", "PROBE", "Net", "check_kind", "check_net", "check_tensors", "smallest_inputs"]

# The side of an image that every net takes, in pixels.
PROBE = 31


class Net(NamedTuple):
    """A net's stride at each depth, the smallest side it takes, and the side of its first depth for PROBE pixels."""

    strides: tuple[int, ...]
    smallest: int
    first_side: int

    @property
    def depths(self) -> int:
        """Number of taps."""
        return len(self.strides)


NETS = {
    "alex": Net((4, 8, 16, 16, 16), 31, 7),
    "squeeze": Net((2, 4, 8, 16, 16, 16, 16), 17, 15),
    "vgg": Net((1, 2, 4, 8, 16), 16, 31),
}

# Name of a tensor -> its dtype and rank.
Tensors = Mapping[str, tuple[str, int]]


def check_kind(path: object, info: ModelInfo, kind: str | None) -> None:
    """Raise UsageError if a graph of another kind is needed; None stands for any."""
    if kind is not None and info.kind != kind:
        raise UsageError(f"{path}: is the {info.kind!r} graph of a split export, the {kind!r} graph is needed here")


def check_tensors(path: object, info: ModelInfo, inputs: Tensors, outputs: Tensors, *, again: str) -> None:
    """Raise DamagedModelError, which ends with the advice `again`, unless these are the tensors of the contract."""
    net = NETS[info.net]
    if info.min_size < net.smallest:
        raise DamagedModelError(
            f"{path}: metadata promises images of {info.min_size} pixels, {info.net} needs at "
            f"least {net.smallest}; {again}"
        )
    image = info.input, 4
    depths = range(net.depths)
    results = {contract.DISTANCE: 1, contract.LAYERS: 2, **{contract.depth(k): 3 for k in depths}}
    features = {side: {contract.feature(k, side): 4 for k in depths} for side in ("feature", "reference", "distorted")}
    expected_inputs, expected_outputs = {
        "pair": ({contract.REFERENCE: image, contract.DISTORTED: image}, results),
        "features": ({contract.IMAGE: image}, features["feature"]),
        "compare": ({name: ("float32", 4) for side in ("reference", "distorted") for name in features[side]}, results),
    }[info.kind]
    if inputs != expected_inputs or outputs != {name: ("float32", rank) for name, rank in expected_outputs.items()}:
        raise DamagedModelError(
            f"{path}: its tensors are not those that its metadata promises "
            f"({info.net}, {info.kind}, {info.input}); {again}"
        )


def smallest_inputs(info: ModelInfo) -> dict[str, np.ndarray]:
    """The smallest inputs that a graph of any net takes: one image of zeros. Empty for a compare graph, which takes
    no image."""
    names = {"pair": (contract.REFERENCE, contract.DISTORTED), "features": (contract.IMAGE,), "compare": ()}[info.kind]
    shape = (1, 3, PROBE, PROBE) if info.input == "float32" else (1, PROBE, PROBE, 3)
    return dict.fromkeys(names, np.zeros(shape, info.input))


def check_net(
    path: object,
    info: ModelInfo,
    run: Callable[[Mapping[str, np.ndarray], Sequence[str]], list[np.ndarray]],
    *,
    again: str,
) -> None:
    """Run one image of a size that every net takes, and see that the net is the one of the metadata.

    Of a size that only a smaller net takes, ONNX Runtime's CPU provider dies. A compare graph, which takes no image,
    passes unseen. Raises DamagedModelError.
    """
    if info.kind == "compare":
        return
    first = {"pair": contract.depth(0), "features": contract.feature(0)}[info.kind]
    (found,) = run(smallest_inputs(info), [first])
    side = NETS[info.net].first_side
    if found.shape[-2:] != (side, side):
        raise DamagedModelError(f"{path}: is not the {info.net} that its metadata promises; {again}")
