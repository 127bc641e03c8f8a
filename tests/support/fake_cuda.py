"""The CUDA runtime of `cuda-python`, as far as the runner uses it, on a machine that has none.

Addresses are real ones, and only those that were allocated are read or written; whatever goes to a stream is done when
somebody waits for it and not before.
"""

import ctypes
import enum
from collections.abc import Callable, Iterable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

GPU = "Fake H100"


# The names are CUDA's.
# ruff: noqa: N815
class CudaError(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorIllegalAddress = 700


_WORDS = {
    CudaError.cudaErrorMemoryAllocation: b"out of memory",
    CudaError.cudaErrorInsufficientDriver: b"CUDA driver version is insufficient for CUDA runtime version",
    CudaError.cudaErrorNoDevice: b"no CUDA-capable device is detected",
    CudaError.cudaErrorInvalidDevice: b"invalid device ordinal",
    CudaError.cudaErrorIllegalAddress: b"an illegal memory access was encountered",
}


class _Stream(int):
    """A handle, which the real one is too for whoever asks for its int()."""


class FakeCuda(ModuleType):
    """`cuda.bindings.runtime` with `gpus` GPUs of `memory` bytes each.

    fail: function -> the code that it returns. allocated: how often each function has given memory. live: address ->
    its memory. unseen: errors of which cudaGetLastError has not been asked.
    """

    cudaError_t = CudaError
    cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
    cudaStreamNonBlocking = 1

    def __init__(self, gpus: int = 2, memory: int = 2**40) -> None:
        super().__init__("cuda.bindings.runtime")
        self.gpus, self.memory = gpus, memory
        self.fail: dict[str, CudaError] = {}
        self.current = 0
        self.set_to: list[int] = []
        self.live: dict[int, Any] = {}
        self.host: set[int] = set()
        self.allocated = {"cudaMalloc": 0, "cudaMallocHost": 0, "cudaStreamCreateWithFlags": 0}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.unseen = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not (name.startswith("cuda") and callable(found) and not isinstance(found, type)):
            return found
        if name in ("cudaGetErrorString", "cudaGetLastError"):
            return found

        def call(*arguments: Any) -> tuple[Any, ...]:
            result: Any = (self.fail[name], None) if name in self.fail else found(*arguments)
            self.unseen += bool(result[0])
            return result

        return call

    def cudaGetErrorString(self, code: CudaError) -> tuple[CudaError, bytes]:
        return CudaError.cudaSuccess, _WORDS[code]

    def cudaGetLastError(self) -> tuple[CudaError]:
        self.unseen = 0
        return (CudaError.cudaSuccess,)

    def cudaGetDeviceCount(self) -> tuple[CudaError, int | None]:
        return (CudaError.cudaSuccess, self.gpus) if self.gpus else (CudaError.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, number: int) -> tuple[CudaError, Any]:
        return CudaError.cudaSuccess, SimpleNamespace(name=GPU.encode() + b"\0\0", major=9, minor=0)

    def cudaGetDevice(self) -> tuple[CudaError, int]:
        return CudaError.cudaSuccess, self.current

    def cudaSetDevice(self, number: int) -> tuple[CudaError]:
        if not 0 <= number < self.gpus:
            return (CudaError.cudaErrorInvalidDevice,)
        self.current = number
        self.set_to.append(number)
        return (CudaError.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[CudaError, _Stream]:
        assert flags == self.cudaStreamNonBlocking
        self.allocated["cudaStreamCreateWithFlags"] += 1
        handle = 1000 + self.allocated["cudaStreamCreateWithFlags"]
        self.streams[handle] = []
        return CudaError.cudaSuccess, _Stream(handle)

    def cudaStreamDestroy(self, stream: _Stream) -> tuple[CudaError]:
        assert self.streams.pop(stream) == [], "destroyed with work in it"
        return (CudaError.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: _Stream) -> tuple[CudaError]:
        work = self.streams[stream][:]
        self.streams[stream].clear()
        for step in work:
            step()
        return (CudaError.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[CudaError, int | None]:
        return self._allocate("cudaMalloc", size)

    def cudaMallocHost(self, size: int) -> tuple[CudaError, int | None]:
        return self._allocate("cudaMallocHost", size)

    def _allocate(self, name: str, size: int) -> tuple[CudaError, int | None]:
        used = sum(len(memory) for address, memory in self.live.items() if address not in self.host)
        if name == "cudaMalloc" and used + size > self.memory:
            return CudaError.cudaErrorMemoryAllocation, None
        memory = (ctypes.c_ubyte * size)(*b"\xff" * min(size, 64))
        address = ctypes.addressof(memory)
        self.live[address] = memory
        if name == "cudaMallocHost":
            self.host.add(address)
        self.allocated[name] += 1
        return CudaError.cudaSuccess, address

    def cudaFree(self, address: int) -> tuple[CudaError]:
        assert address not in self.host
        del self.live[address]
        return (CudaError.cudaSuccess,)

    def cudaFreeHost(self, address: int) -> tuple[CudaError]:
        self.host.remove(address)
        del self.live[address]
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, of: int, size: int, kind: int, stream: _Stream) -> tuple[CudaError]:
        host, device = (of, to) if kind == 1 else (to, of)
        assert host in self.host
        assert device not in self.host

        def copy() -> None:
            assert all(size <= len(self.live[address]) for address in (to, of)), "beyond the end of a buffer"
            ctypes.memmove(to, of, size)

        self.streams[stream].append(copy)
        return (CudaError.cudaSuccess,)

    def array(self, address: int, shape: Iterable[int], dtype: str) -> np.ndarray:
        """The tensor at an address of the GPU's."""
        assert address in self.live, "of memory that was freed"
        assert address not in self.host, "the GPU was given an address of the host"
        shape = tuple(shape)
        return np.frombuffer(self.live[address], dtype, int(np.prod(shape))).reshape(shape)
