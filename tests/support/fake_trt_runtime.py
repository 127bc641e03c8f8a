"""TensorRT, as far as the runner uses it, on a machine that has none.

A plan is a line of JSON (its profiles, and what is to be wrong with it) and the .onnx that it was "built" from, which
ONNX Runtime runs in the memory of fake_cuda. As with the real one, what fails returns None or False and tells the
logger, and shapes outside the profile fail.
"""

import enum
import hashlib
import json
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from fake_cuda import GPU, FakeCuda

from lpips_runtime.contract import ModelInfo
from lpips_runtime.models import manifest_path
from lpips_runtime.plan import PlanInfo, Profile

VERSION = "11.0.0.1"

_DataType = enum.Enum("DataType", ["FLOAT", "HALF", "UINT8"])
_IOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
_NUMPY = {_DataType.FLOAT: "float32", _DataType.UINT8: "uint8"}
_ONNX = {"tensor(float)": _DataType.FLOAT, "tensor(uint8)": _DataType.UINT8, "tensor(float16)": _DataType.HALF}


class _Logger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO"])

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class FakeTensorRT(ModuleType):
    """`tensorrt` or `tensorrt_rtx_bindings`. fail: method -> what it says before it returns None or False."""

    ILogger, DataType, TensorIOMode = _Logger, _DataType, _IOMode

    def __init__(self, cuda: FakeCuda, version: str = VERSION) -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)  # torch looks for it, to see whether there is a TensorRT
        self.cuda, self.__version__ = cuda, version
        self.fail: dict[str, str] = {}
        self.made: list[str] = []  # what lives
        self.runs: list[tuple[int, ...]] = []  # the shape of each run's first input
        self.profiles_set: list[int] = []
        self.busy = 0  # contexts in use at the moment

    def Runtime(self, logger: _Logger) -> "_Runtime":
        if "Runtime" in self.fail:
            raise TypeError(self.fail["Runtime"])  # as pybind11 does where a constructor gets nothing
        return _Runtime(self, logger)


class _Made:
    """Something that TensorRT makes: counted while it lives."""

    def __init__(self, library: FakeTensorRT, logger: _Logger) -> None:
        self._library, self._logger, self._name = library, logger, type(self).__name__
        library.made.append(self._name)

    def __del__(self) -> None:
        self._library.made.remove(self._name)

    def _say(self, words: str) -> None:
        self._logger.log(_Logger.Severity.INFO, "Loaded engine size: 0 MiB")
        self._logger.log(_Logger.Severity.ERROR, words)
        self._logger.log(_Logger.Severity.ERROR, "a consequence of it")

    def _failed(self, name: str) -> bool:
        if name in self._library.fail:
            self._say(self._library.fail[name])
        return name in self._library.fail


class _Runtime(_Made):
    engine_host_code_allowed = False

    def deserialize_cuda_engine(self, data: bytes) -> "_Engine | None":
        if self._failed("deserialize_cuda_engine"):
            return None
        head, _, onnx = data.partition(b"\n")
        plan = json.loads(head)
        if plan["host_code"] and not self.engine_host_code_allowed:
            self._say("engine_host_code_allowed is not set")
            return None
        return _Engine(self, plan, onnx)


