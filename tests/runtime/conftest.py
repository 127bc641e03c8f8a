"""What the tests of the runtime share."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_files
import pytest
from engine_machine import Machine
from fake_cuda import FakeCuda
from fake_trt_runtime import FakeTensorRT
from score_command import Models, Run, save

from lpips_runtime import Scorer
from lpips_runtime.cli import main
from lpips_runtime.results import format_distance


@pytest.fixture
def write(tmp_path):
    def write(data, name="image"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.fixture(scope="session")
def plain_model(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random AlexNet and its siblings, but under the name of torchvision's, so that nothing is said of it."""
    folder = tmp_path_factory.mktemp("plain")
    for kind in ("_features", "_compare"):
        onnx_files.plain(models(f"alex{kind}"), folder / f"plain{kind}.onnx")
    return onnx_files.plain(models("alex"), folder / "plain.onnx")


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squared differences, for tests with many pairs."""
    path = tmp_path_factory.mktemp("quick") / "quick.onnx"
    path.write_bytes(onnx_files.squared_difference())
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_model: Path) -> Path:
    """An empty current folder but for a.png, b.png and c.png; the model comes from the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPIPS_MODEL", str(plain_model))
    for seed, name in enumerate("abc"):
        save(f"{name}.png", seed)
    return tmp_path


@pytest.fixture
def run(here: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: arguments -> exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code: Any = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def resume_table(here: Path) -> Path:
    """Twelve pairs, of which two fail, and names that need care."""
    names = ["a.png", "b.png", "c.png", 'q"uote,.png', "línea\nnueva.png", "gone.png"]
    for k, name in enumerate(names[3:5]):
        save(name, 10 + k)
    rows = [(a, b) for a in names[:2] for b in names]
    with open("pairs.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("reference", "distorted"), *rows])
    return Path("pairs.csv")


@pytest.fixture
def score(run: Run, resume_table: Path, quick_model: Path) -> Run:
    return lambda *more: run("-m", quick_model, "--pairs", resume_table, *more)


@pytest.fixture
def distance(here: Path, plain_model: Path) -> Callable[[str, str], str]:
    """The number that the library gives for two files, as it is printed."""
    return lambda a, b: format_distance(float(Scorer(plain_model).score(a, b)))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick_model: Path) -> Machine:
    """A machine where TensorRT and CUDA are fakes, and a plan of the quick model."""
    cuda = FakeCuda()
    tensorrt = FakeTensorRT(cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    # Absent, unless a test puts it there.
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)  # pyright: ignore[reportArgumentType]
    found = Machine(cuda, tensorrt, quick_model, tmp_path / "lpips_vgg_fp32_trt.engine")
    found.plan()
    return found
