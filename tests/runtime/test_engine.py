"""Plans run by a TensorRT and a CUDA that are fakes: scores, refusals, memory."""

import gc
import json
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
from fake_tensorrt import GPU, VERSION, CudaError, FakeCuda, FakeTensorRT, plan_file
from score_command import Run

from lpips_runtime import Scorer, __version__
from lpips_runtime.contract import ModelInfo
from lpips_runtime.engine import Engine
from lpips_runtime.errors import (
    DamagedModelError,
    ForeignModelError,
    LpipsError,
    ModelError,
    ProviderError,
    ShapeError,
    UsageError,
)
from lpips_runtime.models import manifest_path
from lpips_runtime.plan import Profile

Models = Callable[[str], Path]

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


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick_model: Path) -> Machine:
    cuda = FakeCuda()
    tensorrt = FakeTensorRT(cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    # Absent, unless a test puts it there.
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)  # pyright: ignore[reportArgumentType]
    found = Machine(cuda, tensorrt, quick_model, tmp_path / "lpips_vgg_fp32_trt.engine")
    found.plan()
    return found


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


# Scores


@pytest.mark.parametrize("name", ["alex", "alex_uint8", "squeeze_baseline"])
def test_an_engine_scores_as_the_graph_it_was_built_from(machine: Machine, models: Models, name: str) -> None:
    graph = models(name)
    path = machine.plan(Profile((1, 31, 31), (1, 64, 64), (4, 80, 80)), onnx=graph)
    first, second = images(3, 50, 47)
    with Scorer(path) as engine, Scorer(graph, provider="cpu") as session:
        assert isinstance(engine._open, Engine)
        expected, found = session.detail(first, second), engine.detail(first, second)
        assert engine.info == session.info
        assert engine.score(first[0], second[0]) == session.score(first[0], second[0])
    np.testing.assert_array_equal(found.distance, expected.distance)
    np.testing.assert_array_equal(found.layers, expected.layers)
    np.testing.assert_array_equal(found.map, expected.map)
    assert found.distance.dtype == found.layers.dtype == found.map.dtype == np.float32


def test_results_outlive_the_next_run_and_the_engine(machine: Machine) -> None:
    scorer = Scorer(machine.path)
    first = scorer.detail(*images(2, 40, 30))
    kept = first.distance.copy(), first.depths[0].copy()
    scorer.detail(*images(2, 40, 30, seed=1))
    scorer.close()
    np.testing.assert_array_equal(first.distance, kept[0])
    np.testing.assert_array_equal(first.depths[0], kept[1])


def test_provenance_names_library_gpu_and_graph(machine: Machine) -> None:
    with Scorer(machine.path) as scorer:
        provenance = scorer.provenance
    said = json.loads(manifest_path(machine.path).read_text())
    assert provenance["model"]["file"] == machine.path.name
    assert {key: provenance["model"][key] for key in ("sha256", "onnx", "onnx_sha256")} == {
        key: said[key] for key in ("sha256", "onnx", "onnx_sha256")
    }
    assert provenance["runtime"] == {
        "lpips-runtime": __version__,
        "tensorrt": VERSION,
        "gpu": GPU,
        "compute_capability": "9.0",
        "provider": "tensorrt",
        "device": 0,
    }
    json.dumps(provenance)


def test_a_pickled_scorer_opens_the_engine_again(machine: Machine) -> None:
    machine.plan(version_compatible=True)
    with Scorer(machine.path, trust_engine=True, provider="tensorrt:1") as scorer:
        copy = pickle.loads(pickle.dumps(scorer))
        pair = images(2, 40, 30)
        np.testing.assert_array_equal(copy.score(*pair), scorer.score(*pair))
        assert copy.provenance == scorer.provenance
        copy.close()


def test_many_threads_share_one_engine(machine: Machine) -> None:
    """Sizes differ, so that whatever two threads have in common is overwritten between them."""
    machine.plan(SMALL, LARGE)
    pairs = [images(1 + seed % 6, 20 + 7 * (seed % 7), 20 + 11 * (seed % 5), seed) for seed in range(40)]
    with Scorer(machine.path) as scorer, Scorer(machine.onnx, provider="cpu") as session:
        expected = [session.score(*pair) for pair in pairs]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda pair: scorer.score(*pair), pairs))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


# Which GPU


