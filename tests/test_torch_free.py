"""The runtime where there is no PyTorch: its built wheel with [cpu] alone, in an environment of its own.

Needs the package index, for pip. The models come from this environment, where the exporter is.
"""

import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Tests that need torch, onnx, TensorRT or the exporter beside the runtime are the only ones that may be skipped there.
MAY_BE_SKIPPED = re.compile(
    r"could not import '(torch|onnx|lpips_export\.\w+|tensorrt_rtx_bindings|cuda\.bindings\.runtime)'"
)


def run(*arguments: object, **environment: str) -> str:
    """What the command prints; a failure shows all of it."""
    ended = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1200,
    )
    assert ended.returncode == 0, f"{arguments} ended with {ended.returncode}:\n{ended.stdout[-20_000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pytest.importorskip("build")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT / "runtime")
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def torch_free(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel and its extra [cpu], nothing else."""
    folder = tmp_path_factory.mktemp("torch-free") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "--disable-pip-version-check", f"{wheel}[cpu]")
    return python


def test_the_wheel_holds_the_runtime_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {Path(name).name for name in archive.namelist() if ".dist-info/" in name}
    package = ROOT / "runtime/lpips_runtime"
    assert names == {f"lpips_runtime/{path.name}" for path in package.iterdir() if path.name != "__pycache__"}
    assert {"lpips_runtime/py.typed", "lpips_runtime/cli.py"} <= names
    assert {"METADATA", "LICENSE", "entry_points.txt"} <= about


def test_the_runtime_works_where_there_is_no_torch(
    torch_free: Path, models: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    size = sum(path.lstat().st_size for path in torch_free.parent.parent.rglob("*") if path.is_file()) / 1e6
    with capfd.disabled():
        print(f"\nenvironment of the runtime without PyTorch: {size:.0f} MB")
    assert size < 200

    for module in ("torch", "torchvision", "lpips", "onnx", "lpips_export"):
        run(torch_free, "-c", f"import importlib.util, sys; sys.exit(bool(importlib.util.find_spec({module!r})))")
    where = run(torch_free, "-c", "import lpips_runtime; print(lpips_runtime.__file__)")
    assert Path(where.strip()).is_relative_to(torch_free.parent.parent)
    told = run(torch_free.parent / "lpips-score", "--info", "-m", models("alex"))
    assert "model.net: alex" in told


def test_the_tests_of_the_runtime_pass_where_there_is_no_torch(
    torch_free: Path, models: Callable[[str], Path], tmp_path: Path
) -> None:
    run(torch_free, "-m", "pip", "install", "--disable-pip-version-check", "pytest>=8", "hypothesis>=6.100")
    told = run(
        *(torch_free, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/runtime"),
        LPIPS_TEST_MODELS=str(models("alex").parent),
        HYPOTHESIS_STORAGE_DIRECTORY=str(tmp_path / "hypothesis"),
    )
    passed = re.search(r"(\d+) passed", told)
    assert passed is not None
    assert int(passed[1]) > 500
    skipped = [line for line in told.splitlines() if line.startswith("SKIPPED")]
    assert [line for line in skipped if not MAY_BE_SKIPPED.search(line)] == []
