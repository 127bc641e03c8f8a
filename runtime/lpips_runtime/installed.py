"""Models that were installed as packages of their own, lpips-model-alex and its like: their names, and their files.

Such a package holds one model, the graphs of its split export and their manifests, in an import package of its own
name (lpips_model_alex). Its entry point in GROUP maps the model's file name without suffix to that import package. It
is found by this metadata: none of its code is run.
"""

from __future__ import annotations

from pathlib import Path

from .errors import DamagedModelError

__all__ = ["GROUP", "installed_models", "model_name", "package_name", "package_of"]

GROUP = "lpips_runtime.models"


def model_name(stem: str) -> str:
    """The name for `-m` of a file name without suffix: lpips_alex_fp32 -> alex, lpips_vgg_fp16 -> vgg-fp16."""
    return stem.removeprefix("lpips_").replace("_fp32", "", 1).replace("_", "-")


def package_name(stem: str) -> str:
    """The distribution that holds a model, normalised as indexes do: lpips_alex_fp32_v0.0 -> lpips-model-alex-v0-0."""
    return f"lpips-model-{model_name(stem).replace('.', '-')}"


def package_of(model: Path) -> str | None:
    """The model package that this file lies in; None for any other file."""
    module = model.parent.name
    return module.replace("_", "-") if module.startswith("lpips_model_") else None


def installed_models() -> dict[str, Path]:
    """File name without suffix -> where that model should lie, for every installed model package.

    Of two packages with the same model the first on sys.path counts, as with imports. Takes some 60 ms, most of them
    for importing importlib.metadata. Raises DamagedModelError for a package whose entry points cannot be read.
    """
    from importlib.metadata import distributions

    found: dict[str, Path] = {}
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except UnicodeDecodeError:  # some other package's: ours are ASCII
            continue
        if f"[{GROUP}]" not in text:
            continue
        try:
            points = list(distribution.entry_points.select(group=GROUP))
        except (TypeError, ValueError) as error:  # what importlib.metadata raises for a line that is none
            raise DamagedModelError(
                f"{distribution.locate_file('')}: entry_points.txt of {distribution.name} is damaged; install "
                f"{distribution.name} again"
            ) from error
        for point in points:
            found.setdefault(point.name, Path(str(distribution.locate_file(point.value)), f"{point.name}.onnx"))
    return found