@pytest.mark.parametrize(("provider", "number"), [("auto", 0), ("tensorrt", 0), ("tensorrt:1", 1)])
def test_the_gpu_is_chosen_by_number(machine: Machine, provider: str, number: int) -> None:
    with Scorer(machine.path, provider=provider) as scorer:
        assert scorer.provenance["runtime"]["device"] == number
        machine.cuda.set_to.clear()
        scorer.score(*images(1, 20, 20))
        assert machine.cuda.set_to[0] == number
        # The caller's choice is restored, for whoever else computes in this thread.
        assert machine.cuda.current == 0


@pytest.mark.parametrize("provider", ["cpu", "cuda", "cuda:1", "tensorrt-rtx", "tensorrt-rtx:1"])
def test_an_engine_brings_its_own_provider(machine: Machine, provider: str) -> None:
    number = provider.partition(":")[2] or "0"
    error = refusal(machine.path, provider=provider)
    assert type(error) is UsageError
    assert str(error) == (
        f"provider {provider!r}: a .engine file brings its own, here tensorrt; leave the provider out, or choose the "
        f"GPU with tensorrt:{number}"
    )


def test_a_gpu_that_is_not_there(machine: Machine) -> None:
    error = refusal(machine.path, provider="tensorrt:2")
    assert type(error) is ProviderError
    assert str(error) == "GPU 2 does not exist, CUDA counts 2; the first one is 0"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (CudaError.cudaErrorNoDevice, "no CUDA-capable device is detected; an engine needs an NVIDIA GPU"),
        (
            CudaError.cudaErrorInsufficientDriver,
            "CUDA driver version is insufficient for CUDA runtime version; install",
        ),
    ],
)
def test_no_gpu_or_driver_is_told_in_cudas_words(machine: Machine, code: CudaError, said: str) -> None:
    machine.cuda.fail["cudaGetDeviceCount"] = code
    error = refusal(machine.path)
    assert type(error) is ProviderError
    assert str(error).startswith(f"CUDA's cudaGetDeviceCount failed: {said}")


def test_threads_and_trust_belong_to_one_kind_of_model_each(machine: Machine) -> None:
    with pytest.raises(UsageError, match=r"trt.engine: threads are ONNX Runtime's, an engine runs on the GPU"):
        Scorer(machine.path, threads=2)
    with pytest.raises(UsageError, match=r"quick.onnx: is no .engine file, and nothing else is to be trusted"):
        Scorer(machine.onnx, trust_engine=True)


# What the manifest says, before the plan is touched


@pytest.fixture
def untouched(machine: Machine) -> Machine:
    """Where the plan must not be deserialised."""
    machine.tensorrt.Runtime = None  # pyright: ignore[reportAttributeAccessIssue]
    return machine


def test_a_plan_without_its_manifest(untouched: Machine) -> None:
    manifest_path(untouched.path).unlink()
    error = refusal(untouched.path)
    assert type(error) is DamagedModelError
    assert str(error).startswith(f"{untouched.path}: its manifest lpips_vgg_fp32_trt.engine.json is missing")


