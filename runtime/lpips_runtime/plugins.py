"""Execution providers that come as a plugin: a Python package with a library that ONNX Runtime loads."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ProviderError
from .ort import onnxruntime, words_of

__all__ = ["check_process", "is_plugin_installed", "plugin_devices"]

_lock = threading.Lock()


def is_plugin_installed(module: str) -> bool:
    """Whether there is such a package; it is not imported."""
    return importlib.util.find_spec(module) is not None


def plugin_devices(module: str, ort_name: str) -> list[Any]:
    """What the plugin of this package can run on, as ONNX Runtime's OrtEpDevice; its library is loaded first.

    That holds for the process and happens once, whoever does it. Raises ProviderError if it cannot be loaded.
    """
    ort = onnxruntime()
    if not hasattr(ort, "register_execution_provider_library"):
        raise ProviderError(f"{module} needs ONNX Runtime 1.23 or newer, {ort.__version__} is installed; upgrade it")
    with _lock:
        found = _listed(ort, ort_name)
        if not found and module not in _loaded:
            folder = _load(ort, module)
            # A library that it could not load is a device that it does not find.
            if not (found := _listed(ort, ort_name)) and (damaged := _altered(module, folder)) is not None:
                raise _broken(module, f"{damaged} is damaged")
        process = _loaded.setdefault(module, os.getpid())
    check_process(process, module)
    return found


def check_process(loaded_in: int, module: str) -> None:
    """Raise ProviderError in a process that was forked since: the plugin's threads are not in it, and it would hang."""
    if loaded_in != os.getpid():
        raise ProviderError(
            f"{module} was loaded before this process was forked, and would hang here; start processes with "
            "multiprocessing's spawn or forkserver, or use it in them only"
        )


# Module -> the process in which ONNX Runtime took its library. A second time it refuses, if no device was found too.
_loaded: dict[str, int] = {}


def _listed(ort: Any, ort_name: str) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == ort_name]


def _load(ort: Any, module: str) -> Path:
    """-> the folder of its libraries."""
    try:
        path = Path(importlib.import_module(module).get_library_path())
    except Exception as error:  # whatever a foreign package may raise
        raise _broken(module, words_of(error)) from error
    if (damaged := _cut_short(module, path.parent)) is not None:
        raise _broken(module, f"{damaged} is missing or cut short")
    try:
        ort.register_execution_provider_library(module, str(path))
    except Exception as error:
        if (damaged := _altered(module, path.parent)) is not None:
            raise _broken(module, f"{damaged} is damaged") from error
        # The system names the file twice before it comes to the reason, which would be cut off.
        words = words_of(RuntimeError(str(error).replace(str(path), path.name)))
        raise _broken(module, f"{path}: {words}") from error
    return path.parent


def _broken(module: str, why: str) -> ProviderError:
    return ProviderError(
        f"the plugin {module} cannot be loaded: {why}; pip install --force-reinstall --no-deps {_distribution(module)}"
    )


def _distribution(module: str) -> str:
    return module.replace("_", "-")


def _cut_short(module: str, folder: Path) -> Path | None:
    """A file of the package that is not as large as it was installed: loading half a library ends the process."""
    for path, file in _installed(module, folder):
        if file.size is not None and not (path.is_file() and path.stat().st_size == file.size):
            return path
    return None


def _altered(module: str, folder: Path) -> Path | None:
    """A file of the package that is not as it was installed. All are read, so only where something is wrong."""
    for path, file in _installed(module, folder):
        if file.hash is None or file.hash.mode != "sha256":
            continue
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
        except OSError:
            return path
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            return path
    return None


def _installed(module: str, folder: Path) -> Iterator[tuple[Path, importlib.metadata.PackagePath]]:
    """The files of the package in this folder, as it was installed."""
    try:
        files = importlib.metadata.files(_distribution(module)) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        path = Path(str(file.locate()))
        if path.parent == folder:
            yield path, file
