"""Scores on data whose answer is known by hand, and where bootstraps lie."""

import numpy as np
import pytest
import torch

from benchmarks.measures import MEASURES, average_precision, in_order, interval, two_afc
from lpips_export.reference import lpips


def test_2afc_is_the_share_of_people_that_the_distance_sides_with() -> None:
    distances = np.array([[0.1, 0.2], [0.3, 0.2], [0.5, 0.5], [0.1, 0.9]])
    # 0.8 took p0; 0.6 took p1; it cannot decide; 0.0 took p0.
    assert two_afc(distances, np.array([0.2, 0.6, 1.0, 1.0])) == pytest.approx((0.8 + 0.6 + 0.5 + 0.0) / 4)


def test_2afc_of_people_who_agree_is_one_with_the_right_order_and_nothing_with_the_wrong_one() -> None:
    distances = np.array([[0.1, 0.2], [0.2, 0.1]])
    assert two_afc(distances, np.array([0.0, 1.0])) == 1
    assert two_afc(distances, np.array([1.0, 0.0])) == 0


class Loader:
    """What the reference's scoring reads: one batch, images being their distances."""

    def __init__(self, **columns: np.ndarray) -> None:
        self.columns = {name: torch.from_numpy(column) for name, column in columns.items()}

    def load_data(self) -> list[dict[str, torch.Tensor]]:
        return [self.columns]


def test_scores_are_those_of_the_reference() -> None:
    rng = np.random.default_rng(1)
    distances, same = rng.random((60, 2)).round(1), rng.integers(0, 4, 60) / 3
    columns = Loader(ref=np.zeros(60), p0=distances[:, 0], p1=distances[:, 1], judge=same, same=same)
    expected, _ = lpips.score_2afc_dataset(columns, lambda _, image: image)
    assert two_afc(distances, same) == pytest.approx(expected, abs=1e-12)
    # Without ties: their order is nobody's choice there.
    columns = Loader(p0=rng.permutation(60) / 60.0, p1=np.zeros(60), same=same)
    expected, _ = lpips.score_jnd_dataset(columns, lambda image, _: image)
    assert average_precision(columns.columns["p0"].numpy()[:, None], same) == pytest.approx(expected, abs=1e-12)


def test_precision_by_hand() -> None:
    # Found at 1 of 1 and at 2 of 3.
    assert average_precision(np.array([[0.1], [0.2], [0.3]]), np.array([1.0, 0.0, 1.0])) == pytest.approx(
        0.5 * 1 + 0.5 * 2 / 3
    )
    assert average_precision(np.array([[0.1], [0.2]]), np.zeros(2)) == 0


def test_order_of_strengths_counts_pairs_of_levels() -> None:
    strengths = np.tile(np.arange(1.0, 4.0), (2, 1))
    # All three pairs in order; one of three the wrong way round.
    assert in_order(np.array([[1.0, 2, 3], [1, 3, 2]]), strengths) == pytest.approx((1 + 1 / 3) / 2)
    assert in_order(-strengths, strengths) == -1
    assert in_order(np.zeros((2, 3)), strengths) == 0


def test_distance_that_grows_as_opinion_falls_agrees_with_it() -> None:
    distances, opinion = np.array([[0.1], [0.2], [0.9]]), np.array([5.0, 4.0, 1.0])
    spearman, pearson = (measure.of(distances, opinion) for measure in MEASURES["opinion"])
    assert spearman == pytest.approx(1)
    assert pearson == pytest.approx(-np.corrcoef(distances[:, 0], opinion)[0, 1])
    assert [measure.of(np.ones((3, 1)), opinion) for measure in MEASURES["opinion"]] == [0, 0]


def mean(distances: np.ndarray, _: np.ndarray) -> float:
    return float(distances.mean())


def test_interval_of_a_mean_is_two_standard_errors_to_each_side() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(3, 2, (400, 1))
    low, high = interval(mean, values, values, np.arange(400), 2000)
    error = values.std() / np.sqrt(400)
    assert (low - values.mean()) / error == pytest.approx(-1.96, abs=0.15)
    assert (high - values.mean()) / error == pytest.approx(1.96, abs=0.15)


def test_rows_of_one_reference_count_as_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(3)
    values = np.repeat(rng.normal(3, 2, 50), 20)[:, None]
    apart = np.subtract(*interval(mean, values, values, np.arange(1000), 500))
    together = np.subtract(*interval(mean, values, values, np.repeat(np.arange(50), 20), 500))
    assert together / apart == pytest.approx(np.sqrt(20), rel=0.15)


def test_interval_is_the_same_each_time_and_has_no_width_where_nothing_varies() -> None:
    values, said = np.random.default_rng(4).random((30, 1)), np.zeros(30)
    assert interval(mean, values, said, np.arange(30), 50) == interval(mean, values, said, np.arange(30), 50)
    assert interval(mean, np.ones((30, 1)), said, np.arange(30), 50) == (1, 1)
