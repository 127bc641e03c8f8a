"""The whole story: weights, modules, trace, structure, numbers, publication."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from lpips_runtime.contract import ModelInfo, is_sealed
from lpips_runtime.errors import DamagedModelError, ForeignModelError
from lpips_runtime.models import find_model, is_plan, manifest_path, read_model
from lpips_runtime.ort import onnxruntime

from .arrangements import arrangement
from .backbones import BACKBONES
from .calibration import Calibration, load_calibration
from .engine import EngineJob, build_engine, plan_engine
from .errors import SpecError, StructureError, WeightsError
from .int8 import Plan, find_plan
from .limits import LIMITS
from .manifest import Artifact, build_manifest, check_replaceable, publish, specification, staging
from .metric import Comparator, Encoder, Pair
from .profiles import EngineSpec
from .progress import Progress
from .quantize import FLAVOURS
from .reference import Reference
from .spec import ExportSpec, artifact_stem, describe
from .structure import check_structure
from .tracing import serialized, trace
from .validate import Report, validate
from .weights import BackboneWeights, LinWeights, load_backbone, load_lin

__all__ = ["Proof", "check", "check_output", "engine_of", "export", "export_sources", "open_sources"]


class Sources(NamedTuple):
    """What an export is made from: weights, and photographs where INT8 is wanted."""

    backbone: BackboneWeights
    lin: LinWeights
    calibration: Calibration | None


@dataclass(frozen=True)
class Proof:
    """That an artifact is what it says: which file, its metadata, the rules of structure it keeps, its figures."""

    path: Path
    info: ModelInfo
    rules: tuple[str, ...]
    report: Report


def export(
    spec: ExportSpec,
    output_dir: Path,
    *,
    engine: EngineSpec | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Artifact]:
    """Export, prove and publish; the pair graph comes first in what is returned, its engine, if asked for, last.

    Nothing appears in output_dir unless every graph passed. The engine is built from what was published. Raises
    SpecError, WeightsError, StructureError, ValidationError, PublishError or EngineError; if building the engine fails,
    the graphs are published all the same, as the message says.
    """
    progress = progress or Progress()
    sources = open_sources(spec, engine, progress)
    return export_sources(spec, sources, output_dir, engine, overwrite=overwrite, progress=progress)


def open_sources(spec: ExportSpec, engine: EngineSpec | None, progress: Progress) -> Sources:
    """What the export needs, the quickest first: nobody should wait for a download to be told what else is missing.

    Raises ProviderError, SpecError, EngineError, CalibrationError or WeightsError.
    """
    _engine_job(spec, engine)
    calibration = None
    if spec.calibration is not None:
        with progress.stage(f"reading {spec.calibration}"):
            calibration = load_calibration(spec.calibration, spec.calibration_count, progress.note)
    return Sources(*_weights(spec, progress), calibration)


def _engine_job(spec: ExportSpec, engine: EngineSpec | None) -> EngineJob | None:
    onnxruntime()  # needed last, imported first
    return None if engine is None else plan_engine(engine, spec.net, BACKBONES[spec.net].min_size)


def check_output(
    spec: ExportSpec, sources: Sources, output_dir: Path, *, engine: EngineSpec | None, overwrite: bool
) -> tuple[list[ModelInfo], EngineJob | None]:
    """What the export will write, once it is sure that it may.

    Raises PublishError for what must stay in its place, SpecError or EngineError for an engine that cannot be built.
    """
    job = _engine_job(spec, engine)
    infos = [describe(spec, kind, sources.backbone, sources.lin) for kind in spec.kinds]
    for info in infos:
        wanted = specification(info) | _made_with(spec, sources.calibration)
        check_replaceable(output_dir / f"{artifact_stem(info)}.onnx", wanted, overwrite)
    if job is not None:
        job.check(output_dir / f"{artifact_stem(infos[0])}.onnx", infos[0], overwrite)
    return infos, job


def _made_with(spec: ExportSpec, calibration: Calibration | None) -> dict[str, str]:
    """What decides the numbers of an INT8 graph besides its metadata."""
    if spec.precision != "int8" or calibration is None:
        return {}
    return {"calibration": calibration.facts["sha256"], "max_error": f"{_max_error(spec):g}"}


def _max_error(spec: ExportSpec) -> float:
    return spec.max_error or FLAVOURS[spec.target].max_error


def export_sources(
    spec: ExportSpec,
    sources: Sources,
    output_dir: Path,
    engine: EngineSpec | None = None,
    *,
    overwrite: bool = False,
    progress: Progress,
) -> list[Artifact]:
    """`export`, with sources that are open already."""
    infos, job = check_output(spec, sources, output_dir, engine=engine, overwrite=overwrite)
    backbone, lin, calibration = sources
    encoder = _encoder(infos[0], backbone)
    comparator = arrangement(infos[0].target).comparator(lin.tensors)
    start = time.perf_counter()
    with staging(output_dir) as folder:
        plan = _plan(spec, infos[0], encoder, comparator, calibration, progress)
        paths = [folder / f"{artifact_stem(info)}.onnx" for info in infos]
        rules = [
            _write(path, info, plan.encoder if plan else encoder, comparator, plan, progress)
            for path, info in zip(paths, infos, strict=True)
        ]
        reports = _prove(paths, infos[0], backbone, lin, progress)
        seconds = time.perf_counter() - start
        facts, made_with = plan.facts if plan else None, _made_with(spec, calibration)
        staged = [
            (path, build_manifest(path, info, backbone, lin, kept, report, seconds, facts, made_with))
            for path, info, kept, report in zip(paths, infos, rules, reports, strict=True)
        ]
        published = publish(staged, output_dir)
    if job is None:
        return published
    return [*published, engine_of(published[0].path, job, overwrite=overwrite, progress=progress)]


def engine_of(graph: Path, job: EngineJob, **options: Any) -> Artifact:
    """The engine of a graph that was published; options: those of build_engine."""
    _, info = _read(graph)  # as published: with the hash of its content
    return build_engine(graph, info, job, **options)


def _plan(
    spec: ExportSpec,
    info: ModelInfo,
    encoder: Encoder,
    comparator: Comparator,
    calibration: Calibration | None,
    progress: Progress,
) -> Plan | None:
    if calibration is None or spec.precision != "int8":
        return None
    return find_plan(encoder, comparator, info, calibration, _max_error(spec), progress)


def _write(
    path: Path, info: ModelInfo, encoder: Encoder, comparator: Comparator, plan: Plan | None, progress: Progress
) -> tuple[str, ...]:
    with progress.stage(f"tracing {path.name}"):
        model = trace(encoder, comparator, info)
        if plan is not None:
            model = plan.applied(model)
        rules = check_structure(model, info)
        path.write_bytes(serialized(model))
    return rules


def check(
    model: Path, *, backbone: Path | None = None, lin: Path | None = None, progress: Progress | None = None
) -> Proof:
    """Prove an existing artifact again: its manifest, its structure, and its numbers against the reference.

    backbone, lin: the files it was made from, needed for custom weights only. Raises ModelNotFoundError;
    ForeignModelError for a file that is no artifact; SpecError if a file of weights is needed, or given in vain;
    WeightsError if the weights at hand are not those it was made from; StructureError, also if the artifact does not
    match its manifest or its metadata; ValidationError.
    """
    progress = progress or Progress()
    path = find_model(model)
    if is_plan(path):
        raise ForeignModelError(f"{path}: is an engine, which shows its numbers only where it runs; check its graph")
    graph, info = _read(path)
    if not manifest_path(path).exists():
        progress.note(f"{path}: no manifest beside it, so its sha256 is not checked")
    if info.precision not in LIMITS:
        raise ForeignModelError(f"{path}: precision {info.precision} cannot be checked by this version")
    _ask_for_weights(path, info, backbone, lin)
    spec = ExportSpec(  # of the weights alone: what INT8 was calibrated on is not needed again
        net=info.net,
        version=info.version,
        lin="none" if info.lin == "baseline" else lin,
        backbone=backbone,
        allow_unknown_weights=True,
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
    rules = check_structure(graph, info)
    (report,) = _prove([path], info, *weights, progress)
    return Proof(path, info, rules, report)


def _read(path: Path) -> tuple[onnx.ModelProto, ModelInfo]:
    # Not by ONNX Runtime: it refuses graphs of which the rules of structure can say what is wrong with them.
    try:
        data, _ = read_model(path)
        graph = onnx.load_model_from_string(data)
        info = ModelInfo.from_metadata({entry.key: entry.value for entry in graph.metadata_props}, path)
        if not is_sealed(data, info.content_sha256):
            raise DamagedModelError(f"{path}: was changed or damaged after its export; export it again")
        return graph, info
    except DamagedModelError as error:  # one of ours that does not keep its word: what was asked is answered no
        raise StructureError(str(error)) from error
    except DecodeError as error:
        raise ForeignModelError(f"{path}: not an ONNX model, or one cut short; export it again") from error


def _ask_for_weights(path: Path, info: ModelInfo, backbone: Path | None, lin: Path | None) -> None:
    """Before torchvision's weights are looked for, or downloaded, in vain."""
    for custom, file, option in (
        (info.backbone_sha256 != BACKBONES[info.net].sha256, backbone, "--backbone"),
        (info.lin == "custom", lin, "--lin"),
    ):
        if custom and file is None:
            raise SpecError(f"{path}: was made from custom weights; give the file it was made from with {option}")
    if info.lin == "baseline" and lin is not None:
        raise SpecError(f"{path}: is the unweighted baseline, there is no weight to compare; leave --lin out")


def _weights(spec: ExportSpec, progress: Progress) -> tuple[BackboneWeights, LinWeights]:
    # No stage of `progress`: downloads draw bars of their own, which a live display would garble.
    lin = load_lin(spec.net, spec.version, spec.lin)  # first, since what is wrong here needs no download to show
    return load_backbone(spec.net, spec.backbone, allow_unknown=spec.allow_unknown_weights, log=progress.note), lin


def _encoder(info: ModelInfo, backbone: BackboneWeights) -> Encoder:
    return arrangement(info.target).encoder(
        BACKBONES[info.net],
        backbone.state,
        version=info.version,
        image_input=info.input,
        precision=info.precision,
    )


def _prove(
    paths: Sequence[Path], info: ModelInfo, backbone: BackboneWeights, lin: LinWeights, progress: Progress
) -> list[Report]:
    half = info.precision == "fp16" and info.kind == "pair"
    traced = Pair(_encoder(info, backbone), Comparator(lin.tensors)).eval() if half else None
    return validate(paths, lambda state: Reference(info.net, info.version, state, lin), backbone, progress, traced)
