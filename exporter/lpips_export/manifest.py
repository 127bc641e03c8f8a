"""The JSON beside every artifact, and how both come to be in the output folder: all or nothing."""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpips_runtime.contract import ModelInfo
from lpips_runtime.models import manifest_path

from .errors import PublishError
from .validate import Report
from .weights import BackboneWeights, LinWeights

__all__ = ["Artifact", "build_manifest", "check_replaceable", "publish", "specification", "staging", "tools"]

_STAGING_PREFIX = ".lpips-export-"

# What to do before another --output-dir is chosen, by why the operating system refuses.
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space or "),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable or "),
}

_TOOLS = ("lpips-export", "lpips", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Artifact:
    """One published graph or engine: where it is, its manifest's content, its size in bytes."""

    path: Path
    manifest: Mapping
    size: int


def build_manifest(
    model: Path,
    info: ModelInfo,
    backbone: BackboneWeights,
    lin: LinWeights,
    rules: Sequence[str],
    report: Report,
    seconds: float,
    quantisation: Mapping | None = None,
    made_with: Mapping[str, str] | None = None,
) -> dict:
    """What is known of a validated model: hash, specification, weights, tool versions, figures, time.

    quantisation: of an INT8 graph, Plan.facts; made_with: what else decides its numbers, as part of the specification.
    """
    data = model.read_bytes()
    return {
        "file": model.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "spec": specification(info) | dict(made_with or {}),
        "weights": {
            "backbone": {
                "sha256": backbone.sha256,
                "source": backbone.source,
                "origin": backbone.provenance,
                "known": backbone.known,
            },
            "lin": {"sha256": lin.sha256, "kind": lin.kind, "origin": lin.provenance},
        },
        "structure": list(rules),
        **({"quantisation": quantisation} if quantisation else {}),
        "validation": {"against": f"{info.reference} in float64", "provider": "cpu", **report.as_dict()},
        "tools": tools(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
    }


def specification(info: ModelInfo) -> dict[str, str]:
    """What decides a model's numbers: two artifacts with the same specification may replace each other."""
    apart = ("lpips.exporter", "lpips.license", "lpips.content_sha256")
    return {key.removeprefix("lpips."): value for key, value in info.to_metadata().items() if key not in apart}


def tools() -> dict[str, str]:
    """Name -> version of Python and of every package that has a part in an artifact."""
    found = {"python": platform.python_version()}
    for tool in _TOOLS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[tool] = importlib.metadata.version(tool)
    return found


def check_replaceable(model: Path, spec: Mapping, overwrite: bool) -> None:
    """Raise PublishError if `model` exists and is not an artifact of the same specification."""
    manifest = manifest_path(model)
    for path in (model, manifest):
        if path.is_dir():
            raise PublishError(f"{path}: a folder is in the way; remove it or choose another --output-dir")
    if overwrite or not model.exists():
        return
    try:
        existing = dict(json.loads(manifest.read_text(encoding="utf-8"))["spec"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PublishError(
            f"{model}: exists without a readable manifest, so it may not be ours; "
            "replace it with --overwrite or choose another --output-dir"
        ) from error
    if existing != spec:
        differing = sorted(key for key in {*existing, *spec} if existing.get(key) != spec.get(key))
        raise PublishError(
            f"{model}: exists and differs in {', '.join(differing)}; "
            "replace it with --overwrite or choose another --output-dir"
        )


@contextlib.contextmanager
def staging(output_dir: Path, published: str = "nothing was published") -> Iterator[Path]:
    """A hidden folder in the output folder for what is not finished; removed whatever happens.

    One that a killed export left behind is removed too, and so are the output folder and its parents if they were made
    for this and stayed empty. Raises PublishError if nothing can be written there, then or later: a full disk shows
    while models are saved. published: what holds in that case.
    """
    folder, made = None, []
    try:
        if output_dir.exists() and not output_dir.is_dir():
            raise PublishError(f"{output_dir}: is no folder; choose another --output-dir")
        made = [path for path in (output_dir, *output_dir.parents) if not path.exists()]
        output_dir.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(output_dir)
        folder = Path(tempfile.mkdtemp(prefix=f"{_STAGING_PREFIX}{os.getpid()}-", dir=output_dir))
        yield folder
    except OSError as error:
        if isinstance(error, PublishError) or error.errno is None:
            raise
        raise PublishError(
            f"{error.filename or output_dir}: cannot be written: {error.strerror}; "
            f"{published}, {_ADVICE.get(error.errno, '')}choose another --output-dir"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # not empty: something was published, here or by another export
                path.rmdir()


def _remove_abandoned(output_dir: Path) -> None:
    for folder in output_dir.glob(f"{_STAGING_PREFIX}*"):
        pid = folder.name.removeprefix(_STAGING_PREFIX).split("-")[0]
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def publish(staged: Sequence[tuple[Path, Mapping]], output_dir: Path) -> list[Artifact]:
    """Move models and manifests into place: manifests first, the pair's model last.

    A kill in between leaves a manifest without its model, or one that does not match, which every reader refuses.
    """
    for model, manifest in staged:
        manifest_path(model).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for model, _ in staged:
        manifest_path(model).replace(manifest_path(output_dir / model.name))
    for model, _ in reversed(staged):
        model.replace(output_dir / model.name)
    return [Artifact(output_dir / model.name, manifest, manifest["size"]) for model, manifest in staged]
