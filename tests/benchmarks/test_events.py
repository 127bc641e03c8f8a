"""Times of a GPU: options that hold meanwhile and not after it, and none where nothing can be told a stream."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.events import cuda_options, device_seconds, transfer_seconds
from benchmarks.job import Job
from benchmarks.subjects import SUBJECTS
from lpips_runtime.providers import PROVIDERS, Device

JOB = Job("alex", "none.onnx", 64, 1, 1)
PAIR = (np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8))


def uncalled(*_: object) -> np.ndarray:
    raise AssertionError("it was called")


def _options() -> dict[str, str]:
    return dict(PROVIDERS["cuda"].options(Device(0, ""), None, False))


def test_options_are_added_to_the_providers_own_and_taken_back() -> None:
    before, row = _options(), PROVIDERS["cuda"]
    with cuda_options(user_compute_stream="7", use_tf32="2"):
        assert _options() == {**before, "user_compute_stream": "7", "use_tf32": "2"}
        with cuda_options(gpu_mem_limit="1"):
            assert _options()["user_compute_stream"] == "7"
        assert "gpu_mem_limit" not in _options()
    assert PROVIDERS["cuda"] is row
    assert _options() == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_options_are_taken_back_after_an_error_too(error: type[BaseException]) -> None:
    row = PROVIDERS["cuda"]
    with pytest.raises(error), cuda_options(user_compute_stream="7"):
        raise error
    assert PROVIDERS["cuda"] is row


def test_a_subject_without_such_a_stream_has_no_times_and_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def unmade(_: Job) -> Any:
        raise AssertionError("it was made")

    assert not SUBJECTS["plain-cuda"].on_stream
    for name in ("plain-cuda", "ours"):
        assert device_seconds(replace(SUBJECTS[name], make=unmade), JOB, uncalled, PAIR) == []


def test_there_are_none_where_torch_finds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_seconds(SUBJECTS["cuda"], JOB, uncalled, PAIR) == []
    assert transfer_seconds(SUBJECTS["cuda"], JOB) == []


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU that is played: an event's time is the square of the calls before it, which are counted here, in ms."""
    torch, calls = pytest.importorskip("torch"), []

    class Event:
        def __init__(self, **_: bool) -> None:
            self.at = 0

        def record(self, of: object) -> None:
            assert of is stream
            self.at = len(calls) ** 2

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, end: Any) -> float:
            return end.at - self.at

    stream = type("Stream", (), {"cuda_stream": 99})()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: cuda_options())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return calls


def test_calls_on_the_stream_are_counted_after_some_to_warm_up(played: list[int]) -> None:
    def make(_: Job) -> Any:
        assert _options()["user_compute_stream"] == "99"
        return lambda *_: played.append(1)

    found = device_seconds(replace(SUBJECTS["cuda"], make=make), JOB, uncalled, PAIR)
    assert len(played) == 45
    assert found == pytest.approx([(2 * number + 1) / 1000 for number in range(5, 45)])
    assert "user_compute_stream" not in _options()


def test_what_torch_computes_is_not_made_anew(played: list[int]) -> None:
    """torch takes the stream that is current: a compiled module need not be compiled again."""

    def unmade(_: Job) -> Any:
        raise AssertionError("it was made")

    def call(*_: object) -> np.ndarray:
        played.append(1)
        return np.zeros(1)

    found = device_seconds(replace(SUBJECTS["compile-cuda"], make=unmade), JOB, call, PAIR)
    assert (len(found), len(played)) == (40, 45)
