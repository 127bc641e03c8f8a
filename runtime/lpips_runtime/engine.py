"""One opened TensorRT plan, with what Session offers for an .onnx: what it is, and inputs in, outputs out."""

from __future__ import annotations

import importlib
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .checks import NETS, PROBE, check_kind, check_net, check_tensors
from .errors import DamagedModelError, ForeignModelError, ProviderError, ShapeError, UsageError
from .execution import Execution
from .gpu import Gpu, find_gpu
from .models import read_plan
from .plan import PlanInfo, Shape
from .providers import choose_gpu

__all__ = ["LIBRARIES", "Engine", "Library"]

# Compute capability from which on a hardware-compatible plan runs.
_AMPERE = [8, 0]

_AGAIN = "build it again with lpips-export --engine"


class Library(NamedTuple):
    """A flavour's name for people, its Python module, and the extra that installs it."""

    title: str
    module: str
    extra: str


LIBRARIES = {
    "tensorrt": Library("TensorRT", "tensorrt", "tensorrt"),
    "tensorrt-rtx": Library("TensorRT-RTX", "tensorrt_rtx_bindings", "tensorrt-rtx"),
}


class Engine:
    """A plan of lpips-export, compared with its manifest and with this machine, then opened by TensorRT.

    path: the .engine file, its manifest beside it. provider: see providers.choose_gpu. threads: must be None, nothing
    of it runs on the CPU. trust_engine: open a version-compatible plan too, which runs code of its own on the host.

    Attributes: path, sha256 (of the file), info (ModelInfo of the graph that it was built from), depths (number of
    taps), provider (the plan's flavour), device (number of the GPU), fast_math (no: the types were fixed when it was
    built), runtime (what computes: library, version and GPU), origin (what the file was made from: the .onnx and its
    sha256).

    Raises ModelError and its kinds for a plan that is damaged, or made for another TensorRT or GPU; ProviderError if
    the library, the driver, the GPU or its memory is missing; UsageError for arguments that cannot be meant.
    """

    fast_math = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        provider: str = "auto",
        threads: int | None = None,
        trust_engine: bool = False,
    ) -> None:
        self.path = Path(path)
        if threads is not None:
            raise UsageError(f"{self.path}: threads are ONNX Runtime's, an engine runs on the GPU; leave them out")
        data, plan = read_plan(self.path)
        self.sha256, self.info, self.provider = plan.sha256, plan.info, plan.flavour
        self.device = choose_gpu(provider, plan.flavour)
        check_kind(self.path, plan.info, "pair")
        if plan.version_compatible and not trust_engine:
            raise UsageError(
                f"{self.path}: is a version-compatible plan, and such a plan runs code of its own on this machine; "
                "if you know who built it, open it with trust_engine=True or --trust-engine"
            )
        library = _load(LIBRARIES[plan.flavour])
        gpu = find_gpu(self.device)
        _check_machine(self.path, plan, str(library.__version__), gpu)
        self.runtime = {
            plan.flavour: str(library.__version__),
            "gpu": gpu.name,
            "compute_capability": gpu.compute_capability,
        }
        self.origin = {"onnx": plan.onnx, "onnx_sha256": plan.onnx_sha256}
        self.depths = NETS[plan.info.net].depths
        self._profiles = plan.profiles
        try:
            with self._named():
                self._execution = Execution(library, data, gpu, host_code=plan.version_compatible)
            self._check_plan(plan)
        except BaseException as error:
            self.__dict__.pop("_execution", None)
            _let_go(error)
            raise

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ProviderError as error:
            raise ProviderError(f"{self.path}: {error}") from error

    def _check_plan(self, plan: PlanInfo) -> None:
        inputs, outputs = (self._execution.tensors(inputs=inputs) for inputs in (True, False))
        check_tensors(self.path, plan.info, inputs, outputs, again=_AGAIN)
        self._check_profiles(inputs)
        if any(profile.admits((1, PROBE, PROBE)) for profile in plan.profiles):
            check_net(self.path, plan.info, self.run, again=_AGAIN)

    def _check_profiles(self, inputs: Mapping[str, object]) -> None:
        promised = [(profile.min, profile.opt, profile.max) for profile in self._profiles]
        for name in inputs:
            found = [tuple(map(self._shape, profile)) for profile in self._execution.profiles(name)]
            if found != promised:
                raise DamagedModelError(
                    f"{self.path}: its profiles for {name}, {found}, are not the {promised} of its manifest; {_AGAIN}"
                )

    def _shape(self, sides: tuple[int, ...]) -> Shape:
        """Pairs, height and width in the shape of an input."""
        pairs, *rest = sides
        height, width = rest[1:] if self.info.input == "float32" else rest[:2]
        return pairs, height, width

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Run the plan on tensors of the contract and return the named outputs, float32, in that order.

        More pairs than a profile takes at once are run in parts. The caller has checked sizes and values. Raises
        ShapeError for images that no profile admits, ProviderError if TensorRT or CUDA fails, for want of memory say.
        """
        profile, counts = self._choose(self._shape(next(iter(inputs.values())).shape))
        ends = np.cumsum(counts)
        with self._named():
            parts = [
                self._execution.run(profile, {name: array[end - n : end] for name, array in inputs.items()}, outputs)
                for n, end in zip(counts, ends, strict=True)
            ]
        return [np.concatenate(found) for found in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]

    def _choose(self, shape: Shape) -> tuple[int, list[int]]:
        """The profile that takes images of this shape in the fewest runs, the first of such, and the pairs of each."""
        pairs, height, width = shape
        choices = []
        for index, profile in enumerate(self._profiles):
            runs = -(-pairs // profile.max[0])
            # As equal as can be: a last part of its own size could fall below the profile's least.
            counts = [pairs // runs + (k < pairs % runs) for k in range(runs)]
            if all(profile.admits((count, height, width)) for count in counts):
                choices.append((index, counts))
        if not choices:
            asked = "x".join(map(str, shape))
            raise ShapeError(
                f"{self.path.name} is not built for {asked} (pairs x height x width), it takes "
                f"{' or '.join(map(str, self._profiles))}; build it for more with --min and --max, or score with the "
                ".onnx file"
            )
        return min(choices, key=lambda choice: len(choice[1]))


def _let_go(error: BaseException | None) -> None:
    """Clear the frames of an error and its causes: whoever keeps it would keep the plan's memory on the GPU too."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


