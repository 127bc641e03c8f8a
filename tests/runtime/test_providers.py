"""Which execution provider a name means, and what is said where it cannot be had."""

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lpips_runtime import providers
from lpips_runtime.errors import ProviderError, UsageError
from lpips_runtime.nvidia import load_cuda, nvidia_gpus
from lpips_runtime.ort import onnxruntime
from lpips_runtime.providers import PROVIDERS, Device, check_float32, find_device, parse, parse_for_onnx


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("auto", ("auto", 0)),
        ("cpu", ("cpu", 0)),
        ("cpu:0", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
        ("tensorrt-rtx:1", ("tensorrt-rtx", 1)),
        ("openvino", ("openvino", 0)),
    ],
)
def test_names_and_devices(name: str, meaning: tuple[str, int]) -> None:
    assert parse(name) == meaning


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *(
            (
                name,
                f"provider {name!r} is unknown; choose from auto, cpu, cuda, openvino, tensorrt-rtx, or for .engine "
                "files tensorrt, tensorrt-rtx",
            )
            for name in ("", "CPU", "gpu", "gpu:x")
        ),
        ("cuda:", "provider 'cuda:': the device after the colon is a number, as in cuda:1"),
        ("cuda:x", "provider 'cuda:x': the device after the colon is a number, as in cuda:1"),
        ("cuda:-1", "provider 'cuda:-1': the device after the colon is a number, as in cuda:1"),
        ("cuda:1:2", "provider 'cuda:1:2': the device after the colon is a number, as in cuda:1"),
        ("cuda:" + "9" * 5000, "': the device after the colon is a number, as in cuda:1"),
        ("cpu:1", "provider 'cpu:1': the CPU has no device 1"),
        (
            "tensorrt",
            "provider 'tensorrt' runs .engine files; for an .onnx file choose from auto, cpu, cuda, openvino, "
            "tensorrt-rtx",
        ),
        ("auto:1", "provider 'auto:1': a device belongs to a provider; name it, as in cuda:1"),
    ],
)
def test_a_name_that_means_nothing_is_a_wrong_call(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_for_onnx(name)
    assert str(caught.value).endswith(said)
    assert caught.value.exit_code == 2


def test_a_provider_that_is_not_in_onnx_runtime_says_which_build_has_it() -> None:
    if "CUDAExecutionProvider" in onnxruntime().get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(ProviderError) as caught:
        find_device(PROVIDERS["cuda"], 0)
    assert str(caught.value) == (
        f"provider 'cuda' is not in the installed ONNX Runtime {onnxruntime().__version__}; "
        "uninstall onnxruntime and pip install 'lpips-runtime[gpu]'"
    )
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["openvino", "tensorrt-rtx"])
def test_a_plugin_that_is_not_installed_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "is_plugin_installed", lambda module: False)
    with pytest.raises(ProviderError) as caught:
        find_device(PROVIDERS[name], 0)
    assert str(caught.value).startswith(f"provider {name!r} is not installed; pip install 'lpips-runtime[{name}")


def test_every_extra_that_is_named_exists() -> None:
    """And at the root, which forwards the runtime's."""
    root = Path(__file__).parents[2]
    if not (root / "runtime/pyproject.toml").is_file():
        pytest.skip("pyproject.toml is not beside the tests")
    runtime = tomllib.loads((root / "runtime/pyproject.toml").read_text())["project"]["optional-dependencies"]
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]["custom"]
    for provider in PROVIDERS.values():
        extra = provider.install.partition("[")[2].partition("]")[0]
        assert extra in runtime
        assert build["optional-dependencies"][extra] == [f"lpips-runtime[{extra}]=={{version}}"]


def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    row = replace(PROVIDERS["cpu"], name="cuda", devices=lambda: [Device(0, "RTX 4090"), Device(1, "RTX A2000")])
    assert find_device(row, 1).name == "RTX A2000"
    with pytest.raises(UsageError) as caught:
        find_device(row, 2)
    assert str(caught.value) == "provider 'cuda:2': there is no device 2, only 0 (RTX 4090), 1 (RTX A2000)"


def test_a_provider_without_a_device_says_what_it_needs() -> None:
    row = replace(PROVIDERS["openvino"], devices=list, plugin="onnxruntime")
    with pytest.raises(ProviderError) as caught:
        find_device(row, 0)
    assert str(caught.value) == (
        "provider 'openvino' finds no device here: its plugin takes Intel's CPUs and GPUs only"
    )


# float32 stays float32: the options that each provider is given, since not all of them can run here


def test_cuda_keeps_float32_unless_fast_math_is_asked_for() -> None:
    options = PROVIDERS["cuda"].options
    assert options(Device(3, "GPU"), None, False).items() >= {"device_id": "3", "use_tf32": "0"}.items()
    assert options(Device(0, "GPU"), None, True).items() >= {"device_id": "0", "use_tf32": "1"}.items()


def test_cuda_libraries_that_are_missing_are_told_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    class Runtime:
        @staticmethod
        def preload_dlls() -> None:
            print("Failed to load libcublas.so.13: cannot open shared object file")
            print("Please follow https://example.org to install CUDA.")

    assert load_cuda(Runtime) == "Failed to load libcublas.so.13: cannot open shared object file"
    assert load_cuda(object()) == "", "of an ONNX Runtime that is too old to look for them"
    assert capsys.readouterr() == ("", "")


