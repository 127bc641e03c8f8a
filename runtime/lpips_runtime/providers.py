"""Which execution provider runs a graph, and with which options: all that is known of providers, in one table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .cpu import bfloat16_pays, cpu_name
from .errors import ProviderError, UsageError
from .nvidia import load_cuda, nvidia_gpus
from .ort import onnxruntime
from .plan import FLAVOURS
from .plugins import is_plugin_installed, plugin_devices

__all__ = [
    "MAX_THREADS",
    "PROVIDERS",
    "Device",
    "Provider",
    "check_float32",
    "choose_gpu",
    "find_device",
    "for_auto",
    "is_installed",
    "parse",
    "parse_for_onnx",
]


# ONNX Runtime's threads spin: with thousands of them a session never gets to work.
MAX_THREADS = 1024


@dataclass(frozen=True)
class Device:
    """What a provider runs on: its number, its maker's name for it, the types that fast-math lets it compute a float32
    graph in (empty: it has no faster ones), and for a plugin ONNX Runtime's handle of it."""

    number: int
    name: str
    faster: str = ""
    handle: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Provider:
    """One row.

    name, ort_name: ours and ONNX Runtime's. install: what to do to get it. devices: what it can run on here.
    no_device: what is said where that is nothing. options: its own, for a device, a number of threads and whether
    float32 may become something faster. auto: when `auto` takes it, "fast-math" being where that is asked for and the
    device has faster types. plugin: the package that brings it, empty if ONNX Runtime does. exact: the environment
    variable, and its value, without which it cannot keep float32. lacks: which libraries it misses, asked once it did
    not start.
    """

    name: str
    ort_name: str
    install: str
    devices: Callable[[], list[Device]]
    options: Callable[[Device, int | None, bool], Mapping[str, str]]
    auto: Literal["always", "fast-math", "never"]
    no_device: str = ""
    plugin: str = ""
    exact: tuple[str, str] | None = None
    lacks: Callable[[], str] = str


def _cpu_devices() -> list[Device]:
    # Faster types: none on x86. ONNX Runtime has bfloat16 kernels for float32 graphs on ARM, which nobody has tried.
    return [Device(0, cpu_name())]


def _cuda_devices() -> list[Device]:
    if gpus := nvidia_gpus():
        load_cuda(onnxruntime())
    # TF32 came with compute capability 8.0.
    return [Device(n, gpu.name, "TF32" if gpu.major >= 8 else "") for n, gpu in enumerate(gpus)]


def _cuda_options(device: Device, threads: int | None, fast: bool) -> dict[str, str]:
    # The default tries every algorithm for every new size of image: 60 ms on alex and 300 on squeeze for the first of a
    # size, instead of 9 and 65, and then no faster (benchmarks/results/cuda.md).
    search = {"cudnn_conv_algo_search": "HEURISTIC"}
    return {"device_id": str(device.number), "use_tf32": "1" if fast else "0", **search}


def _openvino_devices() -> list[Device]:
    found = []
    for handle in plugin_devices("onnxruntime_ep_openvino", "OpenVINOExecutionProvider"):
        about = handle.ep_metadata
        kind = about.get("ov_device", "").partition(".")[0]
        # An NPU has no float32. A GPU has no bfloat16, and in half the squares of squeeze overflow.
        if kind in ("CPU", "GPU"):
            fast = kind == "CPU" and "BF16" in about.get("OPTIMIZATION_CAPABILITIES", "").split() and bfloat16_pays()
            found.append((kind, about.get("FULL_DEVICE_NAME") or kind, "bfloat16" if fast else "", handle))
    # The CPU is number 0, whatever else there is.
    return [Device(n, *about) for n, (_, *about) in enumerate(sorted(found, key=lambda device: device[0]))]


def _openvino_options(device: Device, threads: int | None, fast: bool) -> dict[str, str]:
    # In `load_config` and under the device's kind: as an option of its own the precision is ignored with a warning, and
    # the default is bfloat16 wherever the CPU has it, half on GPUs.
    every = {"INFERENCE_PRECISION_HINT": "bf16" if fast else "f32"}
    cpu = every | ({} if threads is None else {"INFERENCE_NUM_THREADS": str(threads)})
    return {"load_config": json.dumps({"CPU": cpu, "GPU": every})}


def _rtx_devices() -> list[Device]:
    handles = plugin_devices("onnxruntime_ep_nv_tensorrt_rtx", "NvTensorRTRTXExecutionProvider")
    return [Device(n, h.device.metadata.get("Description") or "NVIDIA GPU", "TF32", h) for n, h in enumerate(handles)]


