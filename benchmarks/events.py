"""What a call takes on a GPU, by CUDA events: from the images on their way there to the distances on their way back.

Between the two the GPU may wait for the host to start the next kernel: that counts too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .job import Job
    from .subjects import Subject

__all__ = ["cuda_options", "device_seconds"]

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


def device_seconds(subject: Subject, job: Job, pair: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Of each of 40 calls. The subject is made anew, on a stream of its own, which this project's sessions and torch
    are told to use; empty for one that cannot be told or is on the CPU, and where torch finds no GPU.

    Not in the time that `turns` measures: torch would count for those that do without.
    """
    if subject.device != "cuda" or not subject.on_stream:
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), cuda_options(user_compute_stream=str(stream.cuda_stream)):
        score, found = subject.make(job), []
        for number in range(-_WARM_UP, _CALLS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            score(*pair)
            end.record(stream)
            end.synchronize()
            if number >= 0:
                found.append(start.elapsed_time(end) / 1e3)
    return found