@pytest.mark.parametrize("spoil", ["truncate", "change", "rename", "empty"])
def test_a_plan_that_is_not_the_one_of_its_manifest(untouched: Machine, spoil: str, tmp_path: Path) -> None:
    data = untouched.path.read_bytes()
    if spoil == "rename":
        other = plan_file(untouched.onnx, tmp_path / "other.engine", info_of(untouched.onnx), [LARGE])
        other.rename(untouched.path)
    else:
        untouched.path.write_bytes({"truncate": data[:-1], "change": b"[" + data[1:], "empty": b""}[spoil])
    error = refusal(untouched.path)
    assert type(error) is DamagedModelError
    assert re.search(
        r"trt.engine: sha256 \w{16}… is not the \w{16}… of lpips_vgg_fp32_trt.engine.json; one of the two was changed, "
        "cut short, renamed or only half replaced: build the engine again$",
        str(error),
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null"])
def test_a_manifest_that_is_none(untouched: Machine, content: bytes) -> None:
    manifest_path(untouched.path).write_bytes(content)
    assert type(refusal(untouched.path)) is DamagedModelError


def test_the_manifest_of_a_graph_beside_a_plan(untouched: Machine) -> None:
    said = json.loads(manifest_path(untouched.path).read_text())
    manifest_path(untouched.path).write_text(json.dumps({"sha256": said["sha256"]}))
    assert "is no manifest of a plan, 'onnx' is missing" in str(refusal(untouched.path))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"tensorrt": "10.14.1.48"}, "TensorRT version: built by TensorRT 10.14.1.48 on Fake H100 (9.0), here is"),
        ({"tensorrt": "11.0.0.2"}, "TensorRT version: built by TensorRT 11.0.0.2 on Fake H100 (9.0), here is"),
        ({"gpu": "A10", "compute_capability": "8.6"}, "GPU: built by TensorRT 11.0.0.1 on A10 (8.6), here is"),
        ({"gpu": "Fake H200"}, "GPU: built by TensorRT 11.0.0.1 on Fake H200 (9.0), here is"),
        ({"tensorrt": "9", "gpu": "A10"}, "TensorRT version and GPU: built by TensorRT 9 on A10 (9.0), here is"),
        ({"tensorrt": "9", "gpu": None, "compute_capability": None}, "version: built by TensorRT 9, here is"),
        ({"gpu": None, "compute_capability": "8.9"}, "GPU: built by TensorRT 11.0.0.1, here is"),
        ({"tensorrt": "11.1.0.0", "version_compatible": True}, "TensorRT version: built by TensorRT 11.1.0.0 on Fake"),
        ({"tensorrt": "10", "hardware_compatible": True}, "TensorRT version: built by TensorRT 10 on Fake H100 (9.0)"),
        ({"gpu": "A10", "version_compatible": True}, "GPU: built by TensorRT 11.0.0.1 on A10 (9.0), here is"),
    ],
)
def test_a_plan_for_another_machine_says_what_differs(untouched: Machine, said: dict, words: str) -> None:
    error = refusal(untouched.plan(**said), trust_engine=True)
    assert type(error) is ForeignModelError
    assert words in str(error)
    assert str(error).endswith("11.0.0.1 on Fake H100 (9.0); build it again with lpips-export --engine")


@pytest.mark.parametrize(
    "said",
    [
        {"gpu": None, "compute_capability": None},
        {"gpu": "A10", "compute_capability": "8.6", "hardware_compatible": True},
        {"tensorrt": "10.12.0.36", "version_compatible": True},
        {"tensorrt": "9.9", "version_compatible": True},
    ],
)
def test_a_plan_for_other_machines_too(machine: Machine, said: dict) -> None:
    assert Scorer(machine.plan(**said), trust_engine=True).score(*images(1, 20, 20)) > 0


def test_a_plan_that_runs_host_code_must_be_trusted(machine: Machine) -> None:
    machine.plan(version_compatible=True)
    error = refusal(machine.path)
    assert type(error) is UsageError
    assert "is a version-compatible plan" in str(error)
    assert "trust_engine=True or --trust-engine" in str(error)
    Engine(machine.path, trust_engine=True)


def test_host_code_that_the_manifest_does_not_speak_of_is_not_run(machine: Machine) -> None:
    error = refusal(machine.plan(plan={"host_code": True}), trust_engine=True)
    assert type(error) is ProviderError
    assert str(error) == f"{machine.path}: TensorRT cannot read the plan: engine_host_code_allowed is not set"


@pytest.mark.parametrize(
    ("flavour", "module", "said"),
    [
        ("tensorrt", "tensorrt", r"TensorRT, which built .*; pip install 'lpips-runtime\[tensorrt\]' \("),
        (
            "tensorrt-rtx",
            "tensorrt_rtx_bindings",
            r"TensorRT-RTX, which .*; pip install 'lpips-runtime\[tensorrt-rtx\]'",
        ),
        (
            "tensorrt",
            "cuda.bindings.runtime",
            r"cuda-python is not installed, .*; pip install 'lpips-runtime\[tensorrt\]",
        ),
    ],
)
def test_a_library_that_is_not_installed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, flavour: str, module: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # pyright: ignore[reportArgumentType]
    error = refusal(machine.plan(flavour=flavour))
    assert type(error) is ProviderError
    assert re.match(said, str(error))


