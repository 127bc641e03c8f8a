"""What to build, and what it is called."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lpips_runtime import __version__, contract
from lpips_runtime.contract import ModelInfo

from .backbones import BACKBONES, STRIDE
from .errors import SpecError
from .metric import EPS
from .reference import REFERENCE_NAME
from .weights import BackboneWeights, LinWeights

__all__ = ["CHOICES", "ExportSpec", "artifact_stem", "describe"]

CHOICES = {
    "net": tuple(BACKBONES),
    "precision": ("fp32", "fp16"),
    "version": ("0.1", "0.0"),
    "input": ("float32", "uint8"),
}

_LICENSE = {
    True: "BSD-2-Clause (LPIPS, Zhang et al.) AND BSD-3-Clause (torchvision weights)",
    False: "BSD-2-Clause (LPIPS, Zhang et al.); custom weights under their owner's terms",
}


@dataclass(frozen=True)
class ExportSpec:
    """One export. lin: None for the learned weights of `lpips`, "none" for the baseline, or a file of one's own.
    backbone: a file of weights, None to look for torchvision's. split: the features and compare graphs too.

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

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise SpecError(f"{field} is {getattr(self, field)!r}, must be one of {', '.join(choices)}")

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
        target="",
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
        f"_{info.kind}": info.kind != "pair",
    }
    return f"lpips_{info.net}_{info.precision}" + "".join(part for part, applies in parts.items() if applies)
