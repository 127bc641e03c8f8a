"""What is timed: this project's scorers, and what a user would take instead.

A subject takes 8-bit images and gives distances: the conversion to float32 counts for all. Each is made, warmed up and
timed in a process of its own (`turns.py`), which imports what that subject needs and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .job import AbsentError, Job, Score, Subject
from .native import native, needed_files
from .ours import engine, ours, split_files
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
from .sets import SETS, by_lpips, one_by_one, reusing, sampled

__all__ = [
    "REUSE",
    "SUBJECTS",
    "Subject",
    "disk_bytes",
    "find",
    "plain_file",
    "prepared",
    "reference",
]

_LPIPS = ("lpips",)
# torchmetrics leaves torchvision, which its LPIPS needs, to an extra that brings more than that.
_TORCHMETRICS = ("torchmetrics", "torchvision")

_HALF = "float16"


def plain_file(job: Job) -> tuple[Path, ...]:
    """Of those that the plain export runs in."""
    return (plain_path(job),)


SUBJECTS: Mapping[str, Subject] = {
    "ours": ours("this project, CPU provider", "cpu"),
    "uint8": ours("this project, CPU provider, 8-bit graph", "cpu", "fp32_uint8"),
    "fp16": ours("this project, CPU provider, FP16", "cpu", "fp16", exact=False),
    "int8": ours("this project, CPU provider, INT8", "cpu", "int8", exact=False),
    "native": Subject("this project, C++ library", native, (), files=needed_files),
    "openvino": ours("this project, OpenVINO, float32", "openvino", "fp32_openvino"),
    "fast-math": ours("this project, OpenVINO, fast-math", "openvino", "fp32_openvino", exact=False, fast_math=True),
    "eager": Subject("lpips 0.1.4, eager", in_torch(lpips_metric), _LPIPS),
    "eager-contiguous": Subject(
        "lpips 0.1.4, eager, contiguous images", in_torch(lpips_metric, contiguous=True), _LPIPS
    ),
    "compile": Subject("lpips 0.1.4, torch.compile", in_torch(lpips_metric, compiled=True), _LPIPS, compiled=True),
    "compile-bf16": Subject(
        "lpips 0.1.4, torch.compile, bfloat16 autocast",
        in_torch(lpips_metric, compiled=True, autocast="bfloat16"),
        _LPIPS,
        exact=False,
        compiled=True,
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
    "cuda": ours("this project, CUDA provider, float32", "cuda", sent=4),
    "cuda-uint8": ours("this project, CUDA provider, 8-bit graph", "cuda", "fp32_uint8"),
    "cuda-fast": ours(
        "this project, CUDA provider, fast-math (TF32)", "cuda", "fp32_uint8", exact=False, fast_math=True
    ),
    "cuda-half": ours("this project, CUDA provider, FP16", "cuda", "fp16_uint8", exact=False),
    "tensorrt": engine("this project, TensorRT, float32", "fp32_uint8_trt"),
    "tensorrt-half": engine("this project, TensorRT, FP16", "fp16_uint8_trt", exact=False),
    "tensorrt-int8": engine("this project, TensorRT, INT8", "int8_uint8_tensorrt_trt", exact=False),
    "rtx": engine("this project, TensorRT-RTX, float32", "fp32_uint8_rtx"),
    "rtx-half": engine("this project, TensorRT-RTX, FP16", "fp16_uint8_rtx", exact=False),
    # As torch comes, convolutions are computed in TF32 (torch.backends.cudnn.allow_tf32).
    "eager-cuda": Subject(
        "lpips 0.1.4, eager as it comes (TF32)", in_torch(lpips_metric, "cuda"), _LPIPS, "cuda", exact=False
    ),
    "eager-cuda-float32": Subject(
        "lpips 0.1.4, eager, TF32 off", in_torch(lpips_metric, "cuda", tf32=False), _LPIPS, "cuda"
    ),
    "eager-cuda-half": Subject(
        "lpips 0.1.4, eager, FP16 autocast",
        in_torch(lpips_metric, "cuda", autocast=_HALF),
        _LPIPS,
        "cuda",
        exact=False,
    ),
    "compile-cuda": Subject(
        "lpips 0.1.4, torch.compile as it comes (TF32)",
        in_torch(lpips_metric, "cuda", compiled=True),
        _LPIPS,
        "cuda",
        exact=False,
        compiled=True,
    ),
    "compile-cuda-half": Subject(
        "lpips 0.1.4, torch.compile, FP16 autocast",
        in_torch(lpips_metric, "cuda", autocast=_HALF, compiled=True),
        _LPIPS,
        "cuda",
        exact=False,
        compiled=True,
    ),
    "torchmetrics-cuda": Subject(
        "torchmetrics, eager as it comes (TF32)",
        in_torch(torchmetrics_metric, "cuda"),
        _TORCHMETRICS,
        "cuda",
        exact=False,
    ),
    "piq-cuda": Subject(
        "piq, eager as it comes (TF32)", in_torch(piq_metric, "cuda", scaled=unit), ("piq",), "cuda", exact=False
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
        sent=4,
    ),
}

# The subjects whose distances the others are held against, by device: `lpips` in full float32.
_REFERENCE = {"cpu": "eager", "cuda": "eager-cuda-float32"}


def _of_sets() -> Iterator[tuple[tuple[str, str], Subject]]:
    """(job, way) -> the subject."""
    own, lpips = SUBJECTS["ours"], SUBJECTS[_REFERENCE["cpu"]]
    for which, pairs_of in SETS.items():
        # way -> what makes it, whose packages and files it needs, the pairs it compares, and whether an image is
        # encoded once.
        ways: Mapping[str, tuple[Any, Subject, Callable[[Sequence], Sequence], bool]] = {
            "pair by pair": (one_by_one, own, lambda images, of=pairs_of: sampled(of(images)), False),
            "reusing": (reusing, replace(own, files=split_files), pairs_of, True),
            "lpips": (by_lpips, lpips, pairs_of, False),
        }
        for way, (make, like, compared, once) in ways.items():

            def counts(batch: int, compared: Callable = compared, once: bool = once) -> tuple[int, int]:
                pairs = len(compared(range(batch)))
                return pairs, batch if once else 2 * pairs

            title = f"{which}, {way}"
            yield (
                (which, way),
                Subject(title, make(which), like.needs, files=like.files, warm_up=1, calls=1, counts=counts),
            )


# Of `reuse` and `scaling`: (job, way). What they are given as a batch is the set of images. One call is dozens of runs.
REUSE: Mapping[tuple[str, str], Subject] = dict(_of_sets())


def find(name: str) -> Subject:
    """By its key in SUBJECTS, or by the title of one of REUSE."""
    return {**SUBJECTS, **{subject.title: subject for subject in REUSE.values()}}[name]


def reference(name: str) -> str:
    """The subject whose distances are the truth for those of this one: it may be itself."""
    which = next((which for (which, _), subject in REUSE.items() if subject.title == name), None)
    return REUSE[which, "lpips"].title if which else _REFERENCE[find(name).device]


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


def prepared(name: str, job: Job, pair: tuple[np.ndarray, np.ndarray]) -> tuple[Score, np.ndarray, float]:
    """The subject; its distances on the pair, which is `images(job)`; and the seconds until it gave them."""
    start = time.perf_counter()
    score = find(name).make(job)
    distances = score(*pair)
    return score, distances, time.perf_counter() - start