def _load(library: Library) -> Any:
    try:
        return importlib.import_module(library.module)
    except (ImportError, OSError) as error:  # OSError: a library that one of its own libraries is missing
        raise ProviderError(
            f"{library.title}, which built this engine, is not installed here or not whole; "
            f"pip install 'lpips-runtime[{library.extra}]' ({error})"
        ) from error


def _check_machine(path: Path, plan: PlanInfo, version: str, gpu: Gpu) -> None:
    """Raise ForeignModelError if the plan is for another TensorRT or another GPU than these."""
    title = LIBRARIES[plan.flavour].title
    # A version-compatible plan is read by its own TensorRT and by newer ones.
    fits = _numbers(version) >= _numbers(plan.tensorrt) if plan.version_compatible else version == plan.tensorrt
    promised = {"name": plan.gpu, "compute_capability": plan.compute_capability}
    if plan.hardware_compatible:
        other_gpu = _numbers(gpu.compute_capability) < _AMPERE
    else:
        other_gpu = any(value is not None and value != getattr(gpu, key) for key, value in promised.items())
    differing = [what for what, differs in ((f"{title} version", not fits), ("GPU", other_gpu)) if differs]
    if differing:
        built_on = "" if plan.gpu is None else f" on {plan.gpu} ({plan.compute_capability})"
        raise ForeignModelError(
            f"{path}: is for another {' and '.join(differing)}: built by {title} {plan.tensorrt}{built_on}, here is "
            f"{version} on {gpu.name} ({gpu.compute_capability}); {_AGAIN}"
        )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
