"""One opened .onnx: what it is, and inputs in, outputs out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import contract
from .checks import check_kind, check_net, check_tensors, smallest_inputs
from .contract import ModelInfo
from .errors import DamagedModelError, ProviderError, UsageError
from .heap import trim
from .models import read_model
from .opening import open_error, open_graph, tell
from .ort import memory_advice, onnxruntime, words_of
from .plugins import check_process
from .providers import MAX_THREADS

__all__ = ["Session"]

# ONNX Runtime's word for a type -> numpy's; whatever else it says is no type of the contract.
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}

# Values in a tensor of images from which on it pays to mind the arena: those of one image of 512x512.
_LARGE = 3 * 512**2


class Session:
    """A graph of lpips-export, opened by ONNX Runtime and checked against the contract.

    path: the .onnx file. provider: `auto`, or a name of providers.PROVIDERS, `cuda:1`. threads: that compute on the
    CPU, None for what is right for one process here (cpu.default_threads). fast_math: let a float32 graph run in the
    provider's faster types, where it has any. kind: the kind of graph that the caller needs, None for any.

    Attributes: path, sha256 (of the file), info (ModelInfo), depths (number of taps), provider (our name),
    device (its number), fast_math (whether faster types are in use), runtime (what computes: library and version,
    device, types), origin (what the file was made from: nothing, here).

    Raises ModelError and its kinds for a file that is not such a graph, ProviderError if the provider is missing,
    broken, or would hand the graph to another one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        provider: str = "auto",
        threads: int | None = None,
        fast_math: bool = False,
        kind: str | None = "pair",
    ) -> None:
        if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
            raise UsageError(f"threads is {threads!r}, it must be a whole number from 1 to {MAX_THREADS}")
        self.path = Path(path)
        data, self.sha256 = read_model(self.path)
        opened = open_graph(data, self.path, provider=provider, threads=threads, fast_math=fast_math)
        self._session, self.provider, self.device = opened.session, opened.provider.name, opened.device.number
        self._plugin, self._process = opened.provider.plugin, os.getpid()
        self.fast_math = bool(opened.faster)
        self.runtime = opened.about
        self.origin: dict[str, str] = {}
        self._last: tuple[int, ...] = ()  # shape of the inputs that ran last
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            inputs, outputs = (
                {node.name: (_DTYPES.get(str(node.type), str(node.type)), len(node.shape)) for node in nodes}
                for nodes in (self._session.get_inputs(), self._session.get_outputs())
            )
        except Exception as error:
            raise open_error(error, self.path, self.provider) from error
        self.info = ModelInfo.from_metadata(metadata, self.path)
        check_kind(self.path, self.info, kind)
        if fast_math and self.info.precision != "fp32":
            raise UsageError(
                f"{self.path}: fast-math is for float32 models, this one is {self.info.precision}; leave it out"
            )
        if not contract.is_sealed(data, self.info.content_sha256):
            raise DamagedModelError(f"{self.path}: was changed or damaged after its export; export the model again")
        self.depths = sum(name.startswith(("depth_", "feature_")) for name in outputs)
        check_tensors(self.path, self.info, inputs, outputs, again="export the model again")
        self._check_net()
        if kind not in ("features", "compare"):  # those compute as their pair graph does, which has said so
            tell(opened, fast_math)

    def _check_net(self) -> None:
        try:
            check_net(self.path, self.info, self.run, again="export it again")
        except ProviderError as error:
            raise DamagedModelError(f"{self.path}: fails on an image of zeros: {error.__cause__}") from error

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Run the graph on tensors of the contract and return the named outputs, in that order.

        The caller has checked sizes and values. Raises ProviderError if the provider fails, for want of memory say.
        """
        if self._plugin:
            check_process(self._process, self._plugin)
        try:
            last, self._last = self._last, next(iter(inputs.values())).shape
            if self.provider == "cpu" and self._last != last and max(map(math.prod, (self._last, last))) >= _LARGE:
                return self._run_after_another_size(list(outputs), dict(inputs))
            return self._session.run(list(outputs), dict(inputs))
        except Exception as error:
            words = words_of(error) + memory_advice(error)
            raise ProviderError(f"{self.path}: provider {self.provider!r} failed: {words}") from error

    def _run_after_another_size(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run and give memory back, where the last inputs had another shape and either is large.

        ONNX Runtime's arena keeps what it has, and blocks for one size hardly serve another: with tiles of four sizes
        vgg took 3.8 GB where the largest alone takes 2.6. An arena shrinks after a run, so there is a tiny one before;
        a compare graph, for which there is none, shrinks after this one. What it gives up, the C library would keep.
        """
        if tiny := smallest_inputs(self.info):
            self.shrink(tiny)
            return self._session.run(outputs, inputs)
        found = self._session.run(outputs, inputs, self._shrinking())
        trim()
        return found

    def shrink(self, tiny: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Give back what earlier runs took, by a run on these small inputs; all its outputs."""
        found = self._session.run(None, dict(tiny), self._shrinking())
        trim()
        return found

    def _shrinking(self) -> Any:
        options = onnxruntime().RunOptions()
        if self.provider == "cpu":
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options
