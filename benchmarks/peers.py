"""What a user would take instead of this project: PyTorch packages, and a plain export on two runtimes.

Each is called as its own documentation calls it, in float32 unless its row says otherwise, and gives a distance for
each pair. Where one would fetch weights, it is given the same ones from where the exporter finds them: what it takes to
be made ready has no download in it, and of the backbone its unused classifier is left out.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .job import AbsentError, Job, Score

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "in_torch",
    "lpips_metric",
    "piq_metric",
    "plain_export",
    "plain_on_onnxruntime",
    "plain_on_openvino",
    "plain_path",
    "torchmetrics_metric",
    "unit",
]


def symmetric(image: Tensor) -> Tensor:
    """0 to 255 -> -1 to 1."""
    return image.float() / 127.5 - 1


def unit(image: Tensor) -> Tensor:
    """0 to 255 -> 0 to 1."""
    return image.float() / 255


def lpips_metric(job: Job) -> Any:
    """`lpips` 0.1.4: two float32 [N, 3, H, W] in [-1, 1] -> [N, 1, 1, 1]."""
    from lpips_export.reference import reference_metric
    from lpips_export.weights import load_lin

    return reference_metric(job.net, "0.1", _backbone_state(job), load_lin(job.net, "0.1"))


def torchmetrics_metric(job: Job) -> Any:
    """`torchmetrics`: two float32 [N, 3, H, W] in [-1, 1] -> [N]. It has lin weights of its own, which are the same."""
    from unittest.mock import patch

    from lpips_export.backbones import BACKBONES

    features = _features(job)  # imports torchvision in the way that works, which must come first
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with patch(f"torchvision.models.{BACKBONES[job.net].file}", features):
        net: Any = job.net
        return LearnedPerceptualImagePatchSimilarity(net_type=net, reduction="none")


def piq_metric(job: Job) -> Any:
    """`piq`: two float32 [N, 3, H, W] in [0, 1] -> [N]. Raises AbsentError for another net than vgg."""
    if job.net != "vgg":
        raise AbsentError("piq has VGG16 alone")
    from unittest.mock import patch

    from lpips_export.weights import load_lin

    features = _features(job)  # imports torchvision in the way that works, which must come first
    import piq

    lin = [tensor.clone() for tensor in load_lin(job.net, "0.1").tensors]
    with (
        patch("piq.perceptual.vgg16", features),
        patch("torch.hub.load_state_dict_from_url", lambda *_, **__: lin),
    ):
        return piq.LPIPS(replace_pooling=False, reduction="none")


def _backbone_state(job: Job) -> dict[str, Tensor]:
    from lpips_export.weights import load_backbone

    return load_backbone(job.net, None, allow_unknown=False, log=lambda _: None).state


def _features(job: Job) -> Callable[..., Any]:
    """What stands for torchvision's constructor: its model with pretrained weights, `features` alone."""
    from lpips_export.backbones import BACKBONES

    features = BACKBONES[job.net].features()
    features.load_state_dict({key.removeprefix("features."): value for key, value in _backbone_state(job).items()})
    return lambda *_, **__: SimpleNamespace(features=features)


