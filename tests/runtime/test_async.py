"""One Scorer from many threads at once, from event loops, and in other processes."""

import asyncio
import gc
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from lpips_runtime import Scorer
from lpips_runtime.errors import ImageFileError, ShapeError, UsageError
from lpips_runtime.workers import Workers, cores

SIZES = [(31, 31), (40, 64), (97, 50), (128, 128)]
Task = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def scorer(models: Callable[[str], Path]) -> Iterator[Scorer]:
    with Scorer(models("alex")) as scorer:
        yield scorer


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    """Pairs and batches of several sizes, mixed."""
    chance = np.random.default_rng(3)
    made = []
    for k in range(48):
        shape = (*([1 + k % 3] if k % 2 else []), *SIZES[k % len(SIZES)], 3)
        reference = chance.integers(0, 256, shape, dtype=np.uint8)
        made.append((reference, np.clip(reference + chance.integers(-40, 40, shape), 0, 255).astype(np.uint8)))
    return made


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lpips-")]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# Threads


def test_many_threads_get_the_numbers_that_one_gets(scorer: Scorer, tasks: list[Task]) -> None:
    expected = [scorer.score(*task) for task in tasks]
    with ThreadPoolExecutor(16) as pool:
        for _ in range(3):
            assert_same(list(pool.map(lambda task: scorer.score(*task), tasks)), expected)


def test_streams_in_many_threads(scorer: Scorer, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for side in (32, 40):
        for k in range(4):
            pixels = chance.integers(0, 256, (side, side, 3), dtype=np.uint8)
            PILImage.fromarray(pixels).save(tmp_path / f"{side}_{k}.png")
    pairs = [
        (tmp_path / f"{side}_{a}.png", tmp_path / f"{side}_{b}.png")
        for a in range(4)
        for b in range(4)
        for side in (32, 40)
    ]
    expected = list(scorer.stream(pairs))
    assert not any(result.error for result in expected)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda _: list(scorer.stream(pairs)), range(6))) == [expected] * 6


def test_closing_while_others_score_is_their_typed_error(models: Callable[[str], Path], tasks: list[Task]) -> None:
    scorer = Scorer(models("alex"))
    expected = [scorer.score(*task) for task in tasks]
    scored = threading.Semaphore(0)

    def score_on() -> tuple[int, UsageError]:
        count = 0
        while True:
            try:
                np.testing.assert_array_equal(scorer.score(*tasks[count % 48]), expected[count % 48])
            except UsageError as error:
                return count, error
            count += 1
            scored.release()

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(score_on) for _ in range(8)]
        for _ in range(20):
            scored.acquire()
        scorer.close()
        ended = [future.result(timeout=60) for future in running]
    assert sum(count for count, _ in ended) >= 20
    assert {str(error) for _, error in ended} == {"this Scorer is closed"}


# Event loops


def test_awaited_scores_are_those_of_score(scorer: Scorer, tasks: list[Task]) -> None:
    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(scorer.ascore(*task) for task in tasks * 3))

    found = asyncio.run(all_at_once())
    assert_same(found, [scorer.score(*task) for task in tasks] * 3)
    assert isinstance(found[0], float)
    # Another loop, the same Scorer.
    assert_same(asyncio.run(all_at_once()), found)


def test_awaited_detail_is_that_of_detail(scorer: Scorer, tasks: list[Task]) -> None:
    found, expected = asyncio.run(scorer.adetail(*tasks[1])), scorer.detail(*tasks[1])
    np.testing.assert_array_equal(found.layers, expected.layers)
    np.testing.assert_array_equal(found.map, expected.map)


def test_files_ranges_and_errors_are_as_with_score(scorer: Scorer, tasks: list[Task], tmp_path: Path) -> None:
    reference, distorted = tasks[0]
    PILImage.fromarray(reference).save(tmp_path / "a.png")
    x = reference.transpose(2, 0, 1) / np.float32(255)

    async def call() -> None:
        assert await scorer.ascore(tmp_path / "a.png", distorted) == scorer.score(reference, distorted)
        assert await scorer.ascore(x, x, value_range=(0, 1)) == 0
        with pytest.raises(ShapeError, match="must state their range"):
            await scorer.ascore(x, x)
        with pytest.raises(ImageFileError, match="no such file"):
            await scorer.adetail(tmp_path / "gone.png", distorted)

    asyncio.run(call())


