"""Subjects that take turns: what is counted, what they answer, and what becomes of one that cannot run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.job import Job, images
from benchmarks.sets import SETS, sampled
from benchmarks.speed import SAME, verdict
from benchmarks.subjects import REUSE, SUBJECTS
from benchmarks.turns import Turns, asked, quartiles, take_turns
from lpips_runtime import Scorer


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Subjects run as modules of the benchmarks, which are found from the root of the project."""
    monkeypatch.chdir(request.config.rootpath)


def test_subjects_take_turns_and_answer_for_the_same_images(exported: Callable[..., list[Path]]) -> None:
    job = Job("alex", str(exported(net="alex", quick=True)[0]), 48, 2, 1)
    found = take_turns({"ours": ("ours", job)}, 3)["ours"]
    assert found.absent == ""
    assert len(found.seconds) == 3
    assert all(second > 0 for second in found.seconds)
    with Scorer(job.model, provider="cpu", threads=1) as scorer:
        assert np.array_equal(found.distances, scorer.score(*images(job)))


def test_one_that_cannot_run_is_absent_with_its_reason_and_the_others_go_on(
    exported: Callable[..., list[Path]],
) -> None:
    job = Job("alex", str(exported(net="alex", quick=True)[0]), 48, 1, 1)
    found = take_turns({name: (name, job) for name in ("broken", "ours")}, 2)
    assert "broken" in found["broken"].absent
    assert found["broken"].seconds == []
    assert found["ours"].absent == ""
    assert len(found["ours"].seconds) == 2


def test_process_of_a_subject_starts_without_what_subjects_import() -> None:
    """The seconds until the first distance begin after these imports: whoever needs one of them would have it free."""
    code = (
        "import sys, numpy; before = set(sys.modules); import benchmarks.turns; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    subjects = {"asyncio", "lpips_export", "lpips_runtime", "onnxruntime", "openvino", "packaging", "PIL", "torch"}
    assert "benchmarks" in ended.stdout.split()
    assert not subjects & set(ended.stdout.split())


def test_both_ways_of_comparing_a_set_give_the_distances_of_its_pairs(exported: Callable[..., list[Path]]) -> None:
    job = Job("alex", str(exported(net="alex", split=True)[0]), 48, 6, 1)
    pixels, _ = images(job)
    for which, count in (("all pairs", 15), ("one against the others", 5)):
        with Scorer(job.model, provider="cpu", threads=1) as scorer:
            expected = [float(scorer.score(a, b)) for a, b in SETS[which](list(pixels))]
        assert len(expected) == count
        plain, ours = (REUSE[which, way].title for way in ("pair by pair", "reusing"))
        found = take_turns({name: (name, job) for name in (plain, ours)}, 1)
        assert (found[plain].absent, found[ours].absent) == ("", "")
        np.testing.assert_allclose(found[ours].distances, expected, rtol=1e-6)
        np.testing.assert_allclose(found[plain].distances, list(sampled(expected)), rtol=1e-6)


def test_of_many_pairs_a_dozen_stand_for_all() -> None:
    assert sampled(range(276)) == range(0, 276, 23)
    assert sampled(range(5)) == range(5)


def test_what_is_asked_is_met_by_the_median() -> None:
    assert asked([1.0, 2.0, 30.0], 2.0) == "2.0"
    assert asked([1.0, 1.9, 30.0], 2.0) == "2.0, not met"
    assert asked([1.0], None) == "-"


def test_images_are_the_same_in_every_process_and_differ_within_a_pair() -> None:
    job = Job("alex", "", 40, 3, 1)
    a, b = images(job)
    assert a.shape == b.shape == (3, 40, 40, 3)
    assert a.dtype == b.dtype == np.uint8
    assert all(np.array_equal(one, other) for one, other in zip((a, b), images(job), strict=True))
    assert (a != b).mean() > 0.5


def test_quartiles_are_the_median_and_what_lies_around_it() -> None:
    assert quartiles(np.array([4.0, 1.0, 2.0, 3.0, 10.0])) == "3.00 (2.00 to 4.00)"


@pytest.mark.parametrize(
    ("name", "factor", "expected"),
    [
        ("ours", 1 + SAME / 2, "0.500"),
        ("ours", 1.02, "WRONG by 2.00%"),
        ("compile-bf16", 1.02, "2.00% off"),
    ],
)
def test_a_fast_wrong_number_is_called_wrong(name: str, factor: float, expected: str) -> None:
    truth = np.array([0.5])
    shown = verdict(name, Turns(distances=truth * factor), truth)
    assert expected in shown
    assert ("WRONG" in shown) == (SUBJECTS[name].exact and factor > 1 + SAME)
