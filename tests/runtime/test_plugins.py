"""Loading the library of a plugin: once, whole, and in the process that uses it."""

import base64
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lpips_runtime import plugins
from lpips_runtime.errors import ProviderError
from lpips_runtime.plugins import is_plugin_installed, plugin_devices

MODULE = "some_lpips_plugin"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a plugin package with this code and library, and with a record of how large the library was."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)

    def install(
        code: str | None = None, library: bytes = b"", recorded: int | None = None, digest: str = "sha256=x"
    ) -> Path:
        (tmp_path / MODULE).mkdir()
        (tmp_path / MODULE / "plugin.so").write_bytes(library)
        path = tmp_path / MODULE / "plugin.so"
        (tmp_path / MODULE / "__init__.py").write_text(code or f"def get_library_path():\n    return {str(path)!r}\n")
        about = tmp_path / f"{MODULE}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: some-lpips-plugin\nVersion: 1.0\n")
        if recorded is not None:
            (about / "RECORD").write_text(f"{MODULE}/plugin.so,{digest},{recorded}\n")
        return path

    return install


def refusal() -> str:
    with pytest.raises(ProviderError) as caught:
        plugin_devices(MODULE, "SomeExecutionProvider")
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"the plugin {MODULE} cannot be loaded: ")
    assert said.endswith("; pip install --force-reinstall --no-deps some-lpips-plugin")
    return said


def test_whether_it_is_installed_is_found_without_importing_it(package: Callable[..., Path]) -> None:
    assert not is_plugin_installed(MODULE)
    package("raise SystemExit")
    assert is_plugin_installed(MODULE)
    assert MODULE not in sys.modules


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise OSError('libsomething.so.2: cannot open shared object file')", "libsomething.so.2: cannot open"),
        ("import nothing_of_that_name", "No module named"),
        ("", "has no attribute 'get_library_path'"),
        ("def get_library_path():\n    raise FileNotFoundError('no\\nlibrary')\n", "no library"),
    ],
)
def test_a_package_that_is_broken(code: str, said: str, package: Callable[..., Path]) -> None:
    package(code or "pass")
    assert said in refusal()


def test_a_library_that_is_none(package: Callable[..., Path]) -> None:
    path = package(library=b"no ELF, no DLL" * 100)
    assert str(path) in refusal()
    # It was not taken for loaded: the second one to ask is told the same.
    assert str(path) in refusal()


def test_a_library_that_is_cut_short_is_not_loaded(
    package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading the first half of the OpenVINO plugin ends the process with SIGBUS."""
    path = package(library=b"half", recorded=8)
    ort = SimpleNamespace(get_ep_devices=list, register_execution_provider_library=lambda *_: pytest.fail("loaded"))
    monkeypatch.setattr(plugins, "onnxruntime", lambda: ort)
    assert f"{path} is missing or cut short" in refusal()


WHOLE = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(b"whole").digest()).decode().rstrip("=")


def test_a_library_of_the_right_size_that_is_damaged(package: Callable[..., Path]) -> None:
    path = package(library=bytes(5), recorded=5, digest=WHOLE)
    for _ in range(2):
        assert refusal().startswith(f"the plugin {MODULE} cannot be loaded: {path} is damaged; pip")


def test_the_reason_of_the_system_is_not_cut_off_by_long_paths(
    package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = package(library=b"whole", recorded=5, digest=WHOLE)

    def register(name: str, found: str) -> None:
        raise RuntimeError(f"Error loading {found}: {found}: {'x' * 100} the reason")

    ort = SimpleNamespace(get_ep_devices=list, register_execution_provider_library=register)
    monkeypatch.setattr(plugins, "onnxruntime", lambda: ort)
    assert f": {path}: Error loading plugin.so: plugin.so: xxx" in refusal()
    assert "the reason; pip" in refusal()


@pytest.mark.parametrize("digest", [WHOLE, "sha256=x"])
def test_that_no_device_is_found_may_be_a_damaged_library(
    package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    """With a damaged library for its devices OpenVINO's plugin loads, and finds none."""
    ort = SimpleNamespace(get_ep_devices=list, register_execution_provider_library=lambda *_: None)
    monkeypatch.setattr(plugins, "onnxruntime", lambda: ort)
    monkeypatch.setattr(plugins, "_loaded", {})
    path = package(library=b"whole", recorded=5, digest=digest)
    if digest == WHOLE:
        assert plugin_devices(MODULE, "SomeExecutionProvider") == []
    else:
        assert f"{path} is damaged; pip" in refusal()


def test_an_old_onnx_runtime_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "onnxruntime", lambda: SimpleNamespace(__version__="1.20.1"))
    with pytest.raises(ProviderError, match=r"needs ONNX Runtime 1\.23 or newer, 1\.20\.1 is installed"):
        plugin_devices(MODULE, "SomeExecutionProvider")


def test_a_library_is_loaded_once_and_in_one_process(
    package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, loaded = SimpleNamespace(ep_name="SomeExecutionProvider"), list[str]()
    ort = SimpleNamespace(
        get_ep_devices=lambda: [SimpleNamespace(ep_name="CPUExecutionProvider"), *([device] if loaded else [])],
        register_execution_provider_library=lambda name, path: loaded.append(path),
    )
    monkeypatch.setattr(plugins, "onnxruntime", lambda: ort)
    monkeypatch.setattr(plugins, "_loaded", {})
    path = package(library=b"whole", recorded=5)
    assert [plugin_devices(MODULE, "SomeExecutionProvider") for _ in range(3)] == [[device]] * 3
    assert loaded == [str(path)]
    # Its threads are not in a child: OpenVINO hangs there.
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ProviderError, match="was loaded before this process was forked, and would hang here"):
        plugin_devices(MODULE, "SomeExecutionProvider")


def test_a_library_that_finds_no_device_is_not_loaded_again(
    package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[str]()
    ort = SimpleNamespace(
        get_ep_devices=list, register_execution_provider_library=lambda name, path: loaded.append(path)
    )
    monkeypatch.setattr(plugins, "onnxruntime", lambda: ort)
    monkeypatch.setattr(plugins, "_loaded", {})
    package()
    assert [plugin_devices(MODULE, "SomeExecutionProvider") for _ in range(2)] == [[], []]
    assert len(loaded) == 1
