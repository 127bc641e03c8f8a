"""The NVIDIA GPUs of this machine, asked of the driver itself since ONNX Runtime does not list them, and the CUDA
libraries that its provider needs."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import sys
from typing import Any, NamedTuple

__all__ = ["NvidiaGpu", "load_cuda", "nvidia_gpus"]

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR


class NvidiaGpu(NamedTuple):
    """Name, and the first number of the compute capability."""

    name: str
    major: int


def nvidia_gpus(driver: Any = None) -> list[NvidiaGpu]:
    """The GPUs in CUDA's order, CUDA_VISIBLE_DEVICES heeded; none where there is no driver, or it finds none.

    driver: the CUDA driver API, None for the installed one.
    """
    try:
        driver = driver or ctypes.CDLL(_DRIVER)
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_gpu(driver, number) for number in range(count.value)]


def _gpu(driver: Any, number: int) -> NvidiaGpu:
    device, major, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    return NvidiaGpu(name.value.decode(errors="replace"), major.value)


@functools.cache
def load_cuda(ort: Any) -> str:
    """Load the CUDA and cuDNN that came as Python packages, where the linker would not look; once in a process.

    ort: the module onnxruntime. Returns what it could not load, in its words: empty if nothing is missing, or if it is
    too old (before 1.21) to try.
    """
    if not hasattr(ort, "preload_dlls"):
        return ""
    # It prints its failures to stdout, where our numbers go.
    with contextlib.redirect_stdout(io.StringIO()) as words:
        ort.preload_dlls()
    return "; ".join(line for line in words.getvalue().splitlines() if line.startswith("Failed to load"))