def test_the_other_flavour_is_the_same_but_for_its_names(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", FakeTensorRT(machine.cuda, "1.7.1.116"))
    said = {"flavour": "tensorrt-rtx", "tensorrt": "1.7.1.116", "gpu": None, "compute_capability": None}
    with Scorer(machine.plan(**said), provider="tensorrt-rtx:1") as scorer:
        assert scorer.score(*images(1, 20, 20)) > 0
        runtime = scorer.provenance["runtime"]
    assert (runtime["provider"], runtime["tensorrt-rtx"], runtime["device"]) == ("tensorrt-rtx", "1.7.1.116", 1)


# What TensorRT finds in the plan


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("deserialize_cuda_engine", "TensorRT cannot read the plan: it is too old (by years)."),
        ("create_execution_context", "TensorRT cannot set the plan up: it is too old (by years)."),
    ],
)
def test_nothing_where_something_was_asked_for(machine: Machine, call: str, said: str) -> None:
    words = "IRuntime::x: Error Code 1: Serialization (it is too old (by years). In throwUnless at /_src/x.cpp:48)"
    machine.tensorrt.fail[call] = words
    error = refusal(machine.path)
    assert type(error) is ProviderError
    assert str(error) == f"{machine.path}: {said}"


def test_what_the_bindings_raise_is_an_error_of_ours(machine: Machine) -> None:
    machine.tensorrt.fail["Runtime"] = "pybind11::init(): factory function returned nullptr"
    error = refusal(machine.path)
    assert type(error) is ProviderError
    assert str(error) == (f"{machine.path}: TensorRT cannot start: pybind11::init(): factory function returned nullptr")
    assert isinstance(error.__cause__, ProviderError)


def test_too_little_memory_for_the_plan(machine: Machine) -> None:
    machine.tensorrt.fail["create_execution_context"] = "OutOfMemory (Requested size was 9 bytes.)"
    assert "(Requested size was 9 bytes.); score fewer or smaller images at once, or end" in str(refusal(machine.path))


@pytest.mark.parametrize(
    "changed",
    [{"net": "alex", "min_size": 31}, {"net": "squeeze", "min_size": 17}, {"input": "uint8"}, {"min_size": 15}],
)
def test_a_plan_of_another_graph_than_its_manifest_says(machine: Machine, changed: dict) -> None:
    error = refusal(machine.plan(info=replace(info_of(machine.onnx), **changed)))
    assert type(error) is DamagedModelError
    assert str(error).endswith("; build it again with lpips-export --engine")


@pytest.mark.parametrize(("name", "kind"), [("reference", "UINT8"), ("distance", "HALF"), ("depth_3", "HALF")])
def test_a_plan_whose_tensors_have_other_types(machine: Machine, name: str, kind: str) -> None:
    error = refusal(machine.plan(plan={"dtypes": {name: kind}}))
    assert type(error) is DamagedModelError
    assert "its tensors are not those that its metadata promises (vgg, pair, float32)" in str(error)


def test_a_plan_of_half_a_pair(machine: Machine, models: Models) -> None:
    error = refusal(machine.plan(onnx=models("alex_features")))
    assert type(error) is UsageError
    assert "is the 'features' graph of a split export, the 'pair' graph is needed here" in str(error)


@pytest.mark.parametrize("profiles", [[LARGE], [SMALL, LARGE], []])
def test_a_plan_of_other_profiles_than_its_manifest_says(machine: Machine, profiles: list[Profile]) -> None:
    sides = [(profile.min, profile.opt, profile.max) for profile in profiles]
    error = refusal(machine.plan(SMALL, plan={"profiles": sides}))
    assert type(error) is DamagedModelError
    assert "its profiles for reference, [" in str(error)


def test_an_engine_that_admits_no_probe_is_opened_without(machine: Machine) -> None:
    Engine(machine.plan(LARGE))
    assert machine.tensorrt.runs == []
    Engine(machine.plan(LARGE, SMALL))
    assert machine.tensorrt.runs == [(1, 3, 31, 31)]


# Profiles


