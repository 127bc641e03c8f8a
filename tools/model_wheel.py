"""An exported model as a project that hatchling builds a wheel of: lpips-model-alex and its like.

The wheel holds the graphs of one export, their manifests, and what must be passed on with the weights: LICENSE and
NOTICE. It says in the entry point group of lpips_runtime.installed which model it is, and has no code.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template

from lpips_export.errors import PublishError, ValidationError
from lpips_export.manifest import specification
from lpips_export.spec import artifact_stem
from lpips_runtime import __version__
from lpips_runtime.contract import ModelInfo
from lpips_runtime.errors import DamagedModelError
from lpips_runtime.installed import GROUP, model_name, package_name
from lpips_runtime.models import manifest_path
from lpips_runtime.session import Session

__all__ = ["model_project", "pair_graphs"]

_ROOT = Path(__file__).parent.parent
_SIBLINGS = ("_features", "_compare")

_PYPROJECT = Template(
    """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "$package"
version = "$version"
description = "LPIPS ($name) as an ONNX graph, proven equal to the PyTorch reference, for lpips-runtime"
readme = "README.md"
license = "$license"
license-files = ["LICENSE", "NOTICE"]
requires-python = ">=3.11"
# What a runtime reads is settled by the contract's version, and that changes with an incompatible release only.
dependencies = ["lpips-runtime~=$version"]

[project.entry-points."$group"]
"$stem" = "$module"

[tool.hatch.build]
ignore-vcs = true

[tool.hatch.build.targets.wheel]
packages = ["$module"]
"""
)

_README = Template(
    """\
# $package

A model for lpips-runtime, which finds it by its name:

```
lpips-score -m $name original.png decoded.png
```

It holds `$stem.onnx`, LPIPS as one ONNX graph made by $exporter, and its manifest with the error on every
validation case. The weights in it are other people's work: NOTICE says whose, and under which terms.
"""
)


def pair_graphs(artifacts: Path) -> list[Path]:
    """The models of a folder, each to become a wheel: its .onnx files, without those of --split that go with them.

    Raises PublishError if there is none, or if a graph of --split has lost another that it goes with.
    """
    graphs = sorted(artifacts.glob("*.onnx"))
    found = []
    for graph in graphs:
        suffix = next((suffix for suffix in _SIBLINGS if graph.stem.endswith(suffix)), "")
        # A pair graph alone is whole, features and compare each need both others.
        whole = ("", *_SIBLINGS) if suffix else ("",)
        for needed in (graph.with_name(f"{graph.stem.removesuffix(suffix)}{kind}.onnx") for kind in whole):
            if needed not in graphs:
                raise PublishError(f"{graph}: belongs to {needed.name}, which is missing; export it again with --split")
        found += [] if suffix else [graph]
    if not found:
        raise PublishError(f"{artifacts}: holds no model; export one with: lpips-export --net alex")
    return found


def model_project(graph: Path, folder: Path) -> Path:
    """Write the project of a pair graph, with the graphs of its split export beside it, into `folder`, which it makes.

    Returns the folder. Raises ModelError for a graph that is not intact, ValidationError for one of which no manifest
    says that it was validated.
    """
    info, spec = _checked(graph)
    graphs = [graph]
    for suffix in _SIBLINGS:
        sibling = graph.with_name(f"{graph.stem}{suffix}.onnx")
        if sibling.exists():
            if _checked(sibling)[1] != {**spec, "kind": suffix[1:]}:
                raise DamagedModelError(f"{sibling}: is of another export than {graph.name}; export both with --split")
            graphs.append(sibling)
    package = package_name(graph.stem)
    values = {
        "exporter": info.exporter,
        "group": GROUP,
        # Of lpips and its lin weights, and of the backbone's, or whatever holds for weights that a user brought.
        "license": f"BSD-2-Clause AND {'LicenseRef-custom-weights' if '_custom' in graph.stem else 'BSD-3-Clause'}",
        "module": package.replace("-", "_"),
        "name": model_name(graph.stem),
        "package": package,
        "stem": graph.stem,
        "version": __version__,
    }
    module = folder / values["module"]
    module.mkdir(parents=True)
    (module / "__init__.py").write_text(f'"""Holds {graph.name}, for lpips-runtime; no code."""\n', encoding="utf-8")
    for path in graphs:
        shutil.copyfile(path, module / path.name)
        shutil.copyfile(manifest_path(path), manifest_path(module / path.name))
    for name in ("LICENSE", "NOTICE"):
        shutil.copyfile(_ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text(_PYPROJECT.substitute(values), encoding="utf-8")
    (folder / "README.md").write_text(_README.substitute(values), encoding="utf-8")
    return folder


def _checked(graph: Path) -> tuple[ModelInfo, Mapping[str, str]]:
    """What an intact, validated artifact says of itself, and the specification in its manifest."""
    path = manifest_path(graph)
    if not path.is_file():
        raise ValidationError(f"{graph}: its manifest {path.name} is missing, so nothing says that it was validated")
    # Opened as those who install it will: against its manifest, its own hash and the contract.
    info = Session(graph, provider="cpu", threads=1, kind=None).info
    if graph.stem != artifact_stem(info):
        raise DamagedModelError(f"{graph}: is the model {artifact_stem(info)}; give it that name, or export it again")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    spec, validation = manifest.get("spec"), manifest.get("validation")
    if not (isinstance(spec, dict) and specification(info).items() <= spec.items()):
        raise DamagedModelError(f"{path}: its spec is not that of {graph.name}; export the model again")
    if not (manifest.get("structure") and isinstance(validation, dict) and validation.get("cases")):
        raise ValidationError(f"{path}: says nothing of a validation; export the model again")
    return info, spec
