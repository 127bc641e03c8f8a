"""Which file a model's name means, and whether that file is the one its manifest describes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from .errors import DamagedModelError, ForeignModelError, ModelNotFoundError
from .installed import installed_models, model_name, package_name, package_of
from .plan import PlanInfo

__all__ = [
    "DEFAULT_MODEL",
    "MODEL_VARIABLE",
    "find_model",
    "is_plan",
    "manifest_path",
    "read_model",
    "read_plan",
    "stem_of",
]

DEFAULT_MODEL = Path("artifacts/lpips_alex_fp32.onnx")
MODEL_VARIABLE = "LPIPS_MODEL"

# What a protobuf message can hold; a larger (say, sparse) file is not read into memory to find out.
_MOST_BYTES = 2**31

# A name is an artifact's file name with hyphens, and without what is the default; see stem_of.
_NAME = re.compile(
    r"(alex|vgg|squeeze)(?:-(fp32|fp16|int8))?(-v0\.0)?(-baseline)?(-custom-[0-9a-f]{8})?(-uint8)?(-tensorrt|-openvino)?"
)

# What lpips-export needs besides the net, for each part of a name.
_OPTIONS = {
    "fp16": " --precision fp16",
    "int8": " --precision int8 --calibration DIR",
    "v0.0": " --lpips-version 0.0",
    "baseline": " --lin none",
    "custom": " and your --backbone or --lin",
    "uint8": " --input uint8",
    "tensorrt": " --target tensorrt",
    "openvino": " --target openvino",
}


def find_model(model: str | os.PathLike[str] | None = None) -> Path:
    """The file that `model` means: a path, or a name such as `alex` or `alex-fp16`.

    A name means the artifact of that name in `artifacts/` or, if there is none, an installed one (lpips-model-alex).
    Without `model`, $LPIPS_MODEL and then the name `alex`. Raises ModelNotFoundError, or DamagedModelError for an
    installed model whose file is gone.
    """
    origin = ""
    if model is None and os.environ.get(MODEL_VARIABLE):
        model, origin = os.environ[MODEL_VARIABLE], f" (from ${MODEL_VARIABLE})"
    if model is None:
        return _find_stem(DEFAULT_MODEL.stem, "export it with lpips-export, or name a model with -m or $LPIPS_MODEL")
    stem = stem_of(str(model))
    if stem is not None and not Path(model).is_file():
        parts = str(model).split("-")
        options = "".join(_OPTIONS.get(part, "") for part in parts[1:])
        return _find_stem(stem, f"or export it with: lpips-export --net {parts[0]}{options}", origin)
    return _regular(Path(model), "give the path of an .onnx or .engine file of lpips-export", origin)


def stem_of(name: str) -> str | None:
    """The file name, without suffix, of the artifact of this name: alex-uint8 -> lpips_alex_fp32_uint8.

    None for what is no name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    net, precision, *rest = match.groups()
    return f"lpips_{net}_{precision or 'fp32'}" + "".join(f"_{part[1:]}" for part in rest if part)


def _find_stem(stem: str, next_step: str, origin: str = "") -> Path:
    path = DEFAULT_MODEL.parent / f"{stem}.onnx"
    if _is_missing(path):
        # Only now, since it takes its time.
        installed = installed_models()
        if stem in installed:
            return _installed(installed[stem])
        others = f"installed: {', '.join(sorted(map(model_name, installed)))}; " if installed else ""
        next_step = f"{others}pip install the wheel {package_name(stem)}, {next_step}"
    return _regular(path, next_step, origin)


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # there may be one, which _regular says cannot be opened
        return False


def _installed(path: Path) -> Path:
    if not path.is_file():
        package = package_of(path) or path.parent.name
        raise DamagedModelError(f"{path}: is missing, though {package} is installed; install {package} again")
    return path


def _regular(path: Path, next_step: str, origin: str) -> Path:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path}{origin}: no such model; {next_step}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        words = getattr(error, "strerror", None) or error
        raise ModelNotFoundError(f"{path}{origin}: cannot be opened: {words}; {next_step}") from error
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise ModelNotFoundError(f"{path}{origin}: is a {kind}, a model is needed; {next_step}")
    return path


def manifest_path(model: Path) -> Path:
    """The manifest beside a model: its full name plus `.json`."""
    return model.with_name(model.name + ".json")


def is_plan(path: Path) -> bool:
    """Whether a model is a TensorRT plan, by its name: of what is in it, only its manifest tells."""
    return path.suffix.lower() == ".engine"


def read_model(path: Path) -> tuple[bytes, str]:
    """The bytes of a graph and their sha256, checked against the manifest where one lies beside it.

    Raises ModelNotFoundError if it cannot be read, ForeignModelError if it is larger than ONNX files can be,
    DamagedModelError if the manifest is of another file.
    """
    package = package_of(path)
    data, sha256, _ = _read(path, again=f"install {package} again" if package else "export the model again")
    return data, sha256


def read_plan(path: Path) -> tuple[bytes, PlanInfo]:
    """The bytes of a TensorRT plan and what the manifest beside it says, which must be there and be of this plan.

    Raises ModelNotFoundError if the plan cannot be read, DamagedModelError if its manifest is missing, is none, or is
    of another file.
    """
    data, _, manifest = _read(path, again="build the engine again")
    if manifest is None:
        raise DamagedModelError(
            f"{path}: its manifest {manifest_path(path).name} is missing, and nothing else says for which TensorRT and "
            "GPU it is; put it beside the plan, or build the engine again"
        )
    return data, PlanInfo.from_manifest(manifest, manifest_path(path))


def _read(path: Path, again: str) -> tuple[bytes, str, dict[str, Any] | None]:
    """The bytes of a file, their sha256, and the content of its manifest if there is one, which must be of them."""
    try:
        if path.stat().st_size >= _MOST_BYTES:
            raise ForeignModelError(f"{path}: is no model of lpips-export, those are far below 2 GB")
        data = path.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(f"{path}: cannot be read: {error.strerror}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    manifest = manifest_path(path)
    if not manifest.exists():
        return data, sha256, None
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        expected = content["sha256"]
    except OSError as error:
        raise DamagedModelError(f"{manifest}: cannot be read: {error.strerror}; {again}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedModelError(f"{manifest}: is no manifest (JSON with the sha256 of {path.name}); {again}") from error
    if expected != sha256:
        raise DamagedModelError(
            f"{path}: sha256 {sha256[:16]}… is not the {str(expected)[:16]}… of {manifest.name}; "
            f"one of the two was changed, cut short, renamed or only half replaced: {again}"
        )
    return data, sha256, content
