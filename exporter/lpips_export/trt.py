"""The API of TensorRT and TensorRT-RTX as the exporter uses it: whatever it answers with None, -1 or a line in its log
becomes an EngineError with TensorRT's own words and the next step.

Both libraries have the same API. TensorRT 11 knows strongly typed networks only, 10.12 knows both kinds.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import EngineError
from .profiles import EngineSpec
from .progress import Advance
from .trt_library import NO_GPU, Library

__all__ = ["Bounds", "Log", "Percentage", "Plan", "build_plan"]

T = TypeVar("T")

# Name of an input -> its smallest, best and largest dimensions.
Bounds = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]


class Log:
    """What TensorRT said, a pair of severity and text each. detail: called with every line, from any thread."""

    def __init__(self, detail: Callable[[str], None]) -> None:
        self.lines: list[tuple[str, str]] = []
        self._detail = detail

    def add(self, severity: str, text: str) -> None:
        if severity != "VERBOSE":
            self.lines.append((severity, text))
            self._detail(f"TensorRT {severity.lower()}: {text}")

    def words(self, severities: Sequence[str] = ("ERROR", "INTERNAL_ERROR"), since: int = 0) -> str:
        """Its first complaint and its last, the cause and what came of it, on one line; empty if there is none."""
        texts = [_line(text) for severity, text in self.lines[since:] if severity in severities]
        # Without a GPU, TensorRT-RTX complains of that whenever something else is wrong, and of its threads always.
        telling = [text for text in texts if not re.search("driver version is insufficient|Thread context", text)]
        found = telling or texts
        return "; ".join(dict.fromkeys((*found[:1], *found[-1:])))

    def error(self, what: str, words: str = "") -> EngineError:
        """The error for something that failed: what, in which words of TensorRT's, and the next step."""
        # The size that it names follows the limit that was given, and is not what would do.
        words = re.sub(r" \(Requested size was \d+ bytes\.\)", "", words or self.words()) or "it does not say why"
        steps = (step for pattern, step in _NEXT_STEPS if re.search(pattern, words, re.IGNORECASE))
        return EngineError(f"{what}: {words}; {next(steps, 'see its whole log with --debug')}")


_NEXT_STEPS = (
    ("out ?of ?memory|insufficient memory", "lower --max, free device memory, or raise --workspace if you gave it"),
    ("any implementation", "raise --workspace if you gave it, or lower --max"),
    ("cuda", NO_GPU),
)


class Percentage:
    """Phases of a build, nested and each of so many steps, as one percentage that only rises.

    Calls `advance` once per percent. Safe to be called from several threads.
    """

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._shown = 0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[name] = _Phase(None if parent == name else parent, max(1, steps))

    def step(self, name: str, step: int) -> None:
        with self._lock:
            if name in self._phases:
                self._phases[name].done = step + 1
                self._rise(
                    max(self._share(root) for root, phase in self._phases.items() if phase.parent not in self._phases)
                )

    def finish(self, name: str) -> None:
        with self._lock:
            self._phases.pop(name, None)

    def complete(self) -> None:
        with self._lock:
            self._rise(1.0)

    def _share(self, name: str) -> float:
        phase = self._phases[name]
        inner = max((self._share(child) for child, other in self._phases.items() if other.parent == name), default=0.0)
        return min(1.0, (phase.done + inner) / phase.steps)

    def _rise(self, share: float) -> None:
        for _ in range(self._shown, int(100 * share)):
            self._shown += 1
            self._advance()


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


@dataclass(frozen=True)
class Plan:
    """A built engine. data: the plan. timings: what the timing cache holds now, None without one. forgotten: why the
    timings that were given could not be used, in TensorRT's words, None if they could."""

    data: bytes
    timings: bytes | None = None
    forgotten: str | None = None


def build_plan(
    library: Library,
    graph: bytes,
    profiles: Sequence[Bounds],
    spec: EngineSpec,
    log: Log,
    advance: Advance,
    timings: bytes | None = None,
) -> Plan:
    """Build the plan of an ONNX graph. timings: content of a timing cache, empty for a new one, None for none.

    `advance` is called a hundred times. A KeyboardInterrupt cancels the build: it is raised once TensorRT has stopped.
    Raises EngineError.
    """
    percentage, cancelled = Percentage(advance), threading.Event()
    monitor = _monitor(library.api, percentage, cancelled)
    # The main thread waits instead of building: signals are handled in Python, which would not be before TensorRT
    # comes back, or else inside its callbacks, where an exception cannot get through.
    plan = _aside(lambda: _build(library, graph, profiles, spec, log, monitor, timings), cancelled)
    percentage.complete()
    return plan


def _aside(work: Callable[[], T], cancelled: threading.Event) -> T:
    """Run in another thread; what interrupts the wait for it sets `cancelled` and is raised when it has ended."""
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised again in the thread that waits
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="engine").start()
        # Not Thread.join: in Python 3.11 a signal makes it forget that the thread runs. With no limit Windows would
        # handle no signal.
        while not wait([future], 0.2).done:
            pass
    except KeyboardInterrupt:
        cancelled.set()
        if not future.cancel():  # it has begun
            wait([future])
        raise
    return future.result()


