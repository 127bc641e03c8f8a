"""Who is asked what, when and in which order: with processes that are played, and with one that hangs."""

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import turns
from benchmarks.job import Job, images
from benchmarks.turns import take_turns

JOB = Job("alex", "none.onnx", 32, 2, 1)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was asked of whom. A clock goes on by a second with every question; a pause of 50 ms is seen as a word."""
    asked: list[tuple[str, str]] = []
    pids = itertools.count(100)

    class Worker:
        def __init__(self, name: str, job: Job, pair: Path) -> None:
            self.name, self.pid, self.began = name, next(pids), turns.time.perf_counter()
            assert np.array_equal(np.load(pair), np.stack(images(job)))

        def ask(self, word: str, patience: float) -> dict:
            asked.append((self.name, word))
            if (self.name, word) == ("late", "go"):
                raise RuntimeError("gave no answer")
            return {
                "ready": {"distances": [0.5, 0.25], "seconds": 0.1},
                "warm up": {"calls": 2},
                "go": {"seconds": [0.001, 0.003, 0.002, 0.009], "distances": [0.5, 0.2]},
                "memory": {"bytes": 77},
                "device": {"seconds": [], "transfer": []},
            }[word]

        def close(self) -> None:
            asked.append((self.name, "close"))

    class Others:
        def __init__(self, pids: Any) -> None:
            asked.append(("others", " ".join(map(str, pids))))

        def share(self) -> float:
            asked.append(("others", "share"))
            return 0.125

    clock: Callable[[], float] = lambda: float(len(asked))  # noqa: E731
    monkeypatch.setattr(turns, "_Worker", Worker)
    monkeypatch.setattr(turns, "Others", Others)
    monkeypatch.setattr(turns.time, "perf_counter", clock)
    monkeypatch.setattr(turns.time, "monotonic", clock)
    monkeypatch.setattr(turns.time, "sleep", lambda seconds: asked.append(("pause", f"{seconds:g}")))
    return asked


def _subjects(names: Iterable[str]) -> dict[str, tuple[str, Job]]:
    return {name: (name, JOB) for name in names}


def _rounds(asked: list[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Of three subjects the order in each round."""
    order = [name for name, word in asked if word == "go"]
    return [tuple(order[at : at + 3]) for at in range(0, len(order), 3)]


def test_every_round_asks_each_once_in_an_order_that_changes(played: list[tuple[str, str]]) -> None:
    found = take_turns(_subjects("abc"), 12)
    rounds = _rounds(played)
    assert len(rounds) == 12
    assert {frozenset(order) for order in rounds} == {frozenset("abc")}
    assert len(set(rounds)) > 3
    assert {name: len(of.seconds) for name, of in found.items()} == dict.fromkeys("abc", 12)


def test_there_is_a_pause_before_every_turn(played: list[tuple[str, str]]) -> None:
    take_turns(_subjects("abc"), 4)
    before = [played[at - 1] for at, (_, word) in enumerate(played) if word == "go"]
    assert before == [("pause", "0.05")] * 12


def test_all_are_ready_before_anything_counts_and_others_are_watched_meanwhile(
    played: list[tuple[str, str]],
) -> None:
    found = take_turns(_subjects("abc"), 4)
    words = [word for _, word in played]
    assert played[:6] == [(name, word) for name in "abc" for word in ("ready", "warm up")]
    assert played[6] == ("others", "100 101 102")
    assert played.index(("others", "share")) > max(at for at, word in enumerate(words) if word == "go")
    assert {of.others for of in found.values()} == {0.125}


def test_figures_are_those_of_the_answers(played: list[tuple[str, str]]) -> None:
    of = take_turns({"a": ("a", JOB)}, 3)["a"]
    assert of.calls == [0.001, 0.003, 0.002, 0.009] * 3
    assert of.seconds == [pytest.approx(0.0025)] * 3
    # The first, two to warm up, and one at the beginning of each turn.
    assert of.uncounted == 1 + 2 + 3
    assert (of.first, of.peak) == (0.1, 77)
    assert of.distances.tolist() == [0.5, 0.25]
    assert [later.tolist() for later in of.later] == [[0.5, 0.2]] * 3


