"""Which execution provider a name means, and what is said where it cannot be had."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from lpips_runtime import providers
from lpips_runtime.errors import ProviderError, UsageError
from lpips_runtime.providers import PROVIDERS, choose, onnxruntime, parse


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("auto", ("auto", 0)),
        ("cpu", ("cpu", 0)),
        ("cpu:0", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
        ("tensorrt-rtx:1", ("tensorrt-rtx", 1)),
    ],
)
def test_names_and_devices(name: str, meaning: tuple[str, int]) -> None:
    assert parse(name) == meaning


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "provider '' is unknown; choose from auto, cpu, cuda, or for .engine files tensorrt, tensorrt-rtx"),
        ("CPU", "provider 'CPU' is unknown; choose from auto, cpu, cuda, or for .engine files tensorrt, tensorrt-rtx"),
        ("gpu", "provider 'gpu' is unknown; choose from auto, cpu, cuda, or for .engine files tensorrt, tensorrt-rtx"),
        (
            "gpu:x",
            "provider 'gpu:x' is unknown; choose from auto, cpu, cuda, or for .engine files tensorrt, tensorrt-rtx",
        ),
        ("cuda:", "provider 'cuda:': the device after the colon is a number, as in cuda:1"),
        ("cuda:x", "provider 'cuda:x': the device after the colon is a number, as in cuda:1"),
        ("cuda:-1", "provider 'cuda:-1': the device after the colon is a number, as in cuda:1"),
        ("cuda:1:2", "provider 'cuda:1:2': the device after the colon is a number, as in cuda:1"),
        ("cuda:" + "9" * 5000, "': the device after the colon is a number, as in cuda:1"),
        ("cpu:1", "provider 'cpu:1': the CPU has no device 1"),
        ("tensorrt", "provider 'tensorrt' runs .engine files; for an .onnx file choose from auto, cpu, cuda"),
        ("tensorrt-rtx:1", "'tensorrt-rtx:1' runs .engine files; for an .onnx file choose from auto, cpu, cuda"),
        ("auto:1", "provider 'auto:1': a device belongs to a provider; name it, as in cuda:1"),
    ],
)
def test_a_name_that_means_nothing_is_a_wrong_call(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(name)
    assert str(caught.value).endswith(said)
    assert caught.value.exit_code == 2


def test_auto_takes_the_first_provider_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, name in (
        (["CPUExecutionProvider"], "cpu"),
        (["CPUExecutionProvider", "CUDAExecutionProvider"], "cuda"),
    ):
        runtime = SimpleNamespace(get_available_providers=lambda available=available: available)
        monkeypatch.setattr(providers, "onnxruntime", lambda runtime=runtime: runtime)
        assert choose("auto") == (PROVIDERS[name], 0)


def test_a_provider_that_is_not_installed_names_its_extra() -> None:
    if "CUDAExecutionProvider" in onnxruntime().get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(ProviderError) as caught:
        choose("cuda:0")
    version = onnxruntime().__version__
    assert str(caught.value) == (
        f"provider 'cuda' is not in the installed ONNX Runtime {version}; "
        "uninstall it and pip install 'lpips-runtime[gpu]'"
    )
    assert caught.value.exit_code == 3


def test_cuda_keeps_float32() -> None:
    assert PROVIDERS["cuda"].options(3) == {"device_id": "3", "use_tf32": "0"}


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
    ended = without("onnxruntime", "from lpips_runtime.providers import choose\nchoose('auto')")
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
    assert (ended.stdout, ended.stderr) == ("Detail LpipsError ModelInfo Pair Result Scorer __version__\n", "")


def test_the_public_names_are_there() -> None:
    import lpips_runtime

    assert [name for name in lpips_runtime.__all__ if getattr(lpips_runtime, name) is None] == []
    assert dir(lpips_runtime) == sorted(lpips_runtime.__all__)
    with pytest.raises(AttributeError, match="module 'lpips_runtime' has no attribute 'nothing'"):
        _ = lpips_runtime.nothing
