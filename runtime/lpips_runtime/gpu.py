"""One NVIDIA GPU through `cuda-python`: what it is, a stream, and memory that is used again and again.

Every code that CUDA returns is looked at, and is a ProviderError in CUDA's own words unless it is success.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ProviderError

__all__ = ["OUT_OF_MEMORY", "Gpu", "Memory", "find_gpu"]

OUT_OF_MEMORY = "score fewer or smaller images at once, or end what else uses the GPU's memory"

# CUDA's name of an error -> what to do about it.
_ADVICE = {
    "cudaErrorMemoryAllocation": OUT_OF_MEMORY,
    "cudaErrorInsufficientDriver": "install or update NVIDIA's driver, or score with the .onnx file on the CPU",
    "cudaErrorNoDevice": "an engine needs an NVIDIA GPU; score with the .onnx file on the CPU",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine: its number, its name, and its compute capability such as "8.9"."""

    number: int
    name: str
    compute_capability: str


def find_gpu(number: int) -> Gpu:
    """The GPU of this number, counted from 0 as CUDA does.

    Raises ProviderError if cuda-python or the driver is missing, or there is no such GPU.
    """
    cuda = _cuda()
    count = _call(cuda, "cudaGetDeviceCount")
    if number >= count:
        raise ProviderError(f"GPU {number} does not exist, CUDA counts {count}; the first one is 0")
    found = _call(cuda, "cudaGetDeviceProperties", number)
    return Gpu(number, found.name.split(b"\0")[0].decode(errors="replace"), f"{found.major}.{found.minor}")


class Memory:
    """A stream on a GPU and named buffers on both sides of it, each as large as the largest tensor it has held.

    The host's side is page-locked, so that copies run while the GPU works. All of it goes back when the object does,
    or at the interpreter's exit. Not for several threads at once.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._cuda = _cuda()
        self._gpu = gpu
        # Each on its own, address by name: a buffer of which only one side could be had must be given back too.
        self._device: dict[str, int] = {}
        self._host: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        with self.current():
            # One that does not wait for the stream 0 of whoever else uses CUDA in this process.
            self._stream = _call(self._cuda, "cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        weakref.finalize(self, _free, self._cuda, gpu.number, self._stream, self._device, self._host)

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return int(self._stream)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU the calling thread's, and what was so before again afterwards: the choice is per thread."""
        before = _call(self._cuda, "cudaGetDevice")
        _call(self._cuda, "cudaSetDevice", self._gpu.number)
        try:
            yield
        finally:
            # Only if need be: from CUDA 12 on it also opens the GPU that it names.
            if before != self._gpu.number:
                # Not looked at: an error here is one of the work's, which has said so, and would hide it.
                self._cuda.cudaSetDevice(before)

    def reserve(self, name: str, shape: tuple[int, ...], dtype: np.dtype | str) -> int:
        """The GPU's address of a buffer that holds such a tensor; what an earlier one held is lost."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > self._sizes.get(name, 0):
            # The smaller one first, since both may not fit. Whatever fails in between, the tables tell the truth.
            self._sizes[name] = 0
            for addresses, free in ((self._device, "cudaFree"), (self._host, "cudaFreeHost")):
                if name in addresses:
                    _call(self._cuda, free, addresses.pop(name))
            self._device[name] = _call(self._cuda, "cudaMalloc", size)
            self._host[name] = _call(self._cuda, "cudaMallocHost", size)
            self._sizes[name] = size
        return self._device[name]

    def upload(self, name: str, array: np.ndarray) -> int:
        """Copy an array to the GPU, as the stream's next step, and return its address there."""
        address = self.reserve(name, array.shape, array.dtype)
        self._view(name, array.shape, array.dtype)[...] = array
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _call(self._cuda, "cudaMemcpyAsync", address, self._host[name], array.nbytes, kind, self._stream)
        return address

    def download(self, name: str, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        """Copy a buffer from the GPU, as the stream's next step. The array holds it after `wait`, and until the buffer
        is used again: the caller copies it."""
        array = self._view(name, shape, dtype)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _call(self._cuda, "cudaMemcpyAsync", self._host[name], self._device[name], array.nbytes, kind, self._stream)
        return array

    def wait(self) -> None:
        """Wait until the stream has done all its steps; their errors show here."""
        _call(self._cuda, "cudaStreamSynchronize", self._stream)

    def _view(self, name: str, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        raw = (ctypes.c_byte * self._sizes[name]).from_address(self._host[name])
        return np.frombuffer(memoryview(raw), dtype, math.prod(shape)).reshape(shape)


def _free(cuda: Any, number: int, stream: Any, device: dict[str, int], host: dict[str, int]) -> None:
    """Give everything back. Codes are not looked at: at the interpreter's exit CUDA may have gone first."""
    code, before = cuda.cudaGetDevice()
    cuda.cudaSetDevice(number)
    for address in device.values():
        cuda.cudaFree(address)
    for address in host.values():
        cuda.cudaFreeHost(address)
    cuda.cudaStreamDestroy(stream)
    if not int(code) and before != number:
        cuda.cudaSetDevice(before)


def _cuda() -> Any:
    try:
        # The same name in cuda-python 12 and 13; old ones of 12 have it as cuda.cudart.
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        raise ProviderError(
            "cuda-python is not installed, or is older than 12.8; pip install 'lpips-runtime[tensorrt]' or "
            f"'lpips-runtime[tensorrt-rtx]' ({error})"
        ) from error


def _call(cuda: Any, name: str, *arguments: Any) -> Any:
    """What a function of the CUDA runtime returns beside its code; None if that is all."""
    try:
        code, *values = getattr(cuda, name)(*arguments)
    except RuntimeError as error:  # the bindings' own: no libcuda that has such a function
        raise ProviderError(f"CUDA's {name} failed: {error}; check NVIDIA's driver") from error
    if not int(code):
        return values[0] if values else None
    # A failure that can be survived, such as want of memory, is else what TensorRT finds when it next asks.
    cuda.cudaGetLastError()
    _, words = cuda.cudaGetErrorString(code)
    advice = _ADVICE.get(code.name, "")
    raise ProviderError(f"CUDA's {name} failed: {words.decode(errors='replace')}" + f"; {advice}" * bool(advice))
