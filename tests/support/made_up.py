"""Reports of latency and scaling that nobody measured."""

import copy
from typing import Any

from benchmarks.schema import Report

# subject -> (title, ms a pair of 256x256 on alex, relative error, exact)
_SUBJECTS: dict[str, tuple[str, float, float | None, bool]] = {
    "ours": ("this project, CPU provider", 13.0, 2e-8, True),
    "openvino": ("this project, OpenVINO, float32", 12.1, 1.5e-8, True),
    "fast-math": ("this project, OpenVINO, fast-math", 4.1, 3.1e-3, False),
    "int8": ("this project, CPU provider, INT8", 6.3, 1.2e-2, False),
    "native": ("this project, native", 12.7, 2.1e-8, True),
    "eager": ("lpips 0.1.4, eager", 19.0, 0.0, True),
    "compile": ("lpips 0.1.4, torch.compile", 17.2, 1e-7, True),
    "compile-bf16": ("lpips 0.1.4, torch.compile, bfloat16 autocast", 9.4, 4.4e-3, False),
    "torchmetrics": ("torchmetrics", 19.9, 0.0, True),
    "piq": ("piq, its own weights", 300.0, 3e-2, True),
    "plain": ("plain torch.onnx.export, CPU provider", 14.4, 1.7e-8, True),
}
_SLOWER = {"alex": 1.0, "squeeze": 0.8, "vgg": 18.0}


def _cell(net: str, subject: str, width: int = 256, height: int = 256, batch: int = 1, threads: int = 2) -> Any:
    title, ms, error, exact = _SUBJECTS[subject]
    ms *= _SLOWER[net] * batch * width * height / 256**2 * 2 / threads
    wrong = exact and error is not None and error > 1e-4
    spread = {"p50": ms, "p90": ms * 1.1, "p99": ms * 1.4, "q1": ms * 0.96, "q3": ms * 1.05, "fastest": ms * 0.94}
    return {
        "net": net,
        "width": width,
        "height": height,
        "batch": batch,
        "threads": threads,
        "subject": subject,
        "title": title,
        "device": "cpu",
        "exact": exact,
        "state": "measured",
        "why": "",
        "predicted": {"seconds": ms / 10, "bytes": 2e8},
        "calls": 80,
        "uncounted": 23,
        "pairs": batch,
        "others": 0.01,
        "steady": True,
        "ms": spread,
        "device_ms": None,
        "transfer_ms": None,
        "pairs_per_second": 1000 * batch / ms,
        "peak_bytes": 210_000_000,
        "first_seconds": 0.42,
        "installed_bytes": 212_000_000,
        "share": 0.37,
        "limit": "float32",
        "distance": 0.186404,
        "error": error,
        "wrong": wrong,
    }


def without_figures(cell: Any, state: str, why: str) -> Any:
    """The cell as one that was not measured."""
    kept = ("net", "width", "height", "batch", "threads", "subject", "title", "device", "exact", "predicted")
    return {**{key: cell[key] for key in kept}, "state": state, "why": why}


def _report(command: str, cells: list[Any], **more: Any) -> Report:
    report: Any = {
        "command": command,
        "arguments": ["artifacts/a model.onnx", "--rounds", "20"],
        "date": "2026-11-26",
        "project": {"version": "0.1.0", "commit": "0123456789ab"},
        "models": {"lpips_alex_fp32.onnx": "0123456789abcdef" * 4},
        "machine": {
            "cpu": "Nobody(R) Counted(TM) Processor",
            "flags": ["avx2", "avx512f"],
            "cores": 2,
            "memory_bytes": 25_276_510_208,
            "gpus": [],
            "system": "Linux 6.18, x86_64",
            "python": "3.11.7",
            "versions": {"numpy": "2.4.6", "onnxruntime": "1.32.0", "torch": "2.13.0"},
        },
        "limits": {"float32": 361.0, "bfloat16": None},
        "notes": ["unsteady: the same call took 1.3 times as long in some rounds as in others"],
        "cells": cells,
        **more,
    }
    return copy.deepcopy(report)


def latency() -> Report:
    """Three nets, a pair of 256x256, eight of alex; torchmetrics is absent, compile not run on vgg, piq there wrong."""
    cells = []
    for net in _SLOWER:
        for subject in _SUBJECTS:
            if subject == "piq" and net != "vgg":
                continue
            cell = _cell(net, subject)
            if subject == "torchmetrics":
                cell = without_figures(cell | {"predicted": None}, "absent", "torchmetrics is not installed")
            if (net, subject) == ("vgg", "compile"):
                cell = without_figures(cell, "not run", "over the budget")
            cells.append(cell)
    cells += [_cell("alex", subject, batch=8) for subject in ("ours", "eager")]
    return _report("latency", cells)


def scaling() -> Report:
    cells, fits = [], []
    varied: dict[str, tuple[str, list[int]]] = {
        "batch": ("batch", [1, 2, 4, 8, 16]),
        "pixels": ("pixels", [64, 128, 256, 512]),
        "threads": ("threads", [1, 2, 4]),
        "images, all pairs": ("images", [4, 8, 16]),
    }
    for net in _SLOWER:
        for against, (kind, values) in varied.items():
            for subject in ("ours", "eager", "plain", "openvino"):
                for value in values:
                    options: Any = {
                        "batch": {"batch": value},
                        "pixels": {"width": value, "height": value},
                        "threads": {"threads": value},
                        "images": {"batch": 1},
                    }[kind]
                    at = value**2 if kind == "pixels" else value
                    cell = _cell(net, subject, **options) | {"against": against, "at": at}
                    if kind == "images":
                        cell["ms"] = {key: ms * value * (value - 1) / 2 for key, ms in cell["ms"].items()}
                    cells.append(cell)
                first = cells[-1]
                exponent = {"threads": -1.0, "images": 2.08}.get(kind, 1.0)
                fits.append(
                    {
                        "net": net,
                        "subject": subject,
                        "against": against,
                        "exponent": exponent,
                        "constant_ms": 0.0,
                        "per_unit_ms": first["ms"]["p50"] / first["at"] ** exponent,
                        "residual": 0.021,
                        "points": len(values),
                    }
                )
    cells[-1] = without_figures(cells[-1], "not run", "over the budget") | {"against": "images, all pairs", "at": 16}
    return _report("scaling", cells, fits=fits)
