"""What to build, and what it is called."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lpips_runtime import __version__, contract
from lpips_runtime.contract import ModelInfo

from .backbones import BACKBONES, STRIDE
from .calibration import LEAST_IMAGES
from .errors import ARRANGED, NO_CALIBRATION, SpecError
from .metric import EPS
from .reference import REFERENCE_NAME
from .weights import BackboneWeights, LinWeights

__all__ = ["CHOICES", "ExportSpec", "artifact_stem", "describe"]

CHOICES = {
    "net": tuple(BACKBONES),
    "precision": ("fp32", "fp16", "int8"),
    "version": ("0.1", "0.0"),
    "input": ("float32", "uint8"),
    "target": ("cpu", "tensorrt", "openvino"),
}


_LICENSE = {
    True: "BSD-2-Clause (LPIPS, Zhang et al.) AND BSD-3-Clause (torchvision weights)",
    False: "BSD-2-Clause (LPIPS, Zhang et al.); custom weights under their owner's terms",
}


@dataclass(frozen=True)
class ExportSpec:
    """One export. lin: None for the learned weights of `lpips`, "none" for the baseline, or a file of one's own.
    backbone: a file of weights, None to look for torchvision's. split: the features and compare graphs too.
    calibration: a folder of photographs, needed for INT8 and used for nothing else; calibration_count: how many of them
    to use at most; target: the INT8 flavour, or "openvino" for a float32 graph as OpenVINO likes it; max_error: largest
    mean relative error of held-out pairs, None for the flavour's own.

    Raises SpecError for a value that is not in CHOICES.
    """

    net: str = "alex"
    precision: str = "fp32"
    version: str = "0.1"
    lin: Path | Literal["none"] | None = None
    backbone: Path | None = None
    allow_unknown_weights: bool = False
    input: str = "float32"
    split: bool = False
    calibration: Path | None = None
    calibration_count: int = 64
    target: str = "cpu"
    max_error: float | None = None

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise SpecError(f"{field} is {getattr(self, field)!r}, must be one of {', '.join(choices)}")
        if self.precision == "int8" and self.calibration is None:
            raise SpecError(NO_CALIBRATION)
        if self.target == "openvino" and self.precision != "fp32":
            raise SpecError(ARRANGED)
        if self.calibration_count < LEAST_IMAGES:
            raise SpecError(f"--calibration-count is {self.calibration_count}, must be at least {LEAST_IMAGES}")
        if self.max_error is not None and not 0 < self.max_error < 1:
            raise SpecError(f"--max-error is {self.max_error:g}, must be a relative error between 0 and 1, as 0.025")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The graphs that this export writes."""
        return ("pair", "features", "compare") if self.split else ("pair",)


def describe(spec: ExportSpec, kind: str, backbone: BackboneWeights, lin: LinWeights) -> ModelInfo:
    """The metadata of one graph of this export."""
    row = BACKBONES[spec.net]
    return ModelInfo(
        format=contract.FORMAT,
        kind=kind,
        net=spec.net,
        version=spec.version,
        lin=lin.kind,
        precision=spec.precision,
        target=spec.target if spec.precision == "int8" or spec.target == "openvino" else "",
        input=spec.input,
        min_size=row.min_size,
        stride=STRIDE,
        halo=row.halo,
        eps=EPS,
        backbone_sha256=backbone.sha256,
        lin_sha256=lin.sha256,
        exporter=f"lpips-export {__version__}",
        reference=REFERENCE_NAME,
        license=_LICENSE[backbone.known and lin.kind != "custom"],
    )


def artifact_stem(info: ModelInfo) -> str:
    """File name without suffix: lpips_{net}_{precision} and what departs from the default, in a fixed order."""
    custom = info.lin == "custom" or info.backbone_sha256 != BACKBONES[info.net].sha256
    weights = hashlib.sha256(f"{info.backbone_sha256}{info.lin_sha256}".encode()).hexdigest()[:8]
    parts = {
        "_v0.0": info.version == "0.0",
        "_baseline": info.lin == "baseline",
        f"_custom-{weights}": custom,
        "_uint8": info.input == "uint8",
        f"_{info.target}": info.target in ("tensorrt", "openvino"),
        f"_{info.kind}": info.kind != "pair",
    }
    return f"lpips_{info.net}_{info.precision}" + "".join(part for part, applies in parts.items() if applies)
