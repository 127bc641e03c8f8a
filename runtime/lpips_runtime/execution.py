"""One deserialised TensorRT plan on one GPU: tensors in, tensors out. TensorRT and TensorRT-RTX have the same API.

That API hardly ever raises: it returns None or False and tells a logger why. Here each of those is a ProviderError
with the logger's words.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from .errors import ProviderError
from .gpu import OUT_OF_MEMORY, Gpu, Memory

__all__ = ["Execution"]

# "[checkMacros.cpp::catchCudaError::250] ", "IRuntime::deserializeCudaEngine: ", "Error Code 1: Cuda Runtime (...)"
_REPORT = re.compile(r"(?:\[\S+\] )?(?:I\w+::\w+: )?Error Code \d+: [^(]*\((.*)\)\s*", re.DOTALL)
# "In ScopedCudaStream at /_src/common/dispatch/cudaResources.cpp:25"
_PLACE = re.compile(r"\bIn \w+ at \S+\.(?:cpp|h|cu):\d+")


class Execution:
    """A plan, opened: `tensors` and `profile` say what it takes, `run` runs it. For several threads at once, in turn.

    library: the module of TensorRT or TensorRT-RTX. host_code: let the plan run the code in it that a
    version-compatible plan has.

    Raises ProviderError if TensorRT does not take the plan or has no memory for it.
    """

    def __init__(self, library: Any, plan: bytes, gpu: Gpu, *, host_code: bool) -> None:
        self._lock = threading.Lock()
        self._errors, logger = _logger(library)
        self._memory = Memory(gpu)
        self._made: list[Any] = []
        # At the interpreter's exit too, before the memory and long before the modules are taken apart.
        weakref.finalize(self, _release, self._made)
        with self._memory.current():
            runtime = self._must("cannot start", library.Runtime, logger)
            if host_code:
                runtime.engine_host_code_allowed = True
            self._made.append(runtime)
            engine = self._must("cannot read the plan", runtime.deserialize_cuda_engine, plan)
            self._made.append(engine)
            # One for all profiles, with memory for the largest: what does not fit shows now, not amid a job.
            self._made.append(self._must("cannot set the plan up", engine.create_execution_context))
        self._profile = 0
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._is_input = {name: engine.get_tensor_mode(name) == library.TensorIOMode.INPUT for name in names}
        kinds = {library.DataType.FLOAT: "float32", library.DataType.UINT8: "uint8"}
        self._tensors = {
            name: (kinds.get(kind := engine.get_tensor_dtype(name), str(kind)), len(engine.get_tensor_shape(name)))
            for name in names
        }

    def tensors(self, *, inputs: bool) -> dict[str, tuple[str, int]]:
        """Dtype and rank of each input or output; what is neither float32 nor uint8 has TensorRT's own name."""
        return {name: what for name, what in self._tensors.items() if self._is_input[name] is inputs}

    def profiles(self, name: str) -> list[tuple[tuple[int, ...], ...]]:
        """The smallest, best and largest shape of an input in each profile, as the plan itself has them."""
        engine = self._made[1]
        return [
            tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(name, index))
            for index in range(engine.num_optimization_profiles)
        ]

    def run(self, profile: int, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Run under the profile of this number and return the named outputs, in that order.

        Raises ProviderError with TensorRT's or CUDA's words; the next call starts afresh.
        """
        with self._lock, self._memory.current():
            self._errors.clear()
            try:
                views = self._enqueue(profile, inputs, outputs)
            except BaseException:
                # Steps that were taken already may still read and write the buffers of the next call.
                with suppress(ProviderError):
                    self._memory.wait()
                raise
            self._memory.wait()
            return [view.copy() for view in views]

    def _enqueue(self, profile: int, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        context, memory = self._made[2], self._memory
        if profile != self._profile:
            self._must(
                f"does not take profile {profile}", context.set_optimization_profile_async, profile, memory.stream
            )
            self._profile = profile
        for name, array in inputs.items():
            self._must(f"does not take {name} of shape {array.shape}", context.set_input_shape, name, array.shape)
            self._must(f"does not take {name}", context.set_tensor_address, name, memory.upload(name, array))
        shapes = dict[str, tuple[int, ...]]()
        # All of them: TensorRT computes each, whether it is asked for or not.
        for name, (dtype, _) in self.tensors(inputs=False).items():
            shapes[name] = tuple(self._must(f"does not know {name}", context.get_tensor_shape, name))
            if any(side < 0 for side in shapes[name]):
                raise self._error(f"does not know the shape of {name}, only {shapes[name]}")
            address = memory.reserve(name, shapes[name], dtype)
            self._must(f"does not take {name}", context.set_tensor_address, name, address)
        self._must("fails", context.execute_async_v3, memory.stream)
        return [memory.download(name, shapes[name], self._tensors[name][0]) for name in outputs]

    def _must(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of TensorRT's returns, unless it is None or False."""
        try:
            result = function(*arguments)
        except Exception as error:  # the bindings' own, where no None can be returned: a constructor, say
            raise self._error(what, str(error)) from error
        if result is None or result is False:
            raise self._error(what)
        return result

    def _error(self, what: str, unlogged: str = "it does not say why") -> ProviderError:
        # The first is the cause, what follows are its consequences.
        told = next(iter(self._errors), unlogged)
        report = _REPORT.fullmatch(told)
        words = " ".join(_PLACE.sub("", report[1] if report else told).split())
        words = words if len(words) <= 300 else f"{words[:300]}..."
        advice = f"; {OUT_OF_MEMORY}" if re.search("out ?of ?memory", words, re.IGNORECASE) else ""
        return ProviderError(f"TensorRT {what}: {words}{advice}")


def _logger(library: Any) -> tuple[list[str], Any]:
    """A list that grows by each error that TensorRT reports, and the logger that fills it."""
    errors: list[str] = []
    serious = (library.ILogger.Severity.INTERNAL_ERROR, library.ILogger.Severity.ERROR)

    class Logger(library.ILogger):
        def __init__(self) -> None:
            library.ILogger.__init__(self)  # not super(): the bindings ask for it by name

        def log(self, severity: Any, msg: str) -> None:
            if severity in serious and len(errors) < 100:
                errors.append(str(msg))

    return errors, Logger()


def _release(made: list[Any]) -> None:
    """Let go of what TensorRT made, the last first."""
    while made:
        made.pop()