def in_torch(
    metric: Callable[[Job], Any],
    device: str = "cpu",
    *,
    scaled: Callable[[Tensor], Tensor] = symmetric,
    autocast: str = "",
    tf32: bool | None = None,
    contiguous: bool = False,
    compiled: bool = False,
) -> Callable[[Job], Score]:
    """A metric of PyTorch's. On a GPU 8-bit images go there, numbers come back: both count, for ours too.

    The tensors are views of the images: channels last in memory, as `lpips.im2tensor` and a permuted array have them.
    contiguous: channels first, as torchvision's ToTensor has them, which costs a copy; how long convolutions take
    depends on it, on some nets by a factor of two.

    scaled: 8-bit values to those that the metric takes. autocast: to which type; none if empty. tf32: whether a GPU may
    round to it; None: as torch comes. compiled: with nothing in Inductor's cache, so that its first number is that of a
    machine which never compiled it.
    """

    def make(job: Job) -> Score:
        if compiled:
            # A header that Inductor compiles lies in the folder for temporary files, whatever its cache is.
            tempfile.tempdir = tempfile.mkdtemp(dir=job.folder or None)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TMPDIR"] = tempfile.tempdir
        import torch

        torch.set_num_threads(job.threads)
        if device == "cuda":
            if not torch.cuda.is_available():
                raise AbsentError(f"torch {torch.__version__} finds no CUDA device")
            if tf32 is not None:
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        module = metric(job).to(device)
        call = torch.compile(module) if compiled else module
        kind = getattr(torch, autocast) if autocast else None

        def tensor(image: np.ndarray) -> Tensor:
            planes = torch.from_numpy(image).to(device).permute(0, 3, 1, 2)
            return scaled(planes.contiguous() if contiguous else planes)

        @torch.no_grad()
        def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            with torch.autocast(device, kind, enabled=kind is not None):
                return call(tensor(a), tensor(b)).reshape(-1).float().cpu().numpy()

        return score

    return make


def plain_path(job: Job) -> Path:
    """Where the plain export of a net lies in job.folder."""
    return Path(job.folder, f"plain_{job.net}.onnx")


def plain_export(job: Job) -> Path:
    """`torch.onnx.export` of the reference as it is, with free axes, in job.folder. Made there if it is missing, which
    takes 10 to 20 s: whoever wants the seconds of a subject without those calls this first."""
    path = plain_path(job)
    if path.exists():
        return path
    import torch

    torch.set_num_threads(job.threads)
    example = tuple(torch.rand(2, 3, 96, 72) * 2 - 1 for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            lpips_metric(job),
            example,
            dynamo=True,
            verbose=False,
            input_names=["reference", "distorted"],
            output_names=["distance"],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},) * 2,
        )
    assert program is not None
    # Under a name of its own until it is whole: a run that is killed leaves no half graph to the next.
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        program.save(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def _plain(job: Job) -> Iterator[Path]:
    """The plain export, in job.folder or in one that goes afterwards."""
    if job.folder:
        yield plain_export(job)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield plain_export(replace(job, folder=folder))


def _planes(image: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    return image.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)


def plain_on_onnxruntime(provider: str) -> Callable[[Job], Score]:
    """provider: ONNX Runtime's name of it."""

    def make(job: Job) -> Score:
        import onnxruntime as ort

        from lpips_runtime.nvidia import load_cuda
        from lpips_runtime.ort import onnxruntime

        if provider not in ort.get_available_providers():
            raise AbsentError(f"ONNX Runtime {ort.__version__} has no {provider}")
        if provider != "CPUExecutionProvider":
            load_cuda(onnxruntime())
        options = ort.SessionOptions()
        options.intra_op_num_threads = job.threads
        with _plain(job) as path:
            session = ort.InferenceSession(path, options, providers=[provider])
        if session.get_providers()[0] != provider:
            raise AbsentError(f"ONNX Runtime passes {provider} over")

        def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            inputs = {"reference": _planes(a), "distorted": _planes(b)}
            return np.asarray(session.run(["distance"], inputs)[0]).reshape(-1)

        return score

    return make


def plain_on_openvino(*, fast: bool = False) -> Callable[[Job], Score]:
    """The package `openvino` itself, on the CPU. fast: in the type that it chooses, which is bfloat16 where the CPU has
    instructions for it."""

    def make(job: Job) -> Score:
        import openvino

        options = {"INFERENCE_NUM_THREADS": job.threads} | ({} if fast else {"INFERENCE_PRECISION_HINT": "f32"})
        with _plain(job) as path:
            model = openvino.Core().compile_model(path, "CPU", options)

        def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.array(model({"reference": _planes(a), "distorted": _planes(b)})["distance"]).reshape(-1)

        return score

    return make
