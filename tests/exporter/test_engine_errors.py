"""TensorRT's ways of failing, by a stand-in for its API; which library is taken; the timing cache; a build's end."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import GPU, FakeCuda
from fake_tensorrt import FakeTensorRT, install, parser_error
from onnx_files import INFO

from lpips_export import trt, trt_library
from lpips_export.engine import build_engine, plan_engine
from lpips_export.errors import EngineError
from lpips_export.manifest import Artifact
from lpips_export.profiles import EngineSpec
from lpips_export.progress import Progress
from lpips_runtime.engine import LIBRARIES
from lpips_runtime.models import manifest_path
from lpips_runtime.plan import PlanInfo


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return install(monkeypatch)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "lpips_alex_fp32.onnx"
    path.write_bytes(b"a graph")
    return path


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def build(graph: Path, progress: Progress | None = None, **spec: Any) -> Artifact:
    job = plan_engine(EngineSpec(**spec), INFO.net, INFO.min_size)
    return build_engine(graph, INFO, job, progress=progress)


def nothing_but(graph: Path) -> bool:
    return [path.name for path in graph.parent.iterdir()] == [graph.name]


# --- which library


def absent(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    find_spec = trt_library.importlib.util.find_spec
    monkeypatch.setattr(
        trt_library.importlib.util, "find_spec", lambda name: None if name in modules else find_spec(name)
    )


def test_without_any_tensorrt_the_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch, "tensorrt", "tensorrt_rtx_bindings")
    with pytest.raises(EngineError) as caught:
        trt_library.find_library()
    assert str(caught.value) == (
        "no TensorRT: none is installed; install one of the extras: pip install ./runtime '.[tensorrt]', "
        "or '.[tensorrt-rtx]' to build without a GPU"
    )


def test_every_library_of_the_runtime_can_build() -> None:
    assert list(trt_library._FLAVOURS) == list(LIBRARIES)


def test_tensorrt_goes_before_tensorrt_rtx(api: FakeTensorRT) -> None:
    library = trt_library.find_library()
    assert (library.flavour, library.version, library.api) == ("tensorrt", "11.4.0.106", api)


@pytest.mark.parametrize(("version", "taken"), [("10.12.0.36", True), ("10.11.9", False), ("8.6.1", False)])
def test_a_tensorrt_that_is_too_old_is_not_taken(monkeypatch: pytest.MonkeyPatch, version: str, taken: bool) -> None:
    install(monkeypatch, version=version)
    absent(monkeypatch, "tensorrt_rtx_bindings")
    if taken:
        assert trt_library.find_library().version == version
        return
    with pytest.raises(EngineError, match=rf"^no TensorRT: TensorRT {version} is older than 10\.12; install one of"):
        trt_library.find_library()


def test_a_tensorrt_that_cannot_be_loaded_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    absent(monkeypatch, "tensorrt_rtx_bindings")
    with pytest.raises(EngineError, match=r"tensorrt cannot be imported \(libnvinfer\.so\.11: cannot open shared"):
        trt_library.find_library()


@pytest.mark.usefixtures("api")
def test_tensorrt_without_a_gpu_says_what_builds_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda(gpus=0))
    with pytest.raises(EngineError, match=r"no CUDA-capable device is detected; .*driver, or install TensorRT-RTX"):
        plan_engine(EngineSpec(), "alex", 31)


@pytest.mark.usefixtures("api")
def test_tensorrt_without_cuda_python_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(
        EngineError, match=r"cuda-python is not installed, .*'lpips-runtime\[tensorrt\]' .*without a GPU"
    ):
        plan_engine(EngineSpec(), "alex", 31)


# --- what is asked of it


def test_the_manifest_says_which_gpu_a_plan_is_for(api: FakeTensorRT, graph: Path) -> None:
    artifact = build(graph, version_compatible=True, hardware_compatible=True, workspace=2 * 10**9)
    assert artifact.path.name == "lpips_alex_fp32_trt.engine"
    assert artifact.path.read_bytes() == b"plan"
    manifest = json.loads(manifest_path(artifact.path).read_text(encoding="utf-8"))
    described = PlanInfo.from_manifest(manifest, artifact.path)
    assert (described.flavour, described.tensorrt) == ("tensorrt", "11.4.0.106")
    assert (described.gpu, described.compute_capability) == (GPU, "9.0")
    assert (described.version_compatible, described.hardware_compatible) == (True, True)
    assert api.asked["flags"] == {"VERSION_COMPATIBLE"}
    config = api.asked["config"]
    assert (config.hardware_compatibility_level, config.limits) == ("AMPERE_PLUS", {"WORKSPACE": 2 * 10**9})


def test_nothing_is_asked_for_that_was_not_wanted(api: FakeTensorRT, graph: Path) -> None:
    described = PlanInfo.from_manifest(build(graph).manifest, graph)
    assert (described.version_compatible, described.hardware_compatible) == (False, False)
    config = api.asked["config"]
    assert (api.asked["flags"], config.hardware_compatibility_level, config.limits) == (set(), "NONE", {})
    assert api.asked["cleared"] == {"TF32"}
    assert "timings" not in api.asked


@pytest.mark.parametrize(("version", "flags"), [("10.12.0", 0b10), ("11.4.0", 0)])
def test_networks_are_strongly_typed_where_there_is_a_choice(
    monkeypatch: pytest.MonkeyPatch, graph: Path, version: str, flags: int
) -> None:
    api = install(monkeypatch, version=version)
    build(graph)
    assert api.asked["network"] == flags


def test_both_inputs_get_the_shapes_in_the_order_of_the_graph(api: FakeTensorRT, graph: Path) -> None:
    job = plan_engine(EngineSpec(min=((1, 32, 48),), opt=((2, 64, 96),), max=((4, 128, 192),)), "alex", 31)
    build_engine(graph, INFO, job)
    bounds = ((1, 3, 32, 48), (2, 3, 64, 96), (4, 3, 128, 192))
    assert api.asked["profiles"] == [{"reference": bounds, "distorted": bounds}]


# --- what goes wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"fails": {"builder"}, "words": "CUDA initialization failure with error: 35"},
            "TensorRT does not start: CUDA initialization failure with error: 35; check the NVIDIA driver",
        ),
        ({"fails": {"network"}, "words": "wrong flags"}, "TensorRT makes no network: wrong flags; see its whole log"),
        (
            {"fails": {"parser"}, "words": "no library"},
            "TensorRT has no parser: no library; see its whole log with --debug",
        ),
        ({"fails": {"profile_made"}}, "TensorRT makes no profile: it does not say why; see its whole log"),
        (
            {"fails": {"parse"}, "parser_errors": [parser_error("Not so\nIn f at x.cpp:1", "n1", "Conv")]},
            "TensorRT 11.4.0.106 does not take the graph: Conv n1: Not so; see its whole log with --debug",
        ),
        ({"fails": {"parse"}}, "TensorRT 11.4.0.106 does not take the graph: it does not say why; see its whole log"),
        (
            {"fails": {"profile"}, "words": "[a.cpp::f::1] MIN<=OPT"},
            "TensorRT does not take the profile reference 1x3x16x16 to 4x3x1024x1024: MIN<=OPT; see",
        ),
        (
            {"fails": {"set_shape"}, "words": "wrong rank"},
            "TensorRT does not take the profile reference 1x3x16x16 to 4x3x1024x1024: wrong rank; see",
        ),
        (
            {"fails": {"build"}, "words": "Error Code 1: Cuda Runtime (out of memory)"},
            "TensorRT did not build the engine: Error Code 1: Cuda Runtime (out of memory); lower --max, free",
        ),
        (
            {"fails": {"build"}, "words": "Error Code 2: OutOfMemory (Requested size was 109883416 bytes.)"},
            "TensorRT did not build the engine: Error Code 2: OutOfMemory; lower --max, free",
        ),
        (
            {"fails": {"build"}, "words": "Error Code 10: Could not find any implementation for node x."},
            "TensorRT did not build the engine: Error Code 10: Could not find any implementation for node x.; raise",
        ),
        ({"fails": {"build"}}, "TensorRT did not build the engine: it does not say why; see its whole log with"),
    ],
)
def test_every_none_and_minus_one_is_an_error_in_its_words_and_the_graph_stays(
    monkeypatch: pytest.MonkeyPatch, graph: Path, settings: dict[str, Any], message: str
) -> None:
    install(monkeypatch, **settings)
    with pytest.raises(EngineError) as caught:
        build(graph)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(f"; the graph is published all the same: {graph}")
    assert nothing_but(graph)


def test_a_workspace_that_is_not_taken_is_an_error(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    install(monkeypatch, fails={"workspace"}, words="larger than the device")
    with pytest.raises(EngineError, match=r"^TensorRT does not take --workspace of 5 bytes: larger than the device"):
        build(graph, workspace=5)


def test_an_engine_that_cannot_be_written_leaves_the_graph_and_says_so(
    api: FakeTensorRT, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("lpips_export.engine.publish", full)
    with pytest.raises(OSError, match="cannot be written: No space left on device; the graph is published all the sa"):
        build(graph)
    assert nothing_but(graph)


# --- the timing cache


def test_timings_are_written_after_a_build_and_read_by_the_next(api: FakeTensorRT, graph: Path) -> None:
    cache, progress = graph.parent / "timings", Notes()
    build(graph, progress, timing_cache=cache)
    assert api.asked["timings"] == [b""]
    assert cache.read_bytes() == b"timings of 11.4"
    build(graph, progress, timing_cache=cache)
    assert api.asked["timings"] == [b"", b"timings of 11.4"]
    assert progress.notes == []
    assert sorted(path.name for path in graph.parent.iterdir() if path.suffix not in {".json", ".engine"}) == [
        graph.name,
        cache.name,
    ]


def test_timings_that_it_does_not_give_are_an_error(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    install(monkeypatch, fails={"serialize"})
    with pytest.raises(EngineError, match="TensorRT does not give its timings: it does not say why"):
        build(graph, timing_cache=graph.parent / "timings")


@pytest.mark.parametrize("fails", [set(), {"create_timings"}, {"set_timings"}])
def test_timings_of_another_version_are_made_anew_with_a_note(
    monkeypatch: pytest.MonkeyPatch, graph: Path, fails: set[str]
) -> None:
    """TensorRT warns and goes on with none, gives no cache, or does not take it."""
    api = install(monkeypatch, fails=fails, timings_complaint="The timing cache will not be used!" * (not fails))
    cache, progress = graph.parent / "timings", Notes()
    cache.write_bytes(b"timings of 10.3")
    build(graph, progress, timing_cache=cache)
    (note,) = progress.notes
    why = "they were refused" if fails else "The timing cache will not be used!"
    assert note == f"{cache}: timings of another TensorRT or GPU, made anew ({why})"
    assert cache.read_bytes() == b"timings of 11.4"
    assert api.asked["timings"] == [b"timings of 10.3", *([b""] if fails else [])]


def test_no_timing_cache_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    install(monkeypatch, fails={"any_timings"})
    with pytest.raises(EngineError, match=r"^TensorRT makes no timing cache: "):
        build(graph, timing_cache=graph.parent / "timings")


@pytest.mark.usefixtures("api")
def test_a_timing_cache_that_cannot_be_read_is_an_error_before_the_work(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "cannot be read: Is a directory; choose another file or leave the option out"),
        (tmp_path / "gone" / "timings", "its folder does not exist; make it or choose another file"),
    ):
        with pytest.raises(EngineError) as caught:
            plan_engine(EngineSpec(timing_cache=path), "alex", 31)
        assert str(caught.value) == f"--timing-cache {path}: {words}"


def test_a_timing_cache_that_cannot_be_written_does_not_lose_the_engine(api: FakeTensorRT, graph: Path) -> None:
    cache = graph.parent / "timings"
    api.during_build = lambda monitor: cache.mkdir()
    with pytest.raises(EngineError) as caught:
        build(graph, timing_cache=cache)
    engine = graph.with_name("lpips_alex_fp32_trt.engine")
    assert str(caught.value).startswith(f"--timing-cache {cache}: cannot be written: ")
    assert str(caught.value).endswith(f"; the engine is published all the same: {engine}")
    assert engine.read_bytes() == b"plan"
    assert manifest_path(engine).exists()
    assert not [path for path in graph.parent.iterdir() if path.name.startswith(".")]


# --- the end of a build


@pytest.mark.skipif(os.name == "nt", reason="os.kill ends the process there")
def test_an_interrupt_is_raised_once_tensorrt_has_stopped(api: FakeTensorRT, graph: Path) -> None:
    going: list[bool] = []

    def interrupted(monitor: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 10
        while monitor.step_complete("Building", 1) and time.monotonic() < deadline:
            time.sleep(0.01)
        going.append(monitor.step_complete("Building", 1))

    api.during_build = interrupted
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            build(graph)
    finally:
        signal.signal(signal.SIGINT, before)
    assert going == [False], "raised when the build had ended, and it was told to stop"
    assert nothing_but(graph)


def test_what_nobody_foresaw_in_a_build_comes_through(api: FakeTensorRT, graph: Path) -> None:
    def fail(monitor: Any) -> None:
        raise RuntimeError("unforeseen")

    api.during_build = fail
    with pytest.raises(RuntimeError, match="unforeseen"):
        build(graph)
    assert nothing_but(graph)


# --- progress


def percentages(*calls: tuple[Any, ...]) -> list[int]:
    """How far the percentage is after each call of (method, arguments)."""
    found, count = [], 0

    def advance() -> None:
        nonlocal count
        count += 1

    percentage = trt.Percentage(advance)
    for method, *arguments in calls:
        getattr(percentage, method)(*arguments)
        found.append(count)
    return found


def test_nested_phases_are_one_percentage() -> None:
    assert percentages(
        ("start", "all", None, 4),
        ("step", "all", 0),
        ("start", "part", "all", 5),
        ("step", "part", 0),
        ("step", "part", 4),
        ("finish", "part"),
        ("step", "all", 1),
        ("finish", "all"),
        ("complete",),
    ) == [0, 25, 25, 30, 50, 50, 50, 50, 100]


def test_a_phase_of_an_unknown_parent_counts_for_itself() -> None:
    assert percentages(("start", "part", "gone", 4), ("step", "part", 0), ("start", "x", "x", 2)) == [0, 25, 25]


def test_the_percentage_never_falls_and_never_passes_a_hundred() -> None:
    assert (
        percentages(
            ("start", "one", None, 2),
            ("step", "one", 1),
            ("step", "one", 5),
            ("finish", "one"),
            ("start", "another", None, 10),
            ("step", "another", 0),
            ("step", "unknown", 3),
            ("finish", "unknown"),
            ("complete",),
        )
        == [0] + [100] * 8
    )