def test_openvino_keeps_float32_unless_fast_math_is_asked_for() -> None:
    def config(threads: int | None, fast: bool) -> dict[str, dict[str, str]]:
        return json.loads(PROVIDERS["openvino"].options(Device(0, "CPU"), threads, fast)["load_config"])

    assert config(None, False) == {kind: {"INFERENCE_PRECISION_HINT": "f32"} for kind in ("CPU", "GPU")}
    assert config(3, True)["CPU"] == {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": "3"}


@pytest.mark.parametrize("value", [None, "1", ""])
def test_tensorrt_rtx_is_refused_where_it_would_compute_in_tf32(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if value is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value)
    with pytest.raises(ProviderError, match="would compute in TF32; set NVIDIA_TF32_OVERRIDE=0 in the environment"):
        check_float32(PROVIDERS["tensorrt-rtx"])
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    check_float32(PROVIDERS["tensorrt-rtx"])


# Devices


def handle(kind: str, **about: str) -> SimpleNamespace:
    return SimpleNamespace(ep_metadata={"ov_device": kind, **about})


def test_openvino_devices_are_the_cpu_and_then_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        handle("NPU", FULL_DEVICE_NAME="AI Boost"),
        handle("GPU.0", FULL_DEVICE_NAME="Arc A770", OPTIMIZATION_CAPABILITIES="FP32 FP16 BF16"),
        handle("CPU", FULL_DEVICE_NAME="Xeon", OPTIMIZATION_CAPABILITIES="BF16 FP32"),
        handle("GPU.1"),
    ]
    monkeypatch.setattr(providers, "plugin_devices", lambda module, ort_name: found)
    monkeypatch.setattr(providers, "bfloat16_pays", lambda: True)
    # Only the CPU has faster types: a GPU's are half, in which the sums of squares overflow.
    expected = [Device(0, "Xeon", "bfloat16"), Device(1, "Arc A770"), Device(2, "GPU")]
    assert PROVIDERS["openvino"].devices() == expected
    assert PROVIDERS["openvino"].devices()[0].handle is found[2]
    monkeypatch.setattr(providers, "bfloat16_pays", lambda: False)
    assert PROVIDERS["openvino"].devices()[0] == Device(0, "Xeon")


class Driver:
    """The five calls of CUDA's driver API that we make, and two GPUs; or an error."""

    GPUS = ((b"Quadro P400", 6), (b"H100", 9))

    def __init__(self, error: int = 0) -> None:
        self.cuInit = lambda flags: error
        self.cuDeviceGetCount = lambda count: self.give(count, len(self.GPUS))
        self.cuDeviceGet = self.give
        self.cuDeviceGetName = lambda name, size, device: setattr(name, "value", self.GPUS[device.value][0])
        self.cuDeviceGetAttribute = lambda major, _, device: self.give(major, self.GPUS[device.value][1])

    def give(self, pointer: Any, value: int) -> int:
        pointer._obj.value = value
        return 0


def test_cuda_devices_are_those_of_the_driver_and_the_newer_ones_have_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "nvidia_gpus", lambda: nvidia_gpus(Driver()))
    assert PROVIDERS["cuda"].devices() == [Device(0, "Quadro P400"), Device(1, "H100", "TF32")]


def test_a_driver_that_finds_nothing_is_no_gpu() -> None:
    assert nvidia_gpus(Driver(error=100)) == []  # CUDA_ERROR_NO_DEVICE


# Runs with the modules named in its arguments as if they were not installed.
WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ImportError(f"No module named {name!r}")
sys.meta_path.insert(0, Blocker())
"""


def without(modules: str, code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, modules], capture_output=True, text=True, check=False, timeout=60
    )


def test_without_onnx_runtime_the_extras_are_named() -> None:
    ended = without("onnxruntime", "from lpips_runtime.ort import onnxruntime\nonnxruntime()")
    assert ended.stderr.splitlines()[-1] == (
        "lpips_runtime.errors.ProviderError: no ONNX Runtime is installed; install exactly one of the extras: "
        "pip install 'lpips-runtime[cpu]' or 'lpips-runtime[gpu]' (No module named 'onnxruntime')"
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["a.png", "b.png", "--nope"], 2),
        (["a.png", "b.png", "--provider", "gpu"], 2),
        (["a.png", "b.png", "-m", "nowhere.onnx"], 2),
    ],
)
def test_help_and_wrong_calls_need_no_pillow_and_no_onnx_runtime(arguments: list[str], code: int) -> None:
    ended = without("onnxruntime,PIL", f"from lpips_runtime.cli import main\nsys.exit(main({arguments!r}))")
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    ended = without("onnxruntime,PIL,numpy", "import lpips_runtime\nprint(*lpips_runtime.__all__)")
    names = "Detail FeatureStore Features LpipsError ModelInfo Pair Result Scorer __version__\n"
    assert (ended.stdout, ended.stderr) == (names, "")


def test_the_public_names_are_there() -> None:
    import lpips_runtime

    assert [name for name in lpips_runtime.__all__ if getattr(lpips_runtime, name) is None] == []
    assert dir(lpips_runtime) == sorted(lpips_runtime.__all__)
    with pytest.raises(AttributeError, match="module 'lpips_runtime' has no attribute 'nothing'"):
        _ = lpips_runtime.nothing
