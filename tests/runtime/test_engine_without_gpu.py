"""The real TensorRT-RTX and the real cuda-python, on machines that have them but no GPU: what they say is passed on."""

import shutil
import sys
from pathlib import Path

import pytest
import real_tensorrt
from fake_cuda import FakeCuda
from fake_trt_runtime import write_manifest
from score_command import Run

from lpips_runtime.engine import Engine
from lpips_runtime.errors import ForeignModelError, ProviderError
from lpips_runtime.gpu import Gpu, find_gpu
from lpips_runtime.models import manifest_path
from lpips_runtime.plan import Profile
from lpips_runtime.session import Session

PROFILES = [Profile((1, 16, 16), (1, 32, 32), (4, 64, 64)), Profile((1, 64, 64), (2, 64, 64), (8, 128, 128))]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, quick_model: Path) -> Path:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    graph = Path(shutil.copy(quick_model, tmp_path_factory.mktemp("plans") / "lpips_vgg_fp32.onnx"))
    return real_tensorrt.build("tensorrt-rtx", graph, PROFILES)


@pytest.fixture
def no_gpu() -> None:
    pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    if isinstance(real_tensorrt.gpu(), Gpu):
        pytest.skip("this machine has a GPU")


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA is a fake that says there is one, so that the plan gets as far as TensorRT."""
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    if isinstance(real_tensorrt.gpu(), Gpu):
        pytest.skip("this machine has a GPU, which TensorRT would use beside the pretended one")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda())


@pytest.mark.usefixtures("no_gpu")
def test_cuda_says_why_there_is_no_gpu() -> None:
    with pytest.raises(ProviderError, match=r"^CUDA's cudaGetDeviceCount failed: .*(driver|device).*; \w+"):
        find_gpu(0)


@pytest.mark.usefixtures("no_gpu")
def test_a_plan_where_there_is_no_gpu(plan: Path, run: Run) -> None:
    with pytest.raises(ProviderError, match=r"^CUDA's cudaGetDeviceCount failed: "):
        Engine(plan)
    code, out, err = run("a.png", "b.png", "-m", plan)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("error: CUDA's cudaGetDeviceCount failed: ")


@pytest.mark.usefixtures("pretended_gpu")
def test_what_tensorrt_logs_is_in_the_error(plan: Path) -> None:
    with pytest.raises(ProviderError) as caught:
        Engine(plan)
    message = str(caught.value)
    assert message.startswith(f"{plan}: TensorRT cannot read the plan: (cudaError ")
    assert ".cpp" not in message
    assert len(message.splitlines()) == 1


@pytest.mark.usefixtures("pretended_gpu")
def test_what_is_no_plan_is_refused_by_tensorrt(plan: Path, tmp_path: Path, quick_model: Path) -> None:
    from tensorrt_rtx_bindings import __version__

    path = tmp_path / "no_rtx.engine"
    path.write_bytes(b"no plan at all")
    write_manifest(
        path,
        quick_model,
        info=Session(quick_model).info,
        flavour="tensorrt-rtx",
        tensorrt=__version__,
        gpu=None,
        compute_capability=None,
        profiles=tuple(PROFILES),
    )
    with pytest.raises(ProviderError, match=r"no_rtx.engine: TensorRT cannot read the plan: \w+"):
        Engine(path)


@pytest.mark.usefixtures("pretended_gpu")
def test_the_real_version_is_compared(plan: Path, tmp_path: Path) -> None:
    from tensorrt_rtx_bindings import __version__

    path = tmp_path / plan.name
    path.write_bytes(plan.read_bytes())
    said = manifest_path(plan).read_text()
    assert f'"tensorrt": "{__version__}"' in said
    manifest_path(path).write_text(said.replace(f'"{__version__}"', '"1.0.0.1"'))
    with pytest.raises(ForeignModelError) as caught:
        Engine(path)
    assert f"another TensorRT-RTX version: built by TensorRT-RTX 1.0.0.1, here is {__version__} on" in str(caught.value)
