"""What the tests of the exporter share."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import int8_graph
import needed
import pytest
from export_command import Backbones, Call, Exported

from lpips_export import trt_library, validate
from lpips_runtime.models import manifest_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Call(capsys)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are looked at on three cases."""
    cases = validate.validation_cases
    monkeypatch.setattr(validate, "validation_cases", lambda *of: list(cases(*of))[:3])


@pytest.fixture
def own(random_backbone: Backbones, tmp_path: Path) -> list[object]:
    return ["--backbone", random_backbone("alex"), "--allow-unknown-weights", "--output-dir", tmp_path / "out"]


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX builds the engines, whatever else is installed."""
    needed.module("tensorrt_rtx_bindings")
    # Not delitem, which would put it back at the end: the order of the table counts.
    monkeypatch.setattr(trt_library, "_FLAVOURS", {"tensorrt-rtx": trt_library._FLAVOURS["tensorrt-rtx"]})


@pytest.fixture
def artifact(exported: Exported, tmp_path: Path) -> Path:
    """A copy, to be spoilt, of an artifact with random weights and of its manifest."""
    graph, *_ = exported(net="alex", split=True)
    path = tmp_path / "artifacts" / "lpips_alex_fp32.onnx"
    path.parent.mkdir()
    shutil.copy(graph, path)
    shutil.copy(manifest_path(graph), manifest_path(path))
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 18 pictures, cut side by side from three photographs; half of them JPEG."""
    return int8_graph.save_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def int8_net(random_backbone: Backbones) -> Callable[[str], int8_graph.Int8Net]:
    """net -> that net of random weights with equalised channels, and its INT8 graphs; made once."""
    return functools.cache(lambda net: int8_graph.Int8Net(net, random_backbone(net)))
