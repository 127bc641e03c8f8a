"""The contract between an exported graph and whoever runs it: tensor names, metadata keys, `ModelInfo`.

Shared with the exporter, so that both sides read and write the same strings.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from .errors import DamagedModelError, ForeignModelError

__all__ = [
    "BACKBONE_SHA256",
    "DISTANCE",
    "DISTORTED",
    "FORMAT",
    "IMAGE",
    "LAYERS",
    "METADATA_PREFIX",
    "REFERENCE",
    "UNSEALED",
    "ModelInfo",
    "depth",
    "feature",
    "is_sealed",
    "results",
    "seal",
]

FORMAT = "1"
METADATA_PREFIX = "lpips."

REFERENCE = "reference"
DISTORTED = "distorted"
IMAGE = "image"
DISTANCE = "distance"
LAYERS = "layers"

# Tensor hashes of torchvision's IMAGENET1K_V1 weights, `features` only (see lpips_export.weights.tensor_hash).
BACKBONE_SHA256 = {
    "alex": "44534cd66e37ce9a6258bb5e845ef8cd47c33aa68024441c7e616d63c0c1c41a",
    "squeeze": "9a3cd24c3da63ec76ec50dabac44e862029b5c84992e5ddd582be22d0f9ef388",
    "vgg": "02ea23240491c2589ec6c79346a0cd2cde49db15b57118399c02f252fb928f83",
}

_ALLOWED = {
    "kind": ("pair", "features", "compare"),
    "net": tuple(BACKBONE_SHA256),
    "version": ("0.1", "0.0"),
    "lin": ("learned", "baseline", "custom"),
    "precision": ("fp32", "fp16", "int8"),
    "target": ("", "cpu", "tensorrt", "openvino"),
    "input": ("float32", "uint8"),
}


def depth(k: int) -> str:
    """Name of the output with the weighted squared difference at depth k, float32 [batch, h_k, w_k]."""
    return f"depth_{k}"


def feature(k: int, side: str = "feature") -> str:
    """Name of the unit-length feature of depth k: `feature_k`; in a compare graph `reference_k`, `distorted_k`."""
    return f"{side}_{k}"


def results(depths: int) -> list[str]:
    """Names of the outputs of a pair or compare graph of so many depths."""
    return [DISTANCE, LAYERS, *map(depth, range(depths))]


UNSEALED = "0" * 64


def seal(data: bytes) -> bytes:
    """A serialised model whose content_sha256 is UNSEALED, with the sha256 of its bytes in that place.

    So a single .onnx can tell whether it is whole, without a manifest beside it.
    """
    blank = UNSEALED.encode()
    assert data.count(blank) == 1, "the place of the seal must be the only 64 zeros"
    return data.replace(blank, hashlib.sha256(data).hexdigest().encode())


def is_sealed(data: bytes, content_sha256: str) -> bool:
    """Whether these are the bytes that were sealed with this hash."""
    at = data.find(content_sha256.encode())
    if at < 0 or len(content_sha256) != len(UNSEALED):
        return False
    digest, view = hashlib.sha256(), memoryview(data)
    for part in (view[:at], UNSEALED.encode(), view[at + len(UNSEALED) :]):
        digest.update(part)
    return digest.hexdigest() == content_sha256


@dataclass(frozen=True)
class ModelInfo:
    """What a graph says of itself in `metadata_props`, every key prefixed `lpips.` and every value a string.

    format: version of this contract. kind: pair, features or compare. net: alex, squeeze or vgg. version: LPIPS
    0.1 or 0.0. lin: learned, baseline (no weighting) or custom. precision: fp32, fp16 or int8; target: INT8 flavour
    (cpu, tensorrt), or openvino for float32 as it is fastest there, else empty. input: float32 (NCHW, [-1, 1]) or
    uint8 (NHWC, 0..255). min_size: smallest height and width in pixels. stride: pixels per position of the deepest
    tap. halo: pixels around a tile that its positions depend on. eps: what is added to each norm. backbone_sha256,
    lin_sha256: tensor hashes ("none" for the baseline's lin). exporter, reference: package and version. license: of
    code and weights. content_sha256: of the file's bytes, with 64 zeros in its own place; see `seal`.
    """

    format: str
    kind: str
    net: str
    version: str
    lin: str
    precision: str
    target: str
    input: str
    min_size: int
    stride: int
    halo: int
    eps: float
    backbone_sha256: str
    lin_sha256: str
    exporter: str
    reference: str
    license: str
    content_sha256: str = UNSEALED

    def to_metadata(self) -> dict[str, str]:
        """The `metadata_props` of the graph."""
        return {METADATA_PREFIX + key: str(value) for key, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: object) -> "ModelInfo":
        """Read a graph's metadata. `path` only names the file in errors.

        Raises ForeignModelError if the graph is not ours or of a newer contract, DamagedModelError if a key is
        missing or holds what the contract does not know.
        """
        if METADATA_PREFIX + "format" not in metadata:
            raise ForeignModelError(f"{path}: an ONNX model, but not one of lpips-export (no lpips.* metadata)")
        found = metadata[METADATA_PREFIX + "format"]
        if found != FORMAT:
            raise ForeignModelError(
                f"{path}: written for contract version {found!r}, this lpips-runtime reads version {FORMAT}; "
                "upgrade lpips-runtime or export the model again"
            )
        values: dict[str, str] = {}
        for field in fields(cls):
            key = METADATA_PREFIX + field.name
            if key not in metadata:
                raise DamagedModelError(f"{path}: metadata key {key} is missing; export the model again")
            value = metadata[key]
            if field.name in _ALLOWED and value not in _ALLOWED[field.name]:
                raise DamagedModelError(f"{path}: metadata {key} is {value!r}, not one of {_ALLOWED[field.name]}")
            values[field.name] = value
        try:
            numbers = {name: int(values[name]) for name in ("min_size", "stride", "halo")}
            eps = float(values["eps"])
            if not (0 < eps < 1 and all(number > 0 for number in numbers.values())):
                raise ValueError(f"not positive: {numbers}, eps {eps}")
        except ValueError as error:
            raise DamagedModelError(f"{path}: metadata holds no valid number: {error}") from error
        return cls(**{**values, **numbers, "eps": eps})  # pyright: ignore[reportArgumentType]

    @property
    def peculiarities(self) -> list[str]:
        """How this model's numbers differ from plain LPIPS v0.1, one phrase each; empty if they do not."""
        found = []
        if self.version != "0.1":
            found.append(f"LPIPS v{self.version}")
        if self.lin == "baseline":
            found.append("unweighted baseline (no lin weights)")
        if self.lin == "custom":
            found.append("custom lin weights")
        if self.backbone_sha256 != BACKBONE_SHA256[self.net]:
            found.append("custom backbone weights")
        return found
