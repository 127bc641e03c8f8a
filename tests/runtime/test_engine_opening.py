"""Plans that must not be opened: what their manifest says, what is installed here, what TensorRT finds in them."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from engine_machine import LARGE, SMALL, Machine, images, info_of, refusal
from fake_trt_runtime import FakeTensorRT, plan_file

from lpips_runtime import Scorer, engine
from lpips_runtime.engine import Engine
from lpips_runtime.errors import DamagedModelError, ForeignModelError, ProviderError, UsageError
from lpips_runtime.gpu import Gpu
from lpips_runtime.models import manifest_path
from lpips_runtime.plan import Profile

Models = Callable[[str], Path]


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


def test_a_plan_for_all_gpus_from_ampere_on_is_not_for_an_older_one(
    untouched: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "find_gpu", lambda number: Gpu(number, "Fake T4", "7.5"))
    error = refusal(untouched.plan(hardware_compatible=True))
    assert type(error) is ForeignModelError
    assert "is for another GPU: built by TensorRT 11.0.0.1 on Fake H100 (9.0), here is 11.0.0.1 on Fake T4" in str(
        error
    )


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
