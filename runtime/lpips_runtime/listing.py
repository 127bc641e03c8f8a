"""What can compute here: every provider, whether it is installed, its devices, and whether they work."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from typing import Any

from .engine import LIBRARIES
from .errors import ProviderError
from .gpu import find_gpu
from .nvidia import nvidia_gpus
from .opening import probe
from .providers import PROVIDERS, Provider, check_float32, find_device, for_auto, is_installed

__all__ = ["describe", "survey"]


def survey(*, fast_math: bool = False) -> list[dict[str, Any]]:
    """One row for each provider, the one that `auto` prefers first.

    provider, files (".onnx" or ".engine"), installed, install (how to), devices (number, name, faster: the types that
    fast-math brings, or empty), works, why (not; None if it works), auto (whether `auto` takes it for an .onnx file,
    with fast-math or without). A provider works if it runs a small graph, for engines if library and GPU are there.
    """
    rows = [_row(provider, fast_math) for provider in PROVIDERS.values()]
    for provider in for_auto(fast_math):
        row = next(row for row in rows if row["provider"] == provider.name)
        if row["works"] and (provider.auto == "always" or row["devices"][0]["faster"]):
            row["auto"] = True
            break
    return [*rows, *_engines()]


def describe(form: str, *, fast_math: bool = False) -> str:
    """The survey as a table to read, or as JSON."""
    rows = survey(fast_math=fast_math)
    if form == "json":
        return json.dumps({"fast_math": fast_math, "providers": rows}, indent=2)
    lines = [("provider", "runs", "device", "")]
    for row in rows:
        devices = row["devices"] or [None]
        for device in devices:
            name, number = row["provider"], "" if device is None else f"{device['number']}: {device['name']}"
            lines.append((name, row["files"], number, _state(row, device)))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    padded = (
        "  ".join((*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3])) for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def _state(row: dict[str, Any], device: dict[str, Any] | None) -> str:
    if not row["installed"]:
        return f"not installed: {row['install']}"
    if device is None or not row["works"]:
        return row["why"]
    faster = f", fast-math: {device['faster']}" if device["faster"] else ""
    return f"works{faster}" + (" <- auto" if row["auto"] and device["number"] == 0 else "")


def _row(provider: Provider, fast_math: bool) -> dict[str, Any]:
    row = _blank(provider.name, ".onnx", _is_there(provider), provider.install)
    if row["installed"]:
        try:
            first = find_device(provider, 0)
            devices = provider.devices()
            row["devices"] = [{"number": one.number, "name": one.name, "faster": one.faster} for one in devices]
            if not (fast_math and first.faster):
                check_float32(provider)
            for device in devices:
                probe(provider, device)
            row["works"] = True
        except ProviderError as error:
            row["why"] = str(error).removeprefix(f"provider {provider.name!r} ")
    return row


def _is_there(provider: Provider) -> bool:
    try:
        return is_installed(provider)
    except ProviderError:  # no ONNX Runtime at all
        return False


def _engines() -> Iterator[dict[str, Any]]:
    for name, library in LIBRARIES.items():
        installed = importlib.util.find_spec(library.module) is not None
        row = _blank(name, ".engine", installed, f"pip install 'lpips-runtime[{library.extra}]'")
        if installed:
            row["devices"] = [{"number": n, "name": gpu.name, "faster": ""} for n, gpu in enumerate(nvidia_gpus())]
            try:
                find_gpu(0)
                row["works"] = True
            except ProviderError as error:
                row["why"] = str(error)
        yield row


def _blank(name: str, files: str, installed: bool, install: str) -> dict[str, Any]:
    return {
        "provider": name,
        "files": files,
        "installed": installed,
        "install": install,
        "devices": [],
        "works": False,
        "why": None if installed else "not installed",
        "auto": False,
    }
