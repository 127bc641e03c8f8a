"""What is timed: this project's scorers, and what a user would take instead.

A subject takes 8-bit images and gives distances: the conversion to float32 counts for all. Each is made, warmed up and
timed in a process of its own (`turns.py`), which imports what that subject needs and nothing else.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .job import AbsentError, Job, Score
from .native import native, needed_files
from .peers import (
    in_torch,
    lpips_metric,
    piq_metric,
    plain_on_onnxruntime,
    plain_on_openvino,
    plain_path,
    torchmetrics_metric,
    unit,
)
from .sets import SETS, one_by_one, reusing

__all__ = ["REUSE", "SUBJECTS", "Job", "Score", "Subject", "disk_bytes", "find", "images", "plain_file", "prepared"]

_Files = Callable[[Job], tuple[Path, ...]]


def _no_files(_: Job) -> tuple[Path, ...]:
    return ()


@dataclass(frozen=True)
class Subject:
    """title: for the tables. make: what makes it ready. needs: distributions, extras in brackets. device: where it
    computes. files: needed besides. warm_up: calls before any is timed. exact: whether its distances must be those of
    float32. calls: that count, in a turn. on_stream: whether it computes on the CUDA stream that torch is told to
    use."""

    title: str
    make: Callable[[Job], Score]
    needs: tuple[str, ...]
    device: Literal["cpu", "cuda"] = "cpu"
    files: _Files = _no_files
    warm_up: int = 3
    exact: bool = True
    calls: int = 4
    on_stream: bool = True


def images(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [batch, H, W, 3] twice: smooth fields with noise, and the same with more of it."""
    rng, (height, width) = np.random.default_rng(2018), job.shape
    y, x = np.mgrid[:height, :width] / job.side
    phase = rng.uniform(0, 6, (job.batch, 1, 1, 3))
    field = 128 + 60 * np.sin(6 * x[None, :, :, None] + phase) + 40 * np.cos(9 * y[None, :, :, None] - phase)
    reference = field + rng.normal(0, 8, field.shape)
    distorted = reference + rng.normal(0, 20, field.shape)
    a, b = (image.clip(0, 255).astype(np.uint8) for image in (reference, distorted))
    return a, b


def _artifact(job: Job, precision: str = "fp32") -> Path:
    """precision: with the suffixes of an artifact's name; the file lies beside job.model."""
    model = Path(job.model)
    return model.with_name(model.name.replace("fp32", precision))


def _ours(title: str, provider: str, precision: str = "fp32", *, exact: bool = True, **options: Any) -> Subject:
    """This project, with a provider and the artifact of a precision; options: Scorer's."""

    def make(job: Job) -> Score:
        from lpips_runtime import Scorer

        scorer = Scorer(_artifact(job, precision), provider=provider, threads=job.threads, **options)
        return lambda a, b: np.asarray(scorer.score(a, b))

    needs, device = _PROVIDERS[provider]
    return Subject(title, make, (needs,), device, lambda job: (_artifact(job, precision),), exact=exact)


# What is installed for it, and where it computes.
_PROVIDERS: Mapping[str, tuple[str, Literal["cpu", "cuda"]]] = {
    "cpu": ("lpips-runtime[cpu]", "cpu"),
    "openvino": ("lpips-runtime[openvino]", "cpu"),
    "cuda": ("lpips-runtime[gpu]", "cuda"),
}

_LPIPS = ("lpips",)
# torchmetrics leaves torchvision, which its LPIPS needs, to an extra that brings more than that.
_TORCHMETRICS = ("torchmetrics", "torchvision")

_HALF = "float16"


def plain_file(job: Job) -> tuple[Path, ...]:
    """Of those that the plain export runs in."""
    return (plain_path(job),)