# In the order in which `auto` prefers them. A float32 graph stays float32 on each unless fast-math is asked for.
# OpenVINO in float32 is 1.0 to 1.1 times as fast as the CPU provider and takes 25 to 60 ms more to open, in bfloat16
# it is up to 2.5 times as fast where the CPU is made for it (docs/providers.md). Of TensorRT-RTX no number has been
# seen by us.
PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider(
            name="cuda",
            ort_name="CUDAExecutionProvider",
            install="uninstall onnxruntime and pip install 'lpips-runtime[gpu]'",
            devices=_cuda_devices,
            no_device="it needs an NVIDIA GPU and NVIDIA's driver",
            options=_cuda_options,
            auto="always",
            lacks=lambda: load_cuda(onnxruntime()),
        ),
        Provider(
            name="tensorrt-rtx",
            ort_name="NvTensorRTRTXExecutionProvider",
            install="pip install 'lpips-runtime[tensorrt-rtx-plugin]'",
            devices=_rtx_devices,
            no_device="it needs an NVIDIA RTX GPU (Ampere or newer) and a driver for CUDA 13",
            options=lambda *_: {},
            auto="never",
            plugin="onnxruntime_ep_nv_tensorrt_rtx",
            # It has no option for TF32 (as of 0.5.0); the library below it obeys this, for the whole process.
            exact=("NVIDIA_TF32_OVERRIDE", "0"),
        ),
        Provider(
            name="openvino",
            ort_name="OpenVINOExecutionProvider",
            install="pip install 'lpips-runtime[openvino]'",
            devices=_openvino_devices,
            no_device="its plugin takes Intel's CPUs and GPUs only",
            options=_openvino_options,
            auto="fast-math",
            plugin="onnxruntime_ep_openvino",
        ),
        Provider(
            name="cpu",
            ort_name="CPUExecutionProvider",
            install="pip install 'lpips-runtime[cpu]'",
            devices=_cpu_devices,
            options=lambda *_: {},
            auto="always",
        ),
    )
}


def parse(name: str) -> tuple[str, int]:
    """The label and device number in `auto`, `cpu`, `cuda` or `cuda:1`, or for a plan `tensorrt` or `tensorrt:1`.

    Raises UsageError for anything else.
    """
    label, colon, number = str(name).partition(":")
    if label not in ("auto", *PROVIDERS, *FLAVOURS):
        raise UsageError(
            f"provider {name!r} is unknown; choose from auto, {', '.join(sorted(PROVIDERS))}, "
            f"or for .engine files {', '.join(sorted(FLAVOURS))}"
        )
    if colon and not (number.isdecimal() and len(number) <= 3):
        raise UsageError(f"provider {name!r}: the device after the colon is a number, as in cuda:1")
    if colon and label == "auto":
        raise UsageError(f"provider {name!r}: a device belongs to a provider; name it, as in cuda:{number}")
    if label == "cpu" and int(number or 0):
        raise UsageError(f"provider {name!r}: the CPU has no device {number}")
    return label, int(number or 0)


def parse_for_onnx(name: str) -> tuple[str, int]:
    """The same for an .onnx file. Raises UsageError for what runs .engine files only, too."""
    label, number = parse(name)
    if label not in ("auto", *PROVIDERS):
        raise UsageError(
            f"provider {name!r} runs .engine files; for an .onnx file choose from auto, {', '.join(sorted(PROVIDERS))}"
        )
    return label, number


def is_installed(provider: Provider) -> bool:
    """Whether it is there, without loading it. Raises ProviderError if there is no ONNX Runtime at all."""
    if provider.plugin:
        return is_plugin_installed(provider.plugin)
    return provider.ort_name in onnxruntime().get_available_providers()


def find_device(provider: Provider, number: int) -> Device:
    """The device of this number.

    Raises ProviderError if the provider is not installed, broken or finds no device here, UsageError, which names
    those that are there, for a number that is none of them.
    """
    if not is_installed(provider):
        where = "installed" if provider.plugin else f"in the installed ONNX Runtime {onnxruntime().__version__}"
        raise ProviderError(f"provider {provider.name!r} is not {where}; {provider.install}")
    try:
        devices = provider.devices()
    except ProviderError as error:
        raise ProviderError(f"provider {provider.name!r} does not start: {error}") from error
    if not devices:
        raise ProviderError(f"provider {provider.name!r} finds no device here: {provider.no_device}")
    if number >= len(devices):
        names = ", ".join(f"{device.number} ({device.name})" for device in devices)
        raise UsageError(f"provider '{provider.name}:{number}': there is no device {number}, only {names}")
    return devices[number]


def for_auto(fast_math: bool) -> list[Provider]:
    """The providers that `auto` tries, the best first."""
    return [row for row in PROVIDERS.values() if row.auto == "always" or (fast_math and row.auto == "fast-math")]


def check_float32(provider: Provider) -> None:
    """Raise ProviderError if the provider would compute a float32 graph in something else."""
    if provider.exact and os.environ.get(provider.exact[0]) != provider.exact[1]:
        raise ProviderError(
            f"provider {provider.name!r} would compute in TF32; set {'='.join(provider.exact)} in the environment "
            "before the start, or allow it with --fast-math"
        )


def choose_gpu(name: str, flavour: str) -> int:
    """The GPU's number that `name` asks for, for a plan of this flavour: `auto`, or the flavour as in `tensorrt:1`.

    Raises UsageError for every other provider, since a plan runs with the library that built it and no other.
    """
    label, device = parse(name)
    if label not in ("auto", flavour):
        raise UsageError(
            f"provider {name!r}: a .engine file brings its own, here {flavour}; leave the provider out, or choose the "
            f"GPU with {flavour}:{device}"
        )
    return device
