"""The manifest of a TensorRT plan: what it is, what it was built for, which shapes it takes.

A plan says nothing of itself, and reading one by the wrong TensorRT or on another GPU fails late and in its own words;
so all that must be known before it is opened stands in the JSON beside it. Shared with the exporter, which writes it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from .contract import ModelInfo
from .errors import DamagedModelError, UsageError

__all__ = ["FLAVOURS", "PlanInfo", "Profile", "Shape", "parse_shape"]

# Flavour -> what the file name of its plans ends with.
FLAVOURS = {"tensorrt": "_trt.engine", "tensorrt-rtx": "_rtx.engine"}

# Pairs of images in a batch, height, width in pixels.
Shape = tuple[int, int, int]

_SHAPE = re.compile(r"(\d{1,9})x(\d{1,9})x(\d{1,9})")


def parse_shape(text: str) -> Shape:
    """`8x256x320` -> (8, 256, 320): pairs, height, width. Raises UsageError for anything else."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no shape; write pairs x height x width, as in 1x256x256")
    return int(match[1]), int(match[2]), int(match[3])


@dataclass(frozen=True)
class Profile:
    """The shapes that one optimisation profile of a plan admits, `min` to `max` in each of pairs, height and width,
    and `opt`, the one it is fastest at."""

    min: Shape
    opt: Shape
    max: Shape

    def admits(self, shape: Shape) -> bool:
        """Whether images of this shape can be run."""
        return all(low <= value <= high for low, value, high in zip(self.min, shape, self.max, strict=True))

    def __str__(self) -> str:
        return " to ".join("x".join(map(str, shape)) for shape in (self.min, self.max))


@dataclass(frozen=True)
class PlanInfo:
    """What the manifest beside a plan says.

    sha256: of the plan. onnx: file name of the graph that it was built from; onnx_sha256: of that file. info: the
    graph's metadata. flavour: a key of FLAVOURS. tensorrt: version of the library that built it. gpu,
    compute_capability: name and "8.9"-like number of the GPU it was built on, None where there was none (TensorRT-RTX
    only, which finishes its plans where they run). profiles: the admitted shapes, at least one.
    version_compatible: other TensorRT versions may read it, by running host code inside it.
    hardware_compatible: other GPUs may.
    """

    sha256: str
    onnx: str
    onnx_sha256: str
    info: ModelInfo
    flavour: str
    tensorrt: str
    gpu: str | None
    compute_capability: str | None
    profiles: tuple[Profile, ...]
    version_compatible: bool
    hardware_compatible: bool

    def to_manifest(self) -> dict[str, Any]:
        """The part of the manifest that `from_manifest` reads."""
        return asdict(self) | {"info": self.info.to_metadata()}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], path: object) -> "PlanInfo":
        """Read a manifest's content. `path` only names it in errors.

        Raises DamagedModelError if a key is missing or of another type, ForeignModelError for a newer contract.
        """
        values = dict[str, Any]()
        for field in fields(cls):
            if field.name not in manifest:
                raise DamagedModelError(f"{path}: is no manifest of a plan, {field.name!r} is missing; build it again")
            values[field.name] = manifest[field.name]
        try:
            values["info"] = ModelInfo.from_metadata(dict(values["info"]), path)
            values["profiles"] = tuple(
                Profile(*(_shape(profile[name]) for name in ("min", "opt", "max"))) for profile in values["profiles"]
            )
            wrong = [name for name, kinds in _TYPES.items() if not isinstance(values[name], kinds)]
            if wrong or not values["profiles"] or values["flavour"] not in FLAVOURS:
                raise ValueError(f"{', '.join(wrong) or 'profiles or flavour'} cannot be used")
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedModelError(f"{path}: is no manifest of a plan ({error}); build the engine again") from error
        return cls(**values)


_TYPES = {
    "sha256": str,
    "onnx": str,
    "onnx_sha256": str,
    "flavour": str,
    "tensorrt": str,
    "gpu": str | None,
    "compute_capability": str | None,
    "version_compatible": bool,
    "hardware_compatible": bool,
}


def _shape(values: Sequence[int]) -> Shape:
    pairs, height, width = values
    if not all(type(value) is int and value > 0 for value in values):
        raise ValueError(f"shape {values} is not of three positive whole numbers")
    return pairs, height, width
