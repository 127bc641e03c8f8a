"""The machine that a report was made on: what a reader needs to know whether its figures are theirs."""

import ctypes
import hashlib
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

from lpips_runtime._version import __version__
from lpips_runtime.cpu import control_groups, cpu_name
from lpips_runtime.nvidia import nvidia_gpus
from lpips_runtime.workers import cores

__all__ = ["Gpu", "Machine", "Project", "allowed_memory", "described", "project"]


class Gpu(TypedDict):
    """name: as the driver gives it. driver: its version, None where it does not say."""

    name: str
    driver: str | None


class Machine(TypedDict):
    """cpu: its name. flags: of FLAGS, those it has. cores: logical ones that this process may use. memory_bytes: of the
    machine, or what its control groups leave of it; None where the system does not say. versions: of the installed
    libraries that matter, by the names of their distributions."""

    cpu: str
    flags: list[str]
    cores: int
    memory_bytes: int | None
    gpus: list[Gpu]
    system: str
    python: str
    versions: dict[str, str]


class Project(TypedDict):
    """version: of its distributions. commit: of the checkout, with "-dirty" and a hash of what was changed after it;
    None where there is none."""

    version: str
    commit: str | None


# What decides which kernels are taken, as Linux writes it: x86, then ARM.
FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimddp", "sve", "bf16", "i8mm", "sme"),
)
# The same on macOS (`sysctl hw.optional`), and Windows (winnt.h: PF_..._AVAILABLE), which has no names for the rest.
_MACOS = {
    "avx2_0": "avx2",
    "avx512f": "avx512f",
    "FEAT_DotProd": "asimddp",
    "FEAT_BF16": "bf16",
    "FEAT_I8MM": "i8mm",
    "FEAT_SME": "sme",
}
_WINDOWS = {40: "avx2", 41: "avx512f", 43: "asimddp"}

_LIBRARIES = re.compile(
    r"(lpips(-runtime)?|torch|torchvision|torchmetrics|piq|numpy|pillow|openvino|onnxruntime.*|tensorrt.*)$"
)
# Parts of a library that come in distributions of their own, with its version.
_PART = re.compile(r"-(libs|bindings)$")

# What is compared with the commit: what figures do not depend on may have been edited.
_SOURCES = ("*.py", "*.h", "*.hpp", "*.cpp")

_NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"


def described() -> Machine:
    """This machine. What the system does not say is left out; nothing raises."""
    driver = _driver()
    return {
        "cpu": cpu_name(),
        "flags": [flag for flag in FLAGS if flag in _flags()],
        "cores": cores(),
        "memory_bytes": _memory(),
        "gpus": [{"name": gpu.name, "driver": driver} for gpu in nvidia_gpus()],
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "versions": _versions(),
    }


def project() -> Project:
    """What measures and is measured."""
    commit = None
    with suppress(OSError, subprocess.SubprocessError):
        commit = _git("rev-parse", "--short=12", "HEAD").decode().strip()
        if edited := _git("diff", "HEAD", "--", *_SOURCES) + _git("ls-files", "-o", "--exclude-standard", *_SOURCES):
            commit += f"-dirty-{hashlib.sha256(edited).hexdigest()[:8]}"
    return {"version": __version__, "commit": commit}


def _git(*arguments: str) -> bytes:
    call = ["git", *arguments]
    root = Path(__file__).parents[1]
    return subprocess.run(call, cwd=root, capture_output=True, check=True).stdout


def _linux_flags() -> set[str]:
    return set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())


def _macos_flags() -> set[str]:
    said = subprocess.run(["sysctl", "hw.optional"], capture_output=True, text=True, check=True).stdout
    return {name for key, name in _MACOS.items() if re.search(rf"\.{key}: 1$", said, re.MULTILINE)}


def _windows_flags() -> set[str]:
    libraries: Any = ctypes
    present = libraries.windll.kernel32.IsProcessorFeaturePresent
    return {name for number, name in _WINDOWS.items() if present(number)}


_SYSTEMS: Mapping[str, Callable[[], set[str]]] = {
    "Linux": _linux_flags,
    "Darwin": _macos_flags,
    "Windows": _windows_flags,
}


def _flags() -> set[str]:
    with suppress(OSError, subprocess.SubprocessError, AttributeError):
        return _SYSTEMS.get(platform.system(), set)()
    return set()


def _memory() -> int | None:
    total = _physical_memory()
    allowed = allowed_memory()
    if total is None:
        return None if math.isinf(allowed) else int(allowed)
    return int(min(total, allowed))


def _physical_memory() -> int | None:
    if hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return None
    kilobytes = ctypes.c_ulonglong()
    libraries: Any = ctypes
    with suppress(OSError, AttributeError):
        if libraries.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes)):
            return kilobytes.value * 1024
    return None


def allowed_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that the control groups of this process allow, infinite without a limit.

    See memory.max in the kernel's admin-guide/cgroup-v2, and memory.limit_in_bytes in cgroup-v1/memory.
    """
    return min(_limits(root, own), default=math.inf)


def _limits(root: Path, own: Path) -> Iterator[int]:
    for folder, first_version in control_groups("memory", root, own):
        with suppress(OSError, ValueError):  # no such folder here; "max"
            yield int((folder / ("memory.limit_in_bytes" if first_version else "memory.max")).read_text())


def _driver() -> str | None:
    """The version of NVIDIA's driver, None without one. CUDA itself does not tell it."""
    try:
        library = ctypes.CDLL(_NVML)
    except OSError:
        return None
    version = ctypes.create_string_buffer(81)
    found = library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(version, len(version)) == 0
    return version.value.decode(errors="replace") if found else None


def _versions() -> dict[str, str]:
    found = {}
    for distribution in metadata.distributions():
        # Of a damaged distribution the metadata may be missing altogether, or hold neither.
        with suppress(Exception):
            name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
            if _LIBRARIES.match(name) and not _PART.search(name):
                found.setdefault(name, distribution.version)
    return dict(sorted(found.items()))
