"""What several test modules share: models, photographs, and where the real weights are.

Environment variables (all optional; without them the tests that need them are skipped and say so):
LPIPS_TEST_WEIGHTS_DIR  folder with alexnet_features.safetensors and squeezenet1_1_features.safetensors
LPIPS_TEST_GOLDEN_DIR   folder with golden.json and its images
LPIPS_TEST_MODELS       folder of models made by `export_runtime_models`, where the exporter is not installed
"""

import functools
import hashlib
import importlib.util
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import needed
import pytest

WEIGHT_FILES = {"alex": "alexnet", "squeeze": "squeezenet1_1", "vgg": "vgg16"}
MODELS_VARIABLE = "LPIPS_TEST_MODELS"


def pytest_report_header() -> str:
    import numpy
    import onnxruntime

    versions = [f"numpy {numpy.__version__}", f"onnxruntime {onnxruntime.__version__}"]
    if importlib.util.find_spec("torch"):
        import torch

        versions.append(f"torch {torch.__version__}")
    shared = [name for name in ("LPIPS_TEST_WEIGHTS_DIR", "LPIPS_TEST_GOLDEN_DIR") if name in os.environ]
    return f"{', '.join(versions)}; set: {', '.join(shared) or 'no test variable'}"


def pytest_configure() -> None:
    # Of two workers each keeps to one core: the threads of torch and ONNX Runtime would spin side by side otherwise.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
    # A shell starts background jobs with Ctrl-C ignored, nohup ignores the closed terminal, and so would every process
    # that the tests interrupt.
    usual = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    for name, handler in usual.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest file first: a worker that began with it last would work on while the other has nothing to do.
    items.sort(key=lambda item: item.path.name != "test_torch_free.py")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads the user's settings, weights, caches or installed models."""
    empty = tmp_path_factory.getbasetemp() / "empty"
    empty.mkdir(exist_ok=True)
    for name in ("LPIPS_MODEL", "LPIPS_WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LPIPS_CACHE_DIR", str(empty / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(empty / "torch"))
    monkeypatch.setattr("lpips_runtime.installed.GROUP", "tests.models")


@pytest.fixture(scope="session")
def real_weights() -> Callable[[str], Path]:
    """net -> file of torchvision's weights, or a skip that says what is missing."""
    # The user's own cache is read here, before `_isolated` hides it: `make demo` leaves AlexNet's and VGG16's there.
    folders = [Path(os.environ[name]) for name in ("LPIPS_TEST_WEIGHTS_DIR",) if os.environ.get(name)]
    if importlib.util.find_spec("platformdirs"):
        import platformdirs

        folders.append(Path(platformdirs.user_cache_dir("lpips-export")))

    def find(net: str) -> Path:
        name = f"{WEIGHT_FILES[net]}_features.safetensors"
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        what = f"no {name} in $LPIPS_TEST_WEIGHTS_DIR or the user's cache (`make demo` fetches alex and vgg)"
        if net == "squeeze":  # which no index of packages brings
            pytest.skip(what)
        return needed.missing(what)

    return find


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    if "LPIPS_TEST_GOLDEN_DIR" not in os.environ:
        pytest.skip("golden.json and its images: LPIPS_TEST_GOLDEN_DIR is not set")
    return Path(os.environ["LPIPS_TEST_GOLDEN_DIR"])


@pytest.fixture(scope="session")
def random_backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """net -> file of seeded random weights, of which every tap has live and dead channels."""
    folder = tmp_path_factory.mktemp("random-weights")

    @functools.cache
    def make(net: str) -> Path:
        import torch
        from safetensors.torch import save_file

        from lpips_export.backbones import BACKBONES

        with torch.random.fork_rng():
            torch.manual_seed(7)
            state = BACKBONES[net].features().state_dict()
        path = folder / f"{net}.safetensors"
        save_file({f"features.{key}": value for key, value in state.items()}, path)
        return path

    return make


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, random_backbone: Callable[[str], Path]
) -> Callable[..., list[Path]]:
    """ExportSpec fields -> the graphs of that export, with random weights unless a backbone is given; made once, by
    whichever worker asks first.

    quick: validate on the first cases only, where the test itself looks at the numbers; one that was looked at in full,
    or has its siblings too, will do.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    folder.mkdir(exist_ok=True)

    @functools.cache
    def make(quick: bool = False, **fields: Any) -> list[Path]:
        from filelock import FileLock

        from lpips_export.spec import ExportSpec

        given = fields.pop("backbone", None)
        spec = ExportSpec(backbone=given, allow_unknown_weights=True, **fields)

        def record(split: bool, quick: bool) -> Path:
            said = repr((replace(spec, split=split), quick))
            return folder / f"{hashlib.sha256(said.encode()).hexdigest()}.txt"

        with FileLock(f"{record(True, False)}.lock"):
            for known in (record(split, part) for split in {True, spec.split} for part in {False, quick}):
                if known.exists():
                    return list(map(Path, known.read_text().splitlines()))[: len(spec.kinds)]
            paths = _export(replace(spec, backbone=given or random_backbone(spec.net)), folder, quick)
            record(spec.split, quick).write_text("\n".join(map(str, paths)))
        return paths

    return make


def _export(spec: Any, folder: Path, quick: bool) -> list[Path]:
    from lpips_export import validate
    from lpips_export.cases import validation_cases
    from lpips_export.export import export

    with pytest.MonkeyPatch.context() as patch:
        # Whatever the test that asks first has put in its place: the next one is given the same graphs.
        patch.setattr(
            validate, "validation_cases", lambda *of: itertools.islice(validation_cases(*of), 3 if quick else None)
        )
        return [artifact.path for artifact in export(spec, folder)]


# Name -> the ExportSpec it comes from, and which of its graphs it is.
RUNTIME_MODELS = {
    "alex": ({"net": "alex", "split": True}, 0),
    "alex_features": ({"net": "alex", "split": True}, 1),
    "alex_compare": ({"net": "alex", "split": True}, 2),
    "squeeze": ({"net": "squeeze", "input": "uint8", "split": True, "quick": True}, 0),
    "squeeze_features": ({"net": "squeeze", "input": "uint8", "split": True, "quick": True}, 1),
    "squeeze_compare": ({"net": "squeeze", "input": "uint8", "split": True, "quick": True}, 2),
    "alex_uint8": ({"net": "alex", "input": "uint8"}, 0),
    "squeeze_baseline": ({"net": "squeeze", "version": "0.0", "lin": "none", "quick": True}, 0),
}


def export_runtime_models(exported: Callable[..., list[Path]], folder: Path) -> None:
    """Put the models of the runtime's tests, and their manifests, into `folder` under their names there."""
    for name, (fields, number) in RUNTIME_MODELS.items():
        graph = exported(**fields)[number]
        (folder / f"{name}.onnx").write_bytes(graph.read_bytes())
        (folder / f"{name}.onnx.json").write_bytes(graph.with_name(graph.name + ".json").read_bytes())


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Name in RUNTIME_MODELS -> an exported graph with random weights."""
    if MODELS_VARIABLE in os.environ:
        return lambda name: Path(os.environ[MODELS_VARIABLE]) / f"{name}.onnx"
    if importlib.util.find_spec("lpips_export") is None:
        pytest.skip(f"the exporter is not installed and {MODELS_VARIABLE} names no folder of models")
    folder = tmp_path_factory.mktemp("models")
    export_runtime_models(request.getfixturevalue("exported"), folder)
    return lambda name: folder / f"{name}.onnx"
