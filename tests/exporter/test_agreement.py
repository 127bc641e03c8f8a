"""The figures that an INT8 graph is judged by, on numbers whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lpips_export.agreement import SMALL, Agreement, agreement


def judged(expected: list[float], found: list[float], source: list[int] | None = None, kinds: str = "") -> Agreement:
    count = len(expected)
    return agreement(np.array(expected), np.array(found), np.array(source or [0] * count), list(kinds or "a" * count))


def test_the_error_is_the_mean_relative_one_of_what_a_person_could_see() -> None:
    found = judged([0.1, 0.2, 0.4, 0.005, 0.0], [0.11, 0.19, 0.4, 0.007, 0.001])
    assert found.pairs == 5
    assert found.error == pytest.approx((0.1 + 0.05 + 0) / 3)
    assert found.worst == pytest.approx(0.1)
    assert (found.small, found.small_error) == (2, pytest.approx(0.002))


def test_a_distance_at_the_bound_is_judged_relatively() -> None:
    found = judged([SMALL, 0.5], [SMALL * 1.5, 0.5])
    assert (found.small, found.small_error) == (0, 0.0)
    assert found.worst == pytest.approx(0.5)


def test_without_a_distance_of_a_person_s_notice_there_is_nothing_to_judge_by() -> None:
    with pytest.raises(ValueError, match=r"^no distance reaches 0\.01$"):
        judged([0.0099, 0.0], [0.5, 0.5])


# Ranks 1..5 against 1 2 3 5 4: sum of squared rank differences 2, one of ten pairs discordant.
# Spearman 1 - 6 * 2 / (5 * 24) = 0.9; Kendall (9 - 1) / 10 = 0.8.
def test_rank_agreement_is_spearman_s_and_kendall_s() -> None:
    found = judged([0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.6, 0.55])
    assert found.spearman == pytest.approx(0.9)
    assert found.kendall == pytest.approx(0.8)
    backwards = judged([0.1, 0.2, 0.3], [0.3, 0.2, 0.1])
    assert (backwards.spearman, backwards.kendall) == (pytest.approx(-1), pytest.approx(-1))


def test_what_is_constant_orders_nothing() -> None:
    """A graph whose backbone died says 0 of every pair: that is a figure, neither a warning nor NaN in a manifest."""
    for found in (judged([0.1, 0.2, 0.3], [0.0] * 3), judged([0.2] * 3, [0.1, 0.2, 0.3])):
        assert (found.spearman, found.kendall) == (0.0, 0.0)


def test_small_pairs_count_for_the_ranks() -> None:
    assert judged([0.001, 0.002, 0.5], [0.002, 0.001, 0.5]).spearman == pytest.approx(0.5)


# One reference, distances 1 < 2 < 3 of three distorted images: of their three pairs...
@pytest.mark.parametrize(
    ("found", "changed"),
    [
        ([0.1, 0.2, 0.3], 0),
        ([0.2, 0.1, 0.3], 1),  # ... two change places
        ([0.3, 0.2, 0.1], 3),
        ([0.2, 0.2, 0.3], 1),  # ... an order is lost in a tie
        ([0.2, 0.2, 0.2], 3),
    ],
)
def test_triplets_are_the_pairs_of_distorted_images_whose_order_changes(found: list[float], changed: int) -> None:
    assert judged([0.1, 0.2, 0.3], found).triplets == pytest.approx(changed / 3)


def test_an_order_made_up_from_a_tie_is_a_change_and_a_tie_that_stays_is_none() -> None:
    assert judged([0.2, 0.2], [0.2, 0.3]).triplets == 1
    assert judged([0.2, 0.2], [0.3, 0.3]).triplets == 0


def test_images_of_different_references_are_no_triplet() -> None:
    found = judged([0.1, 0.2, 0.1, 0.2], [0.1, 0.15, 0.4, 0.3], source=[0, 0, 1, 1])
    assert found.triplets == 1 / 2, "two pairs, of which the second changes; across references four would"
    assert judged([0.1, 0.2], [0.2, 0.1], source=[0, 1]).triplets == 0


def test_each_distortion_has_its_own_error_relative_where_it_can_be() -> None:
    found = judged([0.1, 0.2, 0.002, 0.3, 0.004], [0.11, 0.2, 0.003, 0.33, 0.004], kinds="aabbc")
    assert found.by_distortion == {
        "a": {"pairs": 2, "small": 0, "error": pytest.approx(0.05)},
        "b": {"pairs": 1, "small": 1, "error": pytest.approx(0.1), "small_error": pytest.approx(0.001)},
        "c": {"pairs": 0, "small": 1, "small_error": 0},
    }
    assert list(found.as_dict()) == [
        *("pairs", "error", "worst", "small", "small_error", "spearman", "kendall", "triplets", "by_distortion")
    ]


def test_float32_distances_are_compared_in_float64() -> None:
    expected = np.array([1.0, 1.0 + 2**-23, 2.0], np.float32)
    found = agreement(expected, expected * np.float32(3), np.zeros(3, int), ["a"] * 3)
    assert found.error == pytest.approx(2, abs=1e-6)
    assert isinstance(found.error, float), "as JSON takes it"


# Distances apart from one another by more than rounding, in any order.
distances = arrays.arrays(
    np.float64, st.integers(3, 30), elements=st.integers(1, 400).map(lambda n: n / 100), unique=True
)


@given(expected=distances, scale=st.floats(0.05, 20))
def test_a_scaled_copy_is_off_by_its_scale_and_orders_everything_alike(expected: np.ndarray, scale: float) -> None:
    found = agreement(expected, expected * scale, np.zeros(len(expected), int), ["a"] * len(expected))
    assert found.error == pytest.approx(abs(scale - 1), abs=1e-9)
    assert found.worst == pytest.approx(abs(scale - 1), abs=1e-9)
    assert found.spearman == pytest.approx(1)
    assert found.kendall == pytest.approx(1)
    assert found.triplets == 0


@given(expected=distances, seed=st.integers(0, 2**32 - 1))
def test_figures_do_not_depend_on_the_order_of_the_pairs(expected: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, source = expected * rng.uniform(0.5, 1.5, len(expected)), rng.integers(0, 3, len(expected))
    order = rng.permutation(len(expected))
    kinds = ["a"] * len(expected)
    one = agreement(expected, found, source, kinds)
    other = agreement(expected[order], found[order], source[order], kinds)
    assert one.triplets == other.triplets
    figures = ("error", "worst", "spearman", "kendall")
    assert [getattr(one, name) for name in figures] == pytest.approx([getattr(other, name) for name in figures])
    assert 0 <= one.triplets <= 1
    assert one.error <= one.worst
