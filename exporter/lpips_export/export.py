"""The whole story: weights, modules, trace, structure, numbers, publication."""

import time
from dataclasses import dataclass
from pathlib import Path

import onnx

from lpips_runtime.contract import ModelInfo
from lpips_runtime.errors import ForeignModelError
from lpips_runtime.models import find_model
from lpips_runtime.session import Session

from .backbones import BACKBONES
from .errors import WeightsError
from .manifest import Artifact, build_manifest, check_replaceable, publish, specification, staging
from .metric import Comparator, Encoder
from .progress import Progress
from .reference import Reference
from .spec import ExportSpec, artifact_stem, describe
from .structure import check_structure
from .tracing import trace
from .validate import Report, validate
from .weights import BackboneWeights, LinWeights, load_backbone, load_lin

__all__ = ["Proof", "check", "export"]


@dataclass(frozen=True)
class Proof:
    """That an artifact is what it says: its metadata, the rules of structure it keeps, its figures."""

    info: ModelInfo
    rules: tuple[str, ...]
    report: Report


def export(
    spec: ExportSpec, output_dir: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> list[Artifact]:
    """Export, prove and publish; the pair graph comes first in what is returned.

    Nothing appears in output_dir unless every graph passed. Raises SpecError, WeightsError, StructureError,
    ValidationError or PublishError.
    """
    progress = progress or Progress()
    backbone, lin = _weights(spec, progress)
    infos = [describe(spec, kind, backbone, lin) for kind in spec.kinds]
    for info in infos:
        check_replaceable(output_dir / f"{artifact_stem(info)}.onnx", specification(info), overwrite)

    encoder = Encoder(BACKBONES[spec.net], backbone.state, version=spec.version, image_input=spec.input)
    comparator = Comparator(lin.tensors)
    staged = []
    with staging(output_dir) as folder:
        for info in infos:
            start = time.perf_counter()
            path = folder / f"{artifact_stem(info)}.onnx"
            with progress.stage(f"tracing {path.name}"):
                model = trace(encoder, comparator, info)
                rules = check_structure(model, info)
                path.write_bytes(model.SerializeToString(deterministic=True))
            report = _prove(path, info, backbone, lin, progress)
            seconds = time.perf_counter() - start
            staged.append((path, build_manifest(path, info, backbone, lin, rules, report, seconds)))
        return publish(staged, output_dir)


def check(
    model: Path, *, backbone: Path | None = None, lin: Path | None = None, progress: Progress | None = None
) -> Proof:
    """Prove an existing artifact again: its manifest, its structure, and its numbers against the reference.

    backbone, lin: the files it was made from, needed for custom weights only. Raises ModelError for a file that is
    no artifact, WeightsError if the weights at hand are not those it was made from, StructureError, ValidationError.
    """
    progress = progress or Progress()
    path = find_model(model)
    info = Session(path, provider="cpu", kind=None).info
    if info.precision != "fp32":
        raise ForeignModelError(f"{path}: precision {info.precision} cannot be checked by this version")
    spec = ExportSpec(
        net=info.net,
        precision=info.precision,
        version=info.version,
        lin="none" if info.lin == "baseline" else lin,
        backbone=backbone,
        allow_unknown_weights=True,
        input=info.input,
    )
    weights = _weights(spec, progress)
    options = ("--backbone", "--lin")
    made_from = (info.backbone_sha256, info.lin_sha256)
    for found, expected, option in zip(weights, made_from, options, strict=True):
        if found.sha256 != expected:
            raise WeightsError(
                f"{path}: was made from weights {expected[:16]}…, found were {found.sha256[:16]}…; "
                f"give the file it was made from with {option}"
            )
    rules = check_structure(onnx.load(path), info)
    return Proof(info, rules, _prove(path, info, *weights, progress))


def _weights(spec: ExportSpec, progress: Progress) -> tuple[BackboneWeights, LinWeights]:
    with progress.stage(f"weights of {spec.net}"):
        backbone = load_backbone(spec.net, spec.backbone, allow_unknown=spec.allow_unknown_weights, log=progress.note)
        return backbone, load_lin(spec.net, spec.version, spec.lin)


def _prove(path: Path, info: ModelInfo, backbone: BackboneWeights, lin: LinWeights, progress: Progress) -> Report:
    return validate(path, lambda state: Reference(info.net, info.version, state, lin), backbone, progress)
