"""A pretended machine with GPUs, plans on it, and what the tests of engines ask of it."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
from fake_cuda import FakeCuda
from fake_trt_runtime import FakeTensorRT, plan_file

from lpips_runtime.contract import ModelInfo
from lpips_runtime.engine import Engine
from lpips_runtime.errors import LpipsError
from lpips_runtime.plan import Profile

SMALL = Profile((1, 16, 16), (1, 32, 32), (4, 64, 64))
LARGE = Profile((1, 64, 64), (2, 64, 64), (8, 128, 128))
TALL = Profile((2, 200, 16), (2, 200, 16), (3, 300, 32))


@dataclass
class Machine:
    """A machine with GPUs, and a plan on it."""

    cuda: FakeCuda
    tensorrt: FakeTensorRT
    onnx: Path
    path: Path

    def plan(self, *profiles: Profile, onnx: Path | None = None, **said: Any) -> Path:
        """Write a plan for the profiles; `said` is what its manifest claims."""
        graph = onnx or self.onnx
        info = said.pop("info", None) or info_of(graph)
        return plan_file(graph, self.path, info, list(profiles or [SMALL]), **said)


def info_of(graph: Path) -> ModelInfo:
    return ModelInfo.from_metadata(onnx_files.metadata(graph.read_bytes()), graph)


def images(count: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.random.default_rng(seed).integers(0, 256, (2, count, height, width, 3), dtype=np.uint8)
    return first, second


def refusal(path: Path, **options: Any) -> LpipsError:
    """The error of opening a plan: typed, of one line, and about this file."""
    with pytest.raises(LpipsError) as caught:
        Engine(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 450
    return caught.value


def everything_is_given_back(machine: Machine) -> bool:
    gc.collect()
    return not (machine.cuda.live or machine.cuda.streams or machine.tensorrt.made)