def test_the_first_profile_that_takes_all_pairs_at_once_is_taken(machine: Machine) -> None:
    with Scorer(machine.plan(SMALL, LARGE, TALL)) as scorer:
        machine.tensorrt.runs.clear()
        for count, height, width in ((4, 64, 64), (5, 64, 64), (1, 20, 20), (2, 200, 20), (1, 64, 65)):
            scorer.score(*images(count, height, width))
    assert machine.tensorrt.profiles_set == [1, 0, 2, 1]
    assert [shape[0] for shape in machine.tensorrt.runs] == [4, 5, 1, 2, 1]


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((9, 20, 20), [3, 3, 3]),
        ((10, 20, 20), [4, 3, 3]),
        ((9, 64, 64), [5, 4]),
        ((4, 200, 20), [2, 2]),
        ((7, 300, 32), [3, 2, 2]),
    ],
)
def test_more_pairs_than_a_profile_takes_are_run_in_parts(
    machine: Machine, shape: tuple[int, int, int], parts: list[int]
) -> None:
    pair = images(*shape)
    with Scorer(machine.plan(SMALL, LARGE, TALL)) as scorer, Scorer(machine.onnx, provider="cpu") as session:
        machine.tensorrt.runs.clear()
        found, expected = scorer.detail(*pair), session.detail(*pair)
    assert [shape[0] for shape in machine.tensorrt.runs] == parts
    np.testing.assert_array_equal(found.distance, expected.distance)
    np.testing.assert_array_equal(found.layers, expected.layers)
    np.testing.assert_array_equal(found.map, expected.map)


@pytest.mark.parametrize("shape", [(1, 16, 129), (1, 65, 63), (1, 200, 20), (5, 301, 20), (40, 200, 33)])
def test_images_outside_every_profile_are_refused(machine: Machine, shape: tuple[int, int, int]) -> None:
    with Scorer(machine.plan(SMALL, LARGE, TALL)) as scorer:
        machine.tensorrt.runs.clear()
        with pytest.raises(ShapeError) as caught:
            scorer.score(*images(*shape))
        assert machine.tensorrt.runs == []
        assert str(caught.value) == (
            f"lpips_vgg_fp32_trt.engine is not built for {'x'.join(map(str, shape))} (pairs x height x width), it "
            "takes 1x16x16 to 4x64x64 or 1x64x64 to 8x128x128 or 2x200x16 to 3x300x32; build it for more with --min "
            "and --max, or score with the .onnx file"
        )
        assert scorer.score(*images(1, 20, 20)) > 0


def test_pairs_that_no_equal_parts_suit_are_refused(machine: Machine) -> None:
    with Scorer(machine.plan(Profile((4, 20, 20), (4, 20, 20), (4, 20, 20)))) as scorer:
        assert scorer.score(*images(8, 20, 20)).shape == (8,)  # pyright: ignore[reportAttributeAccessIssue]
        for count in (3, 5, 7):
            with pytest.raises(ShapeError, match=f"is not built for {count}x20x20"):
                scorer.score(*images(count, 20, 20))


# Running


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("set_optimization_profile_async", "TensorRT does not take profile 1: no more"),
        ("set_input_shape", "TensorRT does not take reference of shape (5, 3, 64, 64): no more"),
        ("set_tensor_address", "TensorRT does not take reference: no more"),
        ("get_tensor_shape", "TensorRT does not know the shape of distance, only (-1,): no more"),
        ("execute_async_v3", "TensorRT fails: no more"),
    ],
)
def test_what_tensorrt_refuses_is_an_error_once(machine: Machine, call: str, said: str) -> None:
    pair = images(5, 64, 64)
    with Scorer(machine.plan(SMALL, LARGE)) as scorer, Scorer(machine.onnx, provider="cpu") as session:
        machine.tensorrt.fail[call] = "no more"
        with pytest.raises(ProviderError) as caught:
            scorer.score(*pair)
        assert str(caught.value) == f"{machine.path}: {said}"
        machine.tensorrt.fail.clear()
        np.testing.assert_array_equal(scorer.score(*pair), session.score(*pair))


def test_each_failure_is_told_in_its_own_words(machine: Machine) -> None:
    with Scorer(machine.path) as scorer:
        for words in ("no more", "never again"):
            machine.tensorrt.fail["execute_async_v3"] = words
            with pytest.raises(ProviderError, match=f"TensorRT fails: {words}$"):
                scorer.score(*images(1, 20, 20))


def test_a_run_that_fails_leaves_no_work_in_the_stream(machine: Machine) -> None:
    """Else the copies that it began would meet the buffers of the next run."""
    with Scorer(machine.path) as scorer:
        machine.tensorrt.fail["execute_async_v3"] = "no more"
        with pytest.raises(ProviderError):
            scorer.score(*images(1, 20, 20))
        assert list(machine.cuda.streams.values()) == [[]]