class _Engine(_Made):
    def __init__(self, runtime: _Runtime, plan: dict[str, Any], onnx: bytes) -> None:
        super().__init__(runtime._library, runtime._logger)
        self._runtime = runtime
        self.session: Any = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.plan = plan
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.nodes = {node.name: node for node in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_io_tensors = len(self.nodes)
        self.num_optimization_profiles = len(plan["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return _IOMode.INPUT if name in self.inputs else _IOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return _DataType[self.plan["dtypes"][name]] if name in self.plan["dtypes"] else _ONNX[self.nodes[name].type]

    def get_tensor_shape(self, name: str) -> list[int]:
        return [side if isinstance(side, int) else -1 for side in self.nodes[name].shape]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        return [self.whole(name, sides) for sides in self.plan["profiles"][index]]

    def whole(self, name: str, sides: list[int]) -> list[int]:
        pairs, height, width = sides
        return [pairs, height, width, 3] if self.nodes[name].shape[3] == 3 else [pairs, 3, height, width]

    def create_execution_context(self) -> "_Context | None":
        return None if self._failed("create_execution_context") else _Context(self)


class _Context(_Made):
    def __init__(self, engine: _Engine) -> None:
        super().__init__(engine._library, engine._logger)
        self._engine, self._profile = engine, 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    @contextmanager
    def _alone(self) -> Any:
        self._library.busy += 1
        assert self._library.busy == 1, "two threads in one context"
        yield
        self._library.busy -= 1

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if self._failed("set_optimization_profile_async") or stream not in self._library.cuda.streams:
            return False
        self._profile = index
        self._shapes.clear()
        self._library.profiles_set.append(index)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._failed("set_input_shape"):
            return False
        low, _, high = (np.array(sides) for sides in self._engine.get_tensor_profile_shape(name, self._profile))
        if len(shape) != len(low) or (np.array(shape) < low).any() or (np.array(shape) > high).any():
            self._say(f"Set dimension {shape} for tensor {name} does not satisfy any optimization profiles.")
            return False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if self._failed("set_tensor_address"):
            return False
        self._addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if len(self._shapes) < len(self._engine.inputs) or self._failed("get_tensor_shape"):
            return tuple(self._engine.get_tensor_shape(name))
        zeros = {key: np.zeros(shape, self._dtype(key)) for key, shape in self._shapes.items()}
        return self._engine.session.run([name], zeros)[0].shape

    def _dtype(self, name: str) -> str:
        return _NUMPY[self._engine.get_tensor_dtype(name)]

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self._library.cuda
        with self._alone():
            if self._failed("execute_async_v3"):
                return False
            assert self._addresses.keys() == self._engine.nodes.keys(), "a tensor without an address"
            shapes, addresses = dict(self._shapes), dict(self._addresses)
            self._library.runs.append(next(iter(shapes.values())))

        def run() -> None:
            tensors = {name: cuda.array(addresses[name], shape, self._dtype(name)) for name, shape in shapes.items()}
            names = [name for name in addresses if name not in shapes]
            for name, found in zip(names, self._engine.session.run(names, tensors), strict=True):
                cuda.array(addresses[name], found.shape, "float32")[...] = found

        cuda.streams[stream].append(run)
        return True


def plan_file(onnx: Path, to: Path, info: ModelInfo, profiles: list[Profile], *, plan: Any = None, **said: Any) -> Path:
    """A fake plan of a graph, and its manifest.

    plan: what the plan says instead of the truth. said: what the manifest says instead.
    """
    made = {
        "profiles": [(profile.min, profile.opt, profile.max) for profile in profiles],
        "dtypes": {},
        "host_code": said.get("version_compatible", False),
    } | (plan or {})
    to.write_bytes(json.dumps(made).encode() + b"\n" + onnx.read_bytes())
    write_manifest(
        to,
        onnx,
        **{
            "info": info,
            "flavour": "tensorrt",
            "tensorrt": VERSION,
            "gpu": GPU,
            "compute_capability": "9.0",
            "profiles": tuple(profiles),
            **said,
        },
    )
    return to


def write_manifest(plan: Path, onnx: Path, **fields: Any) -> None:
    """Write the manifest beside a plan that was built from a graph."""
    sha256, onnx_sha256 = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (plan, onnx))
    given: dict[str, Any] = {"sha256": sha256, "onnx": onnx.name, "onnx_sha256": onnx_sha256}
    given |= {"version_compatible": False, "hardware_compatible": False}
    content = PlanInfo(**(given | fields)).to_manifest()
    manifest_path(plan).write_text(json.dumps(content), encoding="utf-8")
