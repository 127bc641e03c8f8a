"""A small stand-in for `tensorrt`, beside that for CUDA: for errors that the real one cannot be made
to give on a machine without a GPU. It builds nothing; it answers as the real one is documented to."""

import enum
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fake_cuda import FakeCuda

Install = Callable[..., "FakeTensorRT"]


class Severity(enum.Enum):
    ERROR = 1
    WARNING = 2
    INFO = 3


class FakeTensorRT(ModuleType):
    """The module. Which call fails, and how, is set on it; what was asked of it can be read from `asked`.

    words: what is logged as an error before a failure. fails: names of the calls that answer None, -1 or False.
    """

    def __init__(self, version: str = "11.4.0.106", **settings: Any) -> None:
        super().__init__("tensorrt")
        self.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
        self.__version__ = version
        self.words = ""
        self.fails: set[str] = set()
        self.parser_errors: list[Any] = []
        self.timings_complaint = ""
        self.during_build: Callable[[Any], None] = lambda monitor: None
        self.asked: dict[str, Any] = {"flags": set(), "cleared": set(), "profiles": []}
        for name, value in settings.items():
            setattr(self, name, value)
        self.ILogger = SimpleBase
        self.IProgressMonitor = SimpleBase
        self.BuilderFlag = SimpleNamespace(TF32="TF32", VERSION_COMPATIBLE="VERSION_COMPATIBLE")
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")
        self.HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="AMPERE_PLUS")
        flags = {"STRONGLY_TYPED": 1} if version.startswith("10.") else {}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**flags)
        self.Builder = lambda logger: Builder(self, logger)
        self.OnnxParser = lambda network, logger: Parser(self, logger)

    def answer(self, call: str, logger: Any, good: Any, bad: Any = None) -> Any:
        if call not in self.fails:
            return good
        if self.words:
            logger.log(Severity.ERROR, self.words)
        return bad


class SimpleBase:
    pass


class Builder:
    def __init__(self, api: FakeTensorRT, logger: Any) -> None:
        self.api, self.logger = api, logger
        if "builder" in api.fails:
            logger.log(Severity.ERROR, api.words)
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int) -> Any:
        self.api.asked["network"] = flags
        return self.api.answer("network", self.logger, object())

    def create_builder_config(self) -> "Config":
        self.config = Config(self.api, self.logger)
        return self.config

    def create_optimization_profile(self) -> "OptimizationProfile | None":
        return self.api.answer("profile_made", self.logger, OptimizationProfile(self.api))

    def build_serialized_network(self, network: object, config: "Config") -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 2)
        going = monitor.step_complete("Building", 0)
        self.api.during_build(monitor)
        monitor.phase_finish("Building")
        return self.api.answer("build", self.logger, b"plan") if going else None


class Config:
    progress_monitor: Any

    def __init__(self, api: FakeTensorRT, logger: Any) -> None:
        self.api, self.logger, self.limits = api, logger, {}
        self.hardware_compatibility_level = "NONE"
        api.asked["config"] = self

    def set_flag(self, flag: str) -> None:
        self.api.asked["flags"].add(flag)

    def clear_flag(self, flag: str) -> None:
        self.api.asked["cleared"].add(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = self.api.answer("workspace", self.logger, size, 0)

    def get_memory_pool_limit(self, pool: str) -> int:
        return self.limits[pool]

    def add_optimization_profile(self, profile: "OptimizationProfile") -> int:
        self.api.asked["profiles"].append(profile.shapes)
        return self.api.answer("profile", self.logger, len(self.api.asked["profiles"]) - 1, -1)

    def create_timing_cache(self, content: bytes) -> Any:
        self.api.asked.setdefault("timings", []).append(content)
        if content and self.api.timings_complaint:
            self.logger.log(Severity.WARNING, self.api.timings_complaint)
        if content and "create_timings" in self.api.fails:
            return None
        return SimpleNamespace(
            content=content, serialize=lambda: self.api.answer("serialize", self.logger, b"timings of 11.4")
        )

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        return not (cache.content and "set_timings" in self.api.fails) and "any_timings" not in self.api.fails


class OptimizationProfile:
    def __init__(self, api: FakeTensorRT) -> None:
        self.api, self.shapes = api, {}

    def set_shape(self, name: str, low: Any, opt: Any, high: Any) -> None:
        if "set_shape" in self.api.fails:
            raise ValueError(self.api.words)
        self.shapes[name] = (low, opt, high)


class Parser:
    def __init__(self, api: FakeTensorRT, logger: Any) -> None:
        self.api = api
        if api.answer("parser", logger, good=False, bad=True):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def parse(self, graph: bytes) -> bool:
        return "parse" not in self.api.fails

    @property
    def num_errors(self) -> int:
        return len(self.api.parser_errors)

    def get_error(self, k: int) -> Any:
        return self.api.parser_errors[k]


def parser_error(description: str, node: str = "", operator: str = "") -> Any:
    return SimpleNamespace(desc=lambda: description, node_name=lambda: node, node_operator=lambda: operator)


def install(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> FakeTensorRT:
    """Put the stand-in in place of `tensorrt`, with a GPU."""
    api = FakeTensorRT(**settings)
    monkeypatch.setitem(sys.modules, "tensorrt", api)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda())
    return api