@pytest.mark.parametrize(
    "call",
    ["cudaSetDevice", "cudaGetDevice", "cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaStreamSynchronize"],
)
def test_every_code_of_cudas_is_looked_at(machine: Machine, call: str) -> None:
    pair = images(2, 60, 60)
    with Scorer(machine.path) as scorer, Scorer(machine.onnx, provider="cpu") as session:
        machine.cuda.fail[call] = CudaError.cudaErrorIllegalAddress
        with pytest.raises(ProviderError) as caught:
            scorer.score(*pair)
        assert str(caught.value) == f"{machine.path}: CUDA's {call} failed: an illegal memory access was encountered"
        machine.cuda.fail.clear()
        np.testing.assert_array_equal(scorer.score(*pair), session.score(*pair))


@pytest.mark.parametrize(
    "call", ["cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaSetDevice", "cudaStreamCreateWithFlags"]
)
def test_every_code_on_opening_is_looked_at(machine: Machine, call: str) -> None:
    machine.cuda.fail[call] = CudaError.cudaErrorIllegalAddress
    error = refusal(machine.path)
    assert type(error) is ProviderError
    assert f"CUDA's {call} failed: an illegal memory access was encountered" in str(error)


def test_out_of_device_memory_says_so_and_smaller_images_go_on(machine: Machine) -> None:
    machine.cuda.memory = 1_000_000
    with Scorer(machine.plan(SMALL, LARGE)) as scorer:
        with pytest.raises(ProviderError) as caught:
            scorer.score(*images(8, 128, 128))
        assert str(caught.value) == (
            f"{machine.path}: CUDA's cudaMalloc failed: out of memory; score fewer or smaller images at once, or end "
            "what else uses the GPU's memory"
        )
        # TensorRT asks for the last error too, and would take this one for its own.
        assert machine.cuda.unseen == 0
        # Smaller than those before, whose buffers made room for the ones that failed, and larger.
        for side in (20, 60):
            assert scorer.score(*images(1, side, side)) > 0


def test_memory_is_reused_and_grows_with_the_largest_images_only(machine: Machine) -> None:
    tensors = 2 + 2 + 5
    with Scorer(machine.path) as scorer:
        scorer.score(*images(4, 64, 64))
        before = dict(machine.cuda.allocated)
        for seed in range(5):
            scorer.score(*images(4, 64, 64, seed))
            scorer.detail(*images(1 + seed % 4, 20 + seed, 64, seed))
        assert machine.cuda.allocated == before
        assert len(machine.cuda.live) == 2 * tensors
        assert before["cudaStreamCreateWithFlags"] == 1


def everything_is_given_back(machine: Machine) -> bool:
    gc.collect()
    return not (machine.cuda.live or machine.cuda.streams or machine.tensorrt.made)


def test_closing_gives_everything_back(machine: Machine) -> None:
    with Scorer(machine.path, provider="tensorrt:1") as scorer:
        scorer.score(*images(4, 64, 64))
        assert machine.tensorrt.made == ["_Runtime", "_Engine", "_Context"]
    assert everything_is_given_back(machine)
    with pytest.raises(UsageError, match="this Scorer is closed"):
        scorer.score(*images(1, 20, 20))


@pytest.mark.parametrize(
    "call", ["Runtime", "deserialize_cuda_engine", "create_execution_context", "set_input_shape", "execute_async_v3"]
)
def test_an_engine_that_cannot_be_opened_gives_everything_back(machine: Machine, call: str) -> None:
    """While the error lives, whose frames would keep the plan on the GPU: a notebook keeps its last one."""
    machine.tensorrt.fail[call] = "no more"
    error = refusal(machine.path)
    assert type(error) is ProviderError
    assert everything_is_given_back(machine)


def test_an_engine_that_is_not_what_it_says_gives_everything_back(machine: Machine) -> None:
    error = refusal(machine.plan(info=replace(info_of(machine.onnx), net="alex", min_size=31)))
    assert type(error) is DamagedModelError
    assert everything_is_given_back(machine)


def test_a_buffer_of_which_one_side_could_not_be_had_is_given_back(machine: Machine) -> None:
    with Scorer(machine.path) as scorer:
        machine.cuda.fail["cudaMallocHost"] = CudaError.cudaErrorMemoryAllocation
        for _ in range(2):
            with pytest.raises(ProviderError):
                scorer.score(*images(4, 64, 64))
    machine.cuda.fail.clear()
    assert everything_is_given_back(machine)