def test_the_first_number_is_timed_from_the_start_of_its_process(played: list[tuple[str, str]]) -> None:
    found = take_turns(_subjects("ab"), 1)
    # One question between its start and its answer.
    assert [of.started for of in found.values()] == [1.0, 1.0]


def test_no_round_begins_after_its_time_but_the_first(played: list[tuple[str, str]]) -> None:
    take_turns(_subjects("abc"), 10, until=-1)
    assert len(_rounds(played)) == 1
    played.clear()
    # All are ready after 6 questions and one of others; a round takes six, the pauses among them.
    take_turns(_subjects("abc"), 10, until=14)
    assert len(_rounds(played)) == 2


def test_one_that_fails_in_a_turn_is_absent_and_asked_no_more(played: list[tuple[str, str]]) -> None:
    found = take_turns(_subjects(("a", "late", "c")), 5)
    assert found["late"].absent == "gave no answer"
    assert played.count(("late", "go")) == 1
    assert played.count(("a", "go")) == 5
    assert [name for name, word in played if word == "close"] == ["a", "late", "c"]


def test_when_all_are_absent_no_round_is_told(played: list[tuple[str, str]]) -> None:
    told: list[str] = []
    take_turns({"late": ("late", JOB)}, 5, told.append)
    assert told == ["late", "round 1 of 5"]


def test_one_that_hangs_is_ended_and_the_others_go_on(
    exported: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(request.config.rootpath)
    stopped: list[int] = []

    def start(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        if not stopped:
            os.kill(self.pid, signal.SIGSTOP)
            stopped.append(self.pid)

    original = turns._Worker.__init__
    monkeypatch.setattr(turns._Worker, "__init__", start)
    job = Job("alex", str(exported(net="alex", quick=True)[0]), 48, 1, 1)
    found = take_turns(dict.fromkeys(("hangs", "works"), ("ours", job)), 1, patience=20)
    assert found["hangs"].absent == "gave no answer in 20 s and was ended"
    assert len(found["works"].seconds) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(stopped[0], 0)


def test_one_that_has_had_its_time_takes_no_further_turn_and_keeps_what_it_has(
    played: list[tuple[str, str]],
) -> None:
    """A question takes a second of the played clock: ready, warm up, and as many turns as are left."""
    found = take_turns(_subjects("ab"), 10, patience=6)
    assert {name: len(of.seconds) for name, of in found.items()} == {"a": 4, "b": 4}
    assert {of.absent for of in found.values()} == {""}


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; input(); sys.exit('first line\\nno such thing')", "no such thing"),
        (
            "import os, sys; print('the cache is cold', file=sys.stderr, flush=True); input(); os.kill(os.getpid(), 9)",
            "was ended by signal 9; its last words: the cache is cold",
        ),
    ],
)
def test_a_process_that_ends_gives_its_last_words(program: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen

    def other(call: list[str], **options: Any) -> Any:
        return popen([call[0], "-c", program], **options)

    monkeypatch.setattr(turns.subprocess, "Popen", other)
    found = take_turns({"a": ("ours", JOB)}, 1)
    assert found["a"].absent == words


def test_what_a_library_prints_is_no_answer(
    exported: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """On Python's stdout and on the system's, before an answer and in a call."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nimport numpy\nload = numpy.load\n"
        "def noisy(path):\n    print('oneDNN: AMX', flush=True)\n    os.write(1, b'{}\\n')\n    return load(path)\n"
        "numpy.load = noisy\n"
    )
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    job = Job("alex", str(exported(net="alex", quick=True)[0]), 48, 1, 1)
    found = take_turns({"ours": ("ours", job)}, 1)["ours"]
    assert found.absent == ""
    assert len(found.calls) == 4
