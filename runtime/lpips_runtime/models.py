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
from .plan import PlanInfo

__all__ = ["DEFAULT_MODEL", "MODEL_VARIABLE", "find_model", "is_plan", "manifest_path", "read_model", "read_plan"]

DEFAULT_MODEL = Path("artifacts/lpips_alex_fp32.onnx")
MODEL_VARIABLE = "LPIPS_MODEL"

# What a protobuf message can hold; a larger (say, sparse) file is not read into memory to find out.
_MOST_BYTES = 2**31

_NAME = re.compile(r"(alex|vgg|squeeze)(?:-(fp32|fp16|int8))?")

# What lpips-export needs besides the net.
_OPTIONS = {"fp32": "", "fp16": " --precision fp16", "int8": " --precision int8 --calibration DIR"}


def find_model(model: str | os.PathLike[str] | None = None) -> Path:
    """The file that `model` means: a path, or a name such as `alex` or `alex-fp16` (then in `artifacts/`).

    Without one, $LPIPS_MODEL and then `artifacts/lpips_alex_fp32.onnx`. Raises ModelNotFoundError.
    """
    origin = ""
    if model is None and os.environ.get(MODEL_VARIABLE):
        model, origin = os.environ[MODEL_VARIABLE], f" (from ${MODEL_VARIABLE})"
    if model is None:
        path, next_step = (
            DEFAULT_MODEL,
            "export it with lpips-export, or name a model with -m or $LPIPS_MODEL",
        )
    elif (match := _NAME.fullmatch(str(model))) and not Path(model).is_file():
        net, precision = match[1], match[2] or "fp32"
        path = DEFAULT_MODEL.parent / f"lpips_{net}_{precision}.onnx"
        next_step = f"export it with: lpips-export --net {net}" + _OPTIONS[precision]
    else:
        path, next_step = Path(model), "give the path of an .onnx or .engine file of lpips-export"
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
    data, sha256, _ = _read(path, again="export the model again")
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
