"""A Scorer with a plan, run by a TensorRT and a CUDA that are fakes: what it scores, on which GPU, and the command."""

import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_machine import LARGE, SMALL, Machine, images, info_of, refusal
from fake_cuda import GPU, CudaError
from fake_trt_runtime import VERSION
from score_command import Run

from lpips_runtime import Scorer, __version__
from lpips_runtime.engine import Engine
from lpips_runtime.errors import ForeignModelError, ModelError, ProviderError, UsageError
from lpips_runtime.models import manifest_path
from lpips_runtime.plan import Profile

Models = Callable[[str], Path]


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
