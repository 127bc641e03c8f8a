"""Which file a model's name means, and whether that file is the one its manifest describes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path

from .errors import DamagedModelError, ForeignModelError, ModelNotFoundError

__all__ = ["DEFAULT_MODEL", "MODEL_VARIABLE", "find_model", "manifest_path", "read_model"]

DEFAULT_MODEL = Path("artifacts/lpips_alex_fp32.onnx")
MODEL_VARIABLE = "LPIPS_MODEL"

# What a protobuf message can hold; a larger (say, sparse) file is not read into memory to find out.
_MOST_BYTES = 2**31

_NAME = re.compile(r"(alex|vgg|squeeze)(?:-(fp32|fp16|int8))?")


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
        next_step = f"export it with: lpips-export --net {net}" + f" --precision {precision}" * (precision != "fp32")
    else:
        path, next_step = Path(model), "give the path of an .onnx file of lpips-export"
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


def read_model(path: Path) -> tuple[bytes, str]:
    """The bytes of a model and their sha256, checked against the manifest where one lies beside it.

    Raises ModelNotFoundError if it cannot be read, ForeignModelError if it is larger than ONNX files can be,
    DamagedModelError if the manifest is of another file.
    """
    try:
        if path.stat().st_size >= _MOST_BYTES:
            raise ForeignModelError(f"{path}: is no model of lpips-export, those are far below 2 GB")
        data = path.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(f"{path}: cannot be read: {error.strerror}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    manifest = manifest_path(path)
    if manifest.exists():
        try:
            expected = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
        except OSError as error:
            raise DamagedModelError(f"{manifest}: cannot be read: {error.strerror}; export the model again") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedModelError(
                f"{manifest}: is no manifest (JSON with the sha256 of {path.name}); export the model again"
            ) from error
        if expected != sha256:
            raise DamagedModelError(
                f"{path}: sha256 {sha256[:16]}… is not the {str(expected)[:16]}… of {manifest.name}; "
                "the file was changed, cut short or half replaced: export the model again"
            )
    return data, sha256
