"""What is timed: this project's scorers, and what a user would take instead.

A subject takes 8-bit images and gives distances: the conversion to float32 counts for all. Each is made, warmed up and
timed in a process of its own (`turns.py`), which imports what that subject needs and nothing else.
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .sets import SETS, one_by_one, reusing

__all__ = ["REUSE", "SUBJECTS", "Job", "Score", "Subject", "find", "images", "prepared"]

# Two uint8 [N, H, W, 3] -> float [N].
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Job:
    """net: name in LPIPS. model: our float32 artifact of it. side: of the images, pixels. batch: pairs at once.
    threads: that compute."""

    net: str
    model: str
    side: int
    batch: int
    threads: int


@dataclass(frozen=True)
class Subject:
    """title: for the tables. make: what makes it ready. device: where it computes. warm_up: calls before any is timed.
    exact: whether its distances must be those of float32. calls: that count, in a turn."""

    title: str
    make: Callable[[Job], Score]
    device: Literal["cpu", "cuda"] = "cpu"
    warm_up: int = 3
    exact: bool = True
    calls: int = 4


def images(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [batch, side, side, 3] twice: smooth fields with noise, and the same with more of it."""
    rng = np.random.default_rng(2018)
    y, x = np.mgrid[: job.side, : job.side] / job.side
    phase = rng.uniform(0, 6, (job.batch, 1, 1, 3))
    field = 128 + 60 * np.sin(6 * x[None, :, :, None] + phase) + 40 * np.cos(9 * y[None, :, :, None] - phase)
    reference = field + rng.normal(0, 8, field.shape)
    distorted = reference + rng.normal(0, 20, field.shape)
    a, b = (image.clip(0, 255).astype(np.uint8) for image in (reference, distorted))
    return a, b


def _ours(precision: str = "fp32", **options: Any) -> Callable[[Job], Score]:
    """precision: with the suffixes of an artifact's name; the file lies beside job.model."""

    def make(job: Job) -> Score:
        from lpips_runtime import Scorer

        model = Path(job.model)
        scorer = Scorer(model.with_name(model.name.replace("fp32", precision)), threads=job.threads, **options)
        return lambda a, b: np.asarray(scorer.score(a, b))

    return make


def _metric(job: Job) -> Any:
    """`lpips` 0.1.4 in float32, on job.threads."""
    import torch

    from lpips_export.reference import reference_metric
    from lpips_export.weights import load_backbone, load_lin

    torch.set_num_threads(job.threads)
    backbone = load_backbone(job.net, None, allow_unknown=False, log=lambda _: None)
    return reference_metric(job.net, "0.1", backbone.state, load_lin(job.net, "0.1"))


def _in_torch(metric: Any, autocast: bool) -> Score:
    import torch

    def tensor(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image).permute(0, 3, 1, 2).float() / 127.5 - 1

    @torch.no_grad()
    def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return metric(tensor(a), tensor(b)).reshape(-1).float().numpy()

    return score


def _eager(job: Job) -> Score:
    return _in_torch(_metric(job), autocast=False)


def _on_gpu(*, tf32: bool = False, half: bool = False, compiled: bool = False) -> Callable[[Job], Score]:
    """The reference on a GPU. 8-bit images go there, numbers come back: both count, for ours too."""

    def make(job: Job) -> Score:
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError(f"torch {torch.__version__} finds no CUDA device")
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        metric = _metric(job).cuda()
        metric = torch.compile(metric) if compiled else metric

        def tensor(image: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(image).cuda().permute(0, 3, 1, 2).float() / 127.5 - 1

        @torch.no_grad()
        def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            with torch.autocast("cuda", torch.float16, enabled=half):
                return metric(tensor(a), tensor(b)).reshape(-1).float().cpu().numpy()

        return score

    return make


def _compiled(autocast: bool) -> Callable[[Job], Score]:
    def make(job: Job) -> Score:
        import torch

        return _in_torch(torch.compile(_metric(job)), autocast)

    return make


def _plain_export(job: Job, provider: str = "CPUExecutionProvider") -> Score:
    """`torch.onnx.export` of the reference as it is, on ONNX Runtime."""
    import onnxruntime as ort
    import torch

    from lpips_runtime.nvidia import load_cuda
    from lpips_runtime.ort import onnxruntime

    example = tuple(torch.rand(2, 3, 96, 72) * 2 - 1 for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plain.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _metric(job),
                example,
                dynamo=True,
                verbose=False,
                input_names=["reference", "distorted"],
                output_names=["distance"],
                dynamic_shapes=({0: "batch", 2: "height", 3: "width"},) * 2,
            )
        assert program is not None
        program.save(path)
        if provider != "CPUExecutionProvider":
            load_cuda(onnxruntime())
        options = ort.SessionOptions()
        options.intra_op_num_threads = job.threads
        session = ort.InferenceSession(path, options, providers=[provider])
        if session.get_providers()[0] != provider:
            raise RuntimeError(f"ONNX Runtime passes {provider} over")

    def tensor(image: np.ndarray) -> np.ndarray:
        return image.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)

    def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["distance"], {"reference": tensor(a), "distorted": tensor(b)})[0]).reshape(-1)

    return score


