"""A graph, opened by the execution provider that was asked for or by the best that works: in silence by no other."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .cpu import default_threads, exact_int8
from .errors import ForeignModelError, LpipsError, ProviderError
from .log import log
from .ort import onnxruntime, words_of
from .providers import PROVIDERS, Device, Provider, check_float32, find_device, for_auto, is_installed, parse_for_onnx

__all__ = ["Opened", "open_error", "open_graph", "probe", "tell", "waiting"]

# Names of ONNX Runtime's exceptions that speak of the file, whatever the provider.
_OF_THE_FILE = frozenset(("InvalidProtobuf", "InvalidGraph", "NoModel", "InvalidArgument", "UnicodeDecodeError"))


@dataclass(frozen=True)
class Opened:
    """session: ONNX Runtime's InferenceSession. faster: the types that a float32 graph is computed in instead, empty
    for float32 itself. skipped: why `auto` passed over providers that are installed."""

    session: Any
    provider: Provider
    device: Device
    faster: str = ""
    skipped: list[str] = field(default_factory=list)

    @property
    def about(self) -> dict[str, Any]:
        """What computes, for whoever reads the result."""
        about: dict[str, Any] = {"onnxruntime": str(onnxruntime().__version__)}
        if self.provider.name != "cpu":
            about["device_name"] = self.device.name
        about["fast_math"] = bool(self.faster)
        if self.faster:
            about["types"] = self.faster
        if self.skipped:
            about["skipped"] = self.skipped
        return about


def open_graph(data: bytes, path: Path, *, provider: str, threads: int | None, fast_math: bool) -> Opened:
    """Open a graph's bytes; `path` only names them in errors.

    Raises UsageError for a provider or device that does not exist, ProviderError for one that does not work,
    ForeignModelError if it is the file that cannot be opened.
    """
    label, number = parse_for_onnx(provider)
    if label != "auto":
        return _open(data, path, PROVIDERS[label], number, threads, fast_math)
    skipped: list[str] = []
    for row in for_auto(fast_math):
        if not is_installed(row):
            continue
        try:
            if row.auto == "fast-math" and not find_device(row, number).faster:
                skipped.append(f"provider {row.name!r} has no faster types here")
            else:
                return _open(data, path, row, number, threads, fast_math, skipped)
        except ProviderError as error:
            skipped.append(str(error).removeprefix(f"{path}: "))
    raise ProviderError(f"{path}: no provider works; {'; '.join(skipped)}")


def _open(
    data: bytes,
    path: Path,
    provider: Provider,
    number: int,
    threads: int | None,
    fast_math: bool,
    skipped: list[str] | None = None,
) -> Opened:
    device = find_device(provider, number)
    faster = device.faster if fast_math else ""
    if not faster:
        check_float32(provider)
    try:
        session = _create(data, provider, device, threads or default_threads(), bool(faster))
    except Exception as error:
        raise open_error(error, path, provider.name) from error
    # A provider whose libraries are missing is left out in silence all the same.
    if (actual := session.get_providers()[0]) != provider.ort_name:
        raise ProviderError(
            f"provider {provider.name!r} did not start, ONNX Runtime fell back to {actual}; {_advice(provider)}, or "
            "ask for --provider cpu"
        )
    return Opened(session, provider, device, faster, skipped or [])


def waiting(version: str) -> dict[str, str]:
    """Session options of ONNX Runtime that say how threads wait for work.

    By spinning for as long as it pays: one that sleeps takes so long to wake up that a pair took up to 1.4 times as
    long, one that spins until the next pair takes the cores from other processes. 200 microseconds bridge the gaps
    within a run (docs/providers.md has the figures). Whether ONNX Runtime before 1.32 knows the limit nobody has tried,
    and without it threads would spin on; so they sleep there.
    """
    major, minor = (int(part) for part in re.findall(r"\d+", version)[:2])
    if (major, minor) < (1, 32):
        return {"session.intra_op.allow_spinning": "0"}
    return {"session.intra_op.allow_spinning": "1", "session.intra_op.spin_duration_us": "200"}


def _create(data: bytes, provider: Provider, device: Device, threads: int | None, fast: bool) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # INT8: on x86 without VNNI the fast kernels add two products in 16 bits, which saturates: VGG16 came out up to
    # 24 % too small, in silence.
    options.add_session_config_entry(*exact_int8())
    for key, value in waiting(ort.__version__).items():
        options.add_session_config_entry(key, value)
    # Memory patterns gain no time here, and where the first run is a large one the second takes twice its memory.
    options.enable_mem_pattern = False
    own = dict(provider.options(device, threads, fast))
    if provider.plugin:
        options.intra_op_num_threads = 1
        # Nodes that a plugin does not take would run on the CPU provider, in silence.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_provider_for_devices([device.handle], own)
        providers = None
    else:
        options.intra_op_num_threads = threads or 0
        providers = [(provider.ort_name, own)]
    # Its fallback prints to stdout, and would go on with the CPU provider when another one fails in a run.
    return ort.InferenceSession(data, sess_options=options, providers=providers, enable_fallback=0)


def tell(opened: Opened, fast_math: bool) -> None:
    """Say in the log what was skipped, and what computes if it is not plain float32 on the CPU."""
    name = opened.provider.name
    for reason in opened.skipped:
        log.warning("%s; going on with %s", reason, name)
    if opened.faster:
        log.info("computed by %s (%s) in %s, by fast-math", name, opened.device.name, opened.faster)
    elif name != "cpu":
        log.info("computed by %s (%s)", name, opened.device.name)
    if fast_math and not opened.faster:
        log.warning("fast-math changes nothing: provider %r has no faster types here (see --list-providers)", name)


def _advice(provider: Provider) -> str:
    lacks = provider.lacks()
    return f"{lacks}; {provider.install}" if lacks else "check its libraries and driver"


def probe(provider: Provider, device: Device) -> None:
    """Run a graph of one node. Raises ProviderError if that does not work."""
    try:
        session = _create(_RELU, provider, device, 1, False)
        if session.get_providers()[0] != provider.ort_name:
            raise RuntimeError(f"ONNX Runtime passes it over; {_advice(provider)}")
        (found,) = session.run(None, {"x": np.array([-1], np.float32)})
        if found[0] != 0:
            raise RuntimeError(f"it says that Relu(-1) is {found[0]}")
    except Exception as error:
        raise ProviderError(f"provider {provider.name!r} does not work: {words_of(error)}") from error


# y = Relu(x), float32 [1], opset 18, as ONNX writes it.
_RELU = bytes.fromhex(
    "08083a330a0c0a0178120179220452656c751201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a001012"
)


def open_error(error: Exception, path: Path, provider: str) -> LpipsError:
    """What ONNX Runtime raised on opening, as ours: it is the file's fault, or the provider's."""
    # With the CPU provider, which opens every intact graph, it is the file; with others it may be their set-up.
    if provider == "cpu" or type(error).__name__ in _OF_THE_FILE:
        return ForeignModelError(f"{path}: not an ONNX model, or a damaged one ({words_of(error)})")
    return ProviderError(f"{path}: provider {provider!r} cannot open it: {words_of(error)}")
