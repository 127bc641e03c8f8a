"""The OpenVINO plugin itself, where it is installed and finds a device: Intel's CPUs, as of 1.8."""

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from score_command import command, save

from lpips_runtime import Scorer
from lpips_runtime.errors import LpipsError
from lpips_runtime.providers import PROVIDERS, find_device

Models = Callable[[str], Path]


# Of the session, so that it comes before the models.
@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """What OpenVINO computes on here, and skips these tests where that is nothing."""
    try:
        return find_device(PROVIDERS["openvino"], 0).faster
    except LpipsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [2,3,72,88,3]: smooth fields, and the same with noise that a person would see."""
    y, x = np.mgrid[:72, :88]
    fields = [128 + 90 * np.sin(x / (5 + k)) * np.cos(y / (7 + k)) for k in range(3)]
    smooth = np.stack([np.stack([np.roll(field, 9 * c, 1) for c in range(3)], -1) for field in fields])
    noise = np.random.default_rng(0).normal(0, 12, smooth.shape)
    return np.stack([smooth, smooth + noise]).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("name", ["alex", "alex_uint8", "squeeze_baseline"])
def test_float32_stays_float32(name: str, models: Models, images: np.ndarray) -> None:
    found, expected = (Scorer(models(name), provider=provider).detail(*images) for provider in ("openvino", "cpu"))
    for one, other in ((found.distance, expected.distance), (found.layers, expected.layers), (found.map, expected.map)):
        assert np.abs(one - other).max() <= 1e-5 * max(1, np.abs(other).max())
    assert np.abs(found.distance / expected.distance - 1).max() < 1e-5


def test_fast_math_is_bfloat16_and_says_so(models: Models, images: np.ndarray, device: str) -> None:
    if not device:
        pytest.skip("this CPU is not faster in bfloat16")
    scorer = Scorer(models("alex"), fast_math=True)
    runtime = scorer.provenance["runtime"]
    assert (runtime["provider"], runtime["fast_math"], runtime["types"]) == ("openvino", True, "bfloat16")
    error = np.abs(scorer.score(*images) / Scorer(models("alex"), provider="cpu").score(*images) - 1)
    # Some of 8 bits: neither float32 nor nonsense.
    assert 1e-5 < error.max() < 0.1


def test_one_scorer_in_many_threads_and_pickled(models: Models, images: np.ndarray) -> None:
    scorer = Scorer(models("alex"), provider="openvino")
    expected = scorer.score(*images)
    found = list[Any]()
    threads = [threading.Thread(target=lambda: found.append(scorer.score(*images))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(one, expected) for one in found)
    assert np.array_equal(pickle.loads(pickle.dumps(scorer)).score(*images), expected)


def test_the_command_prints_nothing_but_its_own(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("-m", models("alex"), save("a.png", 0), save("b.png", 1), "--provider", "openvino")
    assert ended.returncode == 0
    assert float(ended.stdout) > 0
    assert all(line.startswith("note: ") for line in ended.stderr.splitlines())


def test_threads_are_taken(models: Models, images: np.ndarray) -> None:
    one = Scorer(models("alex"), provider="openvino", threads=1).score(*images)
    assert one == pytest.approx(Scorer(models("alex"), provider="openvino", threads=2).score(*images), rel=1e-5)
