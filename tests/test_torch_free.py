"""Where there is no PyTorch: the wheels of `make dist`, runtime with [cpu] and model, in an environment of their own.

Needs the package index, for pip. The models come from this environment, where the exporter is.
"""

import json
import os
import re
import shutil
import subprocess
import venv
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lpips_runtime.installed import model_name, package_name

ROOT = Path(__file__).parent.parent
# Tests that need torch, onnx, TensorRT or the exporter beside the runtime are the only ones that may be skipped there.
MAY_BE_SKIPPED = re.compile(
    r"could not import '(torch|onnx|lpips_export\.\w+|tensorrt_rtx_bindings|cuda\.bindings\.runtime)'"
    "|provider 'openvino' is not installed|the exporter is not installed"
)


def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> str:
    """What the command prints; a failure shows all of it."""
    ended = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LPIPS_MODEL"))}
        | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1200,
    )
    assert ended.returncode == 0, f"{arguments} ended with {ended.returncode}:\n{ended.stdout[-20_000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def artifact(exported: Callable[..., list[Path]], real_weights: Callable[[str], Path]) -> Path:
    """AlexNet as it comes, or with random weights where the real ones are missing."""
    backbone = None
    with suppress(pytest.skip.Exception):
        backbone = real_weights("alex")
    return exported(net="alex", backbone=backbone, quick=True)[0]


@pytest.fixture(scope="module")
def wheels(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Distribution -> wheel, as `make dist` builds them."""
    pytest.importorskip("build")
    from tools.dist import build_all

    folder = tmp_path_factory.mktemp("dist")
    (folder / "artifacts").mkdir()
    for path in (artifact, artifact.with_name(f"{artifact.name}.json")):
        shutil.copyfile(path, folder / "artifacts" / path.name)
    built = build_all(folder / "artifacts", folder / "dist")
    return {wheel.name.partition("-")[0].replace("_", "-"): wheel for wheel in built}


@pytest.fixture(scope="module")
def torch_free(wheels: dict[str, Path], artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with two wheels, the runtime's with [cpu] and the model's."""
    folder = tmp_path_factory.mktemp("torch-free") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", f"{wheels['lpips-runtime']}[cpu]")
    run(python, "-m", "pip", "install", wheels[package_name(artifact.stem)])
    return python


def test_the_wheel_holds_the_runtime_and_nothing_else(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["lpips-runtime"]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {Path(name).name for name in archive.namelist() if ".dist-info/" in name}
    package = ROOT / "runtime/lpips_runtime"
    assert names == {f"lpips_runtime/{path.name}" for path in package.iterdir() if path.name != "__pycache__"}
    assert {"lpips_runtime/py.typed", "lpips_runtime/cli.py"} <= names
    assert {"METADATA", "LICENSE", "entry_points.txt"} <= about


def test_the_runtime_and_its_model_are_all_there_is(
    torch_free: Path, artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    size = sum(path.lstat().st_size for path in torch_free.parent.parent.rglob("*") if path.is_file()) / 1e6
    with capfd.disabled():
        print(f"\nenvironment of runtime and model without PyTorch: {size:.0f} MB")
    # ONNX Runtime 1.31 and 1.32 make it 201 and 211; PyTorch alone would add some 700.
    assert size < 250

    for module in ("torch", "torchvision", "lpips", "onnx", "lpips_export"):
        run(torch_free, "-c", f"import importlib.util, sys; sys.exit(bool(importlib.util.find_spec({module!r})))")
    where = run(torch_free, "-c", "import lpips_runtime; print(lpips_runtime.__file__)")
    assert Path(where.strip()).is_relative_to(torch_free.parent.parent)
    told = run(torch_free.parent / "lpips-score", "--info", "-m", model_name(artifact.stem), cwd=torch_free.parent)
    (path,) = re.findall("^model.path: (.*)$", told, re.MULTILINE)
    assert Path(path).is_relative_to(torch_free.parent.parent)
    assert Path(path).read_bytes() == artifact.read_bytes()


def test_two_installs_give_the_golden_numbers(torch_free: Path, artifact: Path, golden_dir: Path) -> None:
    if model_name(artifact.stem) != "alex":
        pytest.skip("alexnet_features.safetensors was not found, the model that was installed has random weights")
    golden = json.loads((golden_dir / "golden.json").read_text())["alex"]["float64"]
    for options in ((), ("-m", "alex")):
        for name in ("p0", "p1"):
            images = (golden_dir / "ex_ref.png", golden_dir / f"ex_{name}.png")
            told = run(torch_free.parent / "lpips-score", *options, *images, cwd=torch_free.parent)
            assert float(told) == pytest.approx(golden[f"ref_{name}"], abs=1e-6)


def test_the_tests_of_the_runtime_pass_where_there_is_no_torch(
    torch_free: Path, models: Callable[[str], Path], tmp_path: Path
) -> None:
    run(torch_free, "-m", "pip", "install", "pytest>=8", "hypothesis>=6.100")
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
