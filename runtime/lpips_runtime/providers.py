"""Which execution provider runs a graph, and with which options: all that is known of providers, in one table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ProviderError, UsageError
from .plan import FLAVOURS

__all__ = ["MAX_THREADS", "PROVIDERS", "Provider", "choose", "choose_gpu", "exact_int8", "onnxruntime", "parse"]


# ONNX Runtime's threads spin: with thousands of them a session never gets to work.
MAX_THREADS = 1024


@dataclass(frozen=True)
class Provider:
    """One row: our name, ONNX Runtime's name, its options for a device number, and the extra that installs it."""

    name: str
    ort_name: str
    options: Callable[[int], Mapping[str, str]]
    extra: str


# In the order in which `auto` prefers them. A float32 graph stays float32 on each: TF32 is off, where it exists.
PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider(
            name="cuda",
            ort_name="CUDAExecutionProvider",
            options=lambda device: {"device_id": str(device), "use_tf32": "0"},
            extra="gpu",
        ),
        Provider(name="cpu", ort_name="CPUExecutionProvider", options=lambda device: {}, extra="cpu"),
    )
}


@functools.cache
def exact_int8() -> tuple[str, str]:
    """Session option, and its value here, with which INT8 does not saturate on x86 CPUs without VNNI.

    Those with VNNI do without it, and would take twice as long.
    """
    try:
        exact = "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux: rather slow than wrong
        exact = True
    return "session.x64quantprecision", "1" if exact else "0"


@functools.cache
def onnxruntime() -> Any:
    """The installed ONNX Runtime. Raises ProviderError, naming the extra to install, if there is none."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ProviderError(
            "no ONNX Runtime is installed; install exactly one of the extras: "
            f"pip install 'lpips-runtime[cpu]' or 'lpips-runtime[gpu]' ({error})"
        ) from error
    # What goes wrong reaches us as an exception; a second copy on stderr would only hide our own message.
    ort.set_default_logger_severity(4)
    return ort


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


def choose(name: str) -> tuple[Provider, int]:
    """The execution provider and device number that `name` asks for: `auto`, `cpu`, `cuda` or `cuda:1`.

    Raises UsageError for an unknown name or device, ProviderError for a provider that is not installed.
    """
    label, device = parse(name)
    if label in FLAVOURS:
        raise UsageError(
            f"provider {name!r} runs .engine files; for an .onnx file choose from auto, {', '.join(sorted(PROVIDERS))}"
        )
    available = onnxruntime().get_available_providers()
    if label == "auto":
        return next(row for row in PROVIDERS.values() if row.ort_name in available), device
    provider = PROVIDERS[label]
    if provider.ort_name not in available:
        raise ProviderError(
            f"provider {label!r} is not in the installed ONNX Runtime {onnxruntime().__version__}; "
            f"uninstall it and pip install 'lpips-runtime[{provider.extra}]'"
        )
    return provider, device


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
