"""What a call takes on a GPU, by CUDA events: from the images on their way there to the distances on their way back.

Between the two the GPU may wait for the host to start the next kernel: that counts too. What the ways there and back
take by themselves is timed beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .job import Job, Score, Subject

__all__ = ["cuda_options", "device_seconds", "transfer_seconds"]

_WARM_UP, _CALLS = 5, 40


@contextmanager
def cuda_options(**more: str) -> Iterator[None]:
    """What this project opens with the CUDA provider meanwhile has these options of the provider too."""
    from lpips_runtime.providers import PROVIDERS

    ours = PROVIDERS["cuda"]
    try:
        PROVIDERS["cuda"] = replace(ours, options=lambda *of: {**ours.options(*of), **more})
        yield
    finally:
        PROVIDERS["cuda"] = ours


def device_seconds(subject: Subject, job: Job, score: Score, pair: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Of each of 40 calls, on a stream of its own. torch is told to use it; ours is made anew with that stream.

    Empty for a subject that cannot be told or is on the CPU, and where torch finds no GPU. Not in the time that `turns`
    measures: torch would count for those that do without.
    """
    if subject.device != "cuda" or not subject.on_stream or not _gpu():
        return []
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), cuda_options(user_compute_stream=str(stream.cuda_stream)):
        call = score if subject.in_torch else subject.make(job)
        return _by_events(stream, lambda: call(*pair))


def transfer_seconds(subject: Subject, job: Job) -> list[float]:
    """Of 40 times as many bytes as the subject's images have to the GPU, and a float32 for each pair back, by CUDA
    events. From memory that the system may move, as numpy's is. Empty on the CPU, and where torch finds no GPU."""
    if subject.device != "cuda" or not _gpu():
        return []
    import torch

    height, width = job.shape
    images = torch.ones(2 * job.batch * 3 * height * width * subject.sent, dtype=torch.uint8)
    distances = torch.zeros(job.batch, device="cuda")
    return _by_events(torch.cuda.current_stream(), lambda: (images.to("cuda"), distances.cpu()))


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _by_events(stream: Any, call: Callable[[], object]) -> list[float]:
    import torch

    found = []
    for number in range(-_WARM_UP, _CALLS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(stream)
        call()
        end.record(stream)
        end.synchronize()
        if number >= 0:
            found.append(start.elapsed_time(end) / 1e3)
    return found