SUBJECTS: Mapping[str, Subject] = {
    "ours": _ours("this project, CPU provider", "cpu"),
    "uint8": _ours("this project, CPU provider, 8-bit graph", "cpu", "fp32_uint8"),
    "fp16": _ours("this project, CPU provider, FP16", "cpu", "fp16", exact=False),
    "int8": _ours("this project, CPU provider, INT8", "cpu", "int8", exact=False),
    "native": Subject("this project, C++ library", native, (), files=needed_files),
    "openvino": _ours("this project, OpenVINO, float32", "openvino", "fp32_openvino"),
    "fast-math": _ours("this project, OpenVINO, fast-math", "openvino", "fp32_openvino", exact=False, fast_math=True),
    "eager": Subject("lpips 0.1.4, eager", in_torch(lpips_metric), _LPIPS),
    "compile": Subject("lpips 0.1.4, torch.compile", in_torch(lpips_metric, compiled=True), _LPIPS),
    "compile-bf16": Subject(
        "lpips 0.1.4, torch.compile, bfloat16 autocast",
        in_torch(lpips_metric, compiled=True, autocast="bfloat16"),
        _LPIPS,
        exact=False,
    ),
    "torchmetrics": Subject("torchmetrics, eager", in_torch(torchmetrics_metric), _TORCHMETRICS),
    "piq": Subject("piq, eager", in_torch(piq_metric, scaled=unit), ("piq",)),
    "plain": Subject(
        "plain torch.onnx.export, CPU provider",
        plain_on_onnxruntime("CPUExecutionProvider"),
        ("onnxruntime",),
        files=plain_file,
    ),
    "openvino-direct": Subject("plain export, OpenVINO, float32", plain_on_openvino(), ("openvino",), files=plain_file),
    # In bfloat16 where the CPU has instructions for it (AMX, AVX512_BF16), unless OpenVINO is told otherwise.
    "openvino-direct-fast": Subject(
        "plain export, OpenVINO as it comes",
        plain_on_openvino(fast=True),
        ("openvino",),
        files=plain_file,
        exact=False,
    ),
    "cuda": _ours("this project, CUDA provider, float32", "cuda"),
    "cuda-uint8": _ours("this project, CUDA provider, 8-bit graph", "cuda", "fp32_uint8"),
    "cuda-fast": _ours(
        "this project, CUDA provider, fast-math (TF32)", "cuda", "fp32_uint8", exact=False, fast_math=True
    ),
    "cuda-half": _ours("this project, CUDA provider, FP16", "cuda", "fp16_uint8", exact=False),
    "eager-cuda": Subject("lpips 0.1.4, eager, float32", in_torch(lpips_metric, "cuda"), _LPIPS, "cuda"),
    "eager-cuda-fast": Subject(
        "lpips 0.1.4, eager, TF32", in_torch(lpips_metric, "cuda", tf32=True), _LPIPS, "cuda", exact=False
    ),
    "eager-cuda-half": Subject(
        "lpips 0.1.4, eager, FP16 autocast",
        in_torch(lpips_metric, "cuda", tf32=True, autocast=_HALF),
        _LPIPS,
        "cuda",
        exact=False,
    ),
    "compile-cuda": Subject(
        "lpips 0.1.4, torch.compile, float32", in_torch(lpips_metric, "cuda", compiled=True), _LPIPS, "cuda"
    ),
    "compile-cuda-half": Subject(
        "lpips 0.1.4, torch.compile, FP16 autocast",
        in_torch(lpips_metric, "cuda", tf32=True, autocast=_HALF, compiled=True),
        _LPIPS,
        "cuda",
        exact=False,
    ),
    "torchmetrics-cuda": Subject(
        "torchmetrics, eager, float32", in_torch(torchmetrics_metric, "cuda"), _TORCHMETRICS, "cuda"
    ),
    # In TF32, unless ONNX Runtime is told otherwise.
    "plain-cuda": Subject(
        "plain export, CUDA provider as it comes (TF32)",
        plain_on_onnxruntime("CUDAExecutionProvider"),
        ("onnxruntime-gpu[cuda,cudnn]",),
        "cuda",
        plain_file,
        exact=False,
        on_stream=False,
    ),
}


# Of `reuse`: (job, way). What they are given as a batch is the set of images. One call is dozens of runs.
REUSE: Mapping[tuple[str, str], Subject] = {
    (which, way): Subject(
        f"{which}, {way}", make(which), SUBJECTS["ours"].needs, files=SUBJECTS["ours"].files, warm_up=1, calls=1
    )
    for which in SETS
    for way, make in (("pair by pair", one_by_one), ("reusing", reusing))
}


def find(name: str) -> Subject:
    """By its key in SUBJECTS, or by the title of one of REUSE."""
    return {**SUBJECTS, **{subject.title: subject for subject in REUSE.values()}}[name]


def disk_bytes(name: str, job: Job) -> int | None:
    """What a subject takes on disk, or None if something of it is not there.

    The distributions that it needs with all that they require, Python itself left out, and the file of its model:
    ours, or the plain export in job.folder. For the native library it is that, ONNX Runtime's and the model. What a
    package downloads when it is first used is not counted, nor a compiler that `torch.compile` calls.
    """
    from .installed import installed_bytes

    subject = find(name)
    installed = installed_bytes(subject.needs)
    try:
        files = sum(path.stat().st_size for path in subject.files(job))
    except (AbsentError, FileNotFoundError):
        return None
    return None if installed is None else installed + files


def prepared(name: str, job: Job) -> tuple[Score, np.ndarray, float]:
    """The subject; its distances on `images(job)`; and the seconds until it gave them."""
    subject, pair, start = find(name), images(job), time.perf_counter()
    score = subject.make(job)
    distances = score(*pair)
    return score, distances, time.perf_counter() - start