def _build(
    library: Library,
    graph: bytes,
    profiles: Sequence[Bounds],
    spec: EngineSpec,
    log: Log,
    monitor: Any,
    timings: bytes | None,
) -> Plan:
    api, title = library.api, library.title
    recorder = _recorder(api, log)
    try:
        builder = api.Builder(recorder)
    except (TypeError, RuntimeError) as error:  # the bindings' way of saying that the constructor gave nothing
        raise log.error(f"{title} does not start", log.words() or _line(str(error))) from error
    network = builder.create_network(_network_flags(api))
    config = builder.create_builder_config()
    if network is None or config is None:
        raise log.error(f"{title} makes no network")
    try:
        parser = api.OnnxParser(network, recorder)
    except (TypeError, RuntimeError) as error:
        raise log.error(f"{title} has no parser", log.words() or _line(str(error))) from error
    if not parser.parse(graph):
        complaints = [_complaint(parser.get_error(k)) for k in range(parser.num_errors)]
        raise log.error(f"{title} {library.version} does not take the graph", "; ".join(complaints[:2]))
    _configure(api, config, spec, log, title)
    for bounds in profiles:
        _add_profile(builder, config, bounds, log, title)
    cache, forgotten = (None, None) if timings is None else _timing_cache(config, timings, log, title)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise log.error(f"{title} did not build the engine")
    kept = None if cache is None else cache.serialize()
    if cache is not None and kept is None:
        raise log.error(f"{title} does not give its timings")
    return Plan(bytes(plan), None if kept is None else bytes(kept), forgotten)


def _network_flags(api: Any) -> int:
    # A precision is what the graph says it is. TensorRT 11 knows nothing else, and may drop the flag.
    flag = getattr(api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _configure(api: Any, config: Any, spec: EngineSpec, log: Log, title: str) -> None:
    # On by default, and then float32 convolutions multiply with 10 bits of mantissa. A float32 graph is to stay
    # float32, and so is what fp16 and int8 graphs keep in it.
    config.clear_flag(api.BuilderFlag.TF32)
    if spec.workspace is not None:
        pool = api.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, spec.workspace)
        if config.get_memory_pool_limit(pool) != spec.workspace:
            raise log.error(f"{title} does not take --workspace of {spec.workspace} bytes")
    if spec.version_compatible:
        config.set_flag(api.BuilderFlag.VERSION_COMPATIBLE)
    if spec.hardware_compatible:
        config.hardware_compatibility_level = api.HardwareCompatibilityLevel.AMPERE_PLUS


def _add_profile(builder: Any, config: Any, bounds: Bounds, log: Log, title: str) -> None:
    profile = builder.create_optimization_profile()
    if profile is None:
        raise log.error(f"{title} makes no profile")
    try:
        for name, (low, opt, high) in bounds.items():
            profile.set_shape(name, low, opt, high)
    except (ValueError, TypeError) as error:
        raise log.error(f"{title} does not take the profile {_text(bounds)}", _line(str(error))) from error
    if config.add_optimization_profile(profile) < 0:
        raise log.error(f"{title} does not take the profile {_text(bounds)}")


def _timing_cache(config: Any, timings: bytes, log: Log, title: str) -> tuple[Any, str | None]:
    """A cache in use, and why the timings in it could not be: those of another version or GPU leave a line in the log,
    and either an empty cache or none."""
    before = len(log.lines)
    cache = config.create_timing_cache(timings)
    taken = cache is not None and config.set_timing_cache(cache, False)
    forgotten = log.words(("WARNING", "ERROR"), before) or (None if taken else "they were refused")
    if not taken:
        cache = config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, False):
            raise log.error(f"{title} makes no timing cache")
    return cache, forgotten


def _text(bounds: Bounds) -> str:
    name, (low, _, high) = next(iter(bounds.items()))
    return f"{name} {'x'.join(map(str, low))} to {'x'.join(map(str, high))}"


def _complaint(error: Any) -> str:
    node = " ".join(part for part in (error.node_operator(), error.node_name()) if part)
    return f"{node}: {_line(error.desc())}" if node else _line(error.desc())


def _recorder(api: Any, log: Log) -> Any:
    class Recorder(api.ILogger):
        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(severity.name, message)

    return Recorder()


def _monitor(api: Any, percentage: Percentage, cancelled: threading.Event) -> Any:
    class Monitor(api.IProgressMonitor):
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            percentage.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            percentage.step(name, step)
            return not cancelled.is_set()

        def phase_finish(self, name: str) -> None:
            percentage.finish(name)

    return Monitor()


def _line(text: str) -> str:
    """TensorRT's words as one line, without where in its own sources they come from, and without the want of a driver
    that TensorRT-RTX adds to other complaints."""
    text = re.sub(r"\n\[checkMacros[^\n]*|^\[[^\]\s]+\] ", "", text)
    return " ".join(re.sub(r"\s+In [\w:~]+ at \S+?:\d+", "", text).split())[:300]
