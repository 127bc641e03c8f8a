"""Opened plans: which profile takes what, what fails in a run, and what becomes of memory."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_machine import LARGE, SMALL, TALL, Machine, everything_is_given_back, images, info_of, refusal
from fake_cuda import CudaError

from lpips_runtime import Scorer
from lpips_runtime.errors import DamagedModelError, ProviderError, ShapeError, UsageError
from lpips_runtime.plan import Profile

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
from fake_trt_runtime import FakeCuda, FakeTensorRT
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