def test_a_scorer_that_is_closed_while_it_scores_ends_well(machine: Machine) -> None:
    scorer = Scorer(machine.path)
    inside, closed = threading.Event(), threading.Event()
    wait = machine.cuda.cudaStreamSynchronize

    def slow(stream: Any) -> Any:
        inside.set()
        assert closed.wait(10)
        return wait(stream)

    machine.cuda.cudaStreamSynchronize = slow
    with ThreadPoolExecutor(1) as pool:
        distance = pool.submit(scorer.score, *images(1, 20, 20))
        assert inside.wait(10)
        scorer.close()
        closed.set()
        assert distance.result() > 0
    del distance
    assert everything_is_given_back(machine)


def test_an_engine_that_is_still_open_at_the_end_is_given_back(machine: Machine) -> None:
    """By a finaliser that runs before the modules are taken apart."""
    script = f"""
import sys, atexit
from fake_tensorrt import FakeCuda, FakeTensorRT
cuda = sys.modules["cuda.bindings.runtime"] = FakeCuda()
library = sys.modules["tensorrt"] = FakeTensorRT(cuda)
atexit.register(lambda: print("left:", len(cuda.live), len(cuda.streams), library.made))
import numpy as np
from lpips_runtime import Scorer
scorer = Scorer({str(machine.path)!r})
image = np.zeros((20, 20, 3), np.uint8)
print(scorer.score(image, image), len(cuda.live))
"""
    path = [str(Path(__file__).parent.parent / "support"), *sys.path]
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}\n{script}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "0.0 18\nleft: 0 0 []\n"


# The command


def test_the_command_scores_with_an_engine(machine: Machine, run: Run) -> None:
    _, expected, _ = run("a.png", "b.png", "-m", machine.onnx, "--provider", "cpu")
    assert run("a.png", "b.png", "-m", machine.path) == (0, expected, "")
    code, out, _ = run("a.png", "b.png", "c.png", "-m", machine.path, "--format", "json", "--provider", "tensorrt:1")
    made = json.loads(out)
    assert code == 0
    assert (made["runtime"]["provider"], made["runtime"]["device"], made["runtime"]["gpu"]) == ("tensorrt", 1, GPU)
    assert made["model"]["onnx"] == machine.onnx.name


def test_the_command_finds_nothing_wrong_with_half_precision_on_a_gpu(machine: Machine, run: Run) -> None:
    machine.plan(info=replace(info_of(machine.onnx), precision="fp16"))
    assert run("a.png", "b.png", "-m", machine.path)[2] == ""


def test_the_command_says_what_an_engine_is(machine: Machine, run: Run) -> None:
    code, out, err = run("--info", "-m", machine.path)
    assert (code, err) == (0, "")
    assert f"runtime.tensorrt: {VERSION}\n" in out
    assert f"runtime.gpu: {GPU}\n" in out
    assert "model.onnx: quick.onnx\n" in out


def test_the_command_opens_what_is_trusted(machine: Machine, run: Run) -> None:
    machine.plan(version_compatible=True)
    code, out, err = run("a.png", "b.png", "-m", machine.path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {machine.path}: is a version-compatible plan")
    assert run("a.png", "b.png", "-m", machine.path, "--trust-engine")[0] == 0
    code, _, err = run("a.png", "b.png", "-m", machine.onnx, "--trust-engine")
    assert (code, err.count("\n")) == (2, 1)


def test_pairs_that_the_engine_is_not_built_for_fail_one_by_one(machine: Machine, run: Run) -> None:
    machine.plan(Profile((1, 16, 16), (1, 36, 36), (1, 36, 39)))  # the command's images are 40x36
    code, out, err = run("a.png", "b.png", "-m", machine.path)
    assert (code, out) == (3, "")
    assert err.startswith("error: a.png, b.png: lpips_vgg_fp32_trt.engine is not built for 1x40x36 (pairs x height")


def test_every_error_of_an_engine_that_is_its_files_is_a_model_error(machine: Machine) -> None:
    assert issubclass(ForeignModelError, ModelError)
    assert refusal(machine.plan(tensorrt="1")).exit_code == 3