SUBJECTS: Mapping[str, Subject] = {
    "ours": Subject("this project, CPU provider", _ours(provider="cpu")),
    "openvino": Subject("this project, OpenVINO, float32", _ours("fp32_openvino", provider="openvino")),
    "fast-math": Subject(
        "this project, OpenVINO, fast-math", _ours("fp32_openvino", provider="openvino", fast_math=True), exact=False
    ),
    "eager": Subject("lpips 0.1.4, eager", _eager),
    "compile": Subject("lpips 0.1.4, torch.compile", _compiled(autocast=False)),
    "compile-bf16": Subject("the same, bfloat16 autocast", _compiled(autocast=True), exact=False),
    "plain": Subject("plain torch.onnx.export, CPU provider", _plain_export),
    "cuda": Subject("this project, CUDA provider, float32", _ours(provider="cuda"), "cuda"),
    "cuda-uint8": Subject("the same, 8-bit graph", _ours("fp32_uint8", provider="cuda"), "cuda"),
    "cuda-fast": Subject(
        "the same, fast-math (TF32)", _ours("fp32_uint8", provider="cuda", fast_math=True), "cuda", exact=False
    ),
    "cuda-half": Subject("the same, FP16", _ours("fp16_uint8", provider="cuda"), "cuda", exact=False),
    "eager-cuda": Subject("lpips 0.1.4, eager, float32", _on_gpu(), "cuda"),
    "eager-cuda-fast": Subject("the same, TF32", _on_gpu(tf32=True), "cuda", exact=False),
    "eager-cuda-half": Subject("the same, FP16 autocast", _on_gpu(tf32=True, half=True), "cuda", exact=False),
    "compile-cuda": Subject("lpips 0.1.4, torch.compile, float32", _on_gpu(compiled=True), "cuda"),
    "compile-cuda-half": Subject(
        "the same, FP16 autocast", _on_gpu(tf32=True, half=True, compiled=True), "cuda", exact=False
    ),
    # In TF32, unless ONNX Runtime is told otherwise.
    "plain-cuda": Subject(
        "plain export, CUDA provider as it comes (TF32)",
        partial(_plain_export, provider="CUDAExecutionProvider"),
        "cuda",
        exact=False,
    ),
}


# Of `reuse`: (job, way). What they are given as a batch is the set of images. One call is dozens of runs.
REUSE: Mapping[tuple[str, str], Subject] = {
    (which, way): Subject(f"{which}, {way}", make(which), warm_up=1, calls=1)
    for which in SETS
    for way, make in (("pair by pair", one_by_one), ("reusing", reusing))
}


def find(name: str) -> Subject:
    """By its key in SUBJECTS, or by the title of one of REUSE."""
    return {**SUBJECTS, **{subject.title: subject for subject in REUSE.values()}}[name]


def prepared(name: str, job: Job) -> tuple[Score, np.ndarray, float]:
    """The subject, warmed up; its distances on `images(job)`; and the seconds that making it took."""
    subject, pair, start = find(name), images(job), time.perf_counter()
    score = subject.make(job)
    distances = score(*pair)
    seconds = time.perf_counter() - start
    for _ in range(subject.warm_up - 1):
        score(*pair)
    return score, distances, seconds