class Slow(Scorer):
    """Scores once it is let."""

    def __init__(self, model: Path) -> None:
        super().__init__(model)
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.calls = 0

    def score(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        self.entered.release()
        assert self.go.wait(60)
        return super().score(*arguments, **options)


def test_the_loop_goes_on_while_it_scores(models: Callable[[str], Path], tasks: list[Task]) -> None:
    scorer = Slow(models("alex"))

    async def call() -> Any:
        scoring = asyncio.ensure_future(scorer.ascore(*tasks[0]))
        while not scorer.entered.acquire(blocking=False):
            await asyncio.sleep(0.001)
        # The loop is here while the score is on its way.
        scorer.go.set()
        return await scoring

    assert asyncio.run(call()) == super(Slow, scorer).score(*tasks[0])


def test_what_is_cancelled_before_its_turn_is_not_scored(models: Callable[[str], Path], tasks: list[Task]) -> None:
    scorer = Slow(models("alex"))

    async def call() -> None:
        scoring = [asyncio.ensure_future(scorer.ascore(*tasks[0])) for _ in range(cores() + 5)]
        for _ in range(cores()):
            while not scorer.entered.acquire(blocking=False):
                await asyncio.sleep(0.001)
        for future in (*scoring[:1], *scoring[-5:]):  # one that is being scored, and all that wait
            future.cancel()
        # The loop hands a cancellation on to the threads in its next turns.
        await asyncio.sleep(0.01)
        scorer.go.set()
        results = await asyncio.gather(*scoring, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [
            True,
            *[False] * (cores() - 1),
            *[True] * 5,
        ]
        assert await scorer.ascore(*tasks[0]) == super(Slow, scorer).score(*tasks[0])

    asyncio.run(call())
    assert scorer.calls == cores() + 1


def test_awaiting_a_closed_scorer_is_a_typed_error(models: Callable[[str], Path], tasks: list[Task]) -> None:
    scorer = Slow(models("alex"))

    async def call() -> list[Any]:
        scoring = [asyncio.ensure_future(scorer.ascore(*tasks[0])) for _ in range(cores() + 3)]
        while not scorer.entered.acquire(blocking=False):
            await asyncio.sleep(0.001)
        scorer.close()
        scorer.go.set()
        with pytest.raises(UsageError, match="this Scorer is closed"):
            await scorer.ascore(*tasks[0])
        with pytest.raises(UsageError, match="this Scorer is closed"):
            await scorer.adetail(*tasks[0])
        return await asyncio.gather(*scoring, return_exceptions=True)

    # Those that waited for their turn end too.
    assert {str(found) for found in asyncio.run(call())} == {"this Scorer is closed"}


def test_work_is_never_left_to_threads_that_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may close the Scorer at any moment of the call."""
    found, running_loop = Workers(), asyncio.get_running_loop

    def closed_meanwhile() -> asyncio.AbstractEventLoop:
        found.let_go()
        return running_loop()

    async def call() -> str:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "get_running_loop", closed_meanwhile)
            work = asyncio.ensure_future(found.call(lambda: threading.current_thread().name))
            await asyncio.sleep(0)
        return await work

    assert asyncio.run(call()).startswith("lpips-worker")


def test_threads_end_with_the_scorer(models: Callable[[str], Path], tasks: list[Task]) -> None:
    for end in (Scorer.close, lambda scorer: None):
        scorer = Scorer(models("alex"))
        asyncio.run(scorer.ascore(*tasks[0]))
        assert workers()
        end(scorer)
        del scorer
        gc.collect()
        deadline = time.monotonic() + 10
        while workers() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not workers()


# Processes


def test_a_pickled_scorer_scores_and_awaits(scorer: Scorer, tasks: list[Task]) -> None:
    expected = asyncio.run(scorer.ascore(*tasks[0]))
    copy = pickle.loads(pickle.dumps(scorer))
    assert asyncio.run(copy.ascore(*tasks[0])) == copy.score(*tasks[0]) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_scorer_scores_and_awaits_in_a_forked_process(scorer: Scorer, tasks: list[Task]) -> None:
    expected = asyncio.run(scorer.ascore(*tasks[0]))  # its threads are left behind
    child = os.fork()
    if not child:
        signal.alarm(30)
        os._exit(0 if scorer.score(*tasks[0]) == asyncio.run(scorer.ascore(*tasks[0])) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
