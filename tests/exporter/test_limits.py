"""How far features may be from the reference's, by precision."""

import numpy as np
import pytest

from lpips_export.limits import FEATURE_LIMITS


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.sqrt((values**2).sum(1, keepdims=True))


def features(seed: int) -> np.ndarray:
    """Float64 [2, 64, 9, 11] of unit length, as after a ReLU."""
    return unit(np.maximum(np.random.default_rng(seed).normal(size=(2, 64, 9, 11)), 0))


def error(precision: str, found: np.ndarray) -> float:
    """Beside its limit: above 1 they are refused."""
    error_of, largest = FEATURE_LIMITS[precision]
    return error_of(found, features(0)) / largest


WRONG = {
    "of another image": features(1),
    "channels in another order": features(0)[:, ::-1],
    "not of unit length": 3 * features(0),
    "halved": features(0) / 2.1,
    "turned on their side": features(0)[:, :, ::-1],
}


@pytest.mark.parametrize("precision", FEATURE_LIMITS)
@pytest.mark.parametrize("found", WRONG.values(), ids=WRONG)
def test_wrong_features_are_refused(precision: str, found: np.ndarray) -> None:
    assert error(precision, features(0)) == 0
    assert error(precision, found) > 1


@pytest.mark.parametrize(("precision", "off"), [("fp32", 1.1e-5), ("fp16", 5.1e-3)])
def test_of_float_a_single_value_counts(precision: str, off: float) -> None:
    found = features(0)
    found[1, 7, 3, 4] += off
    assert error(precision, found) > 1


def test_of_int8_a_few_dark_positions_may_point_anywhere() -> None:
    found = features(0)
    found[:, :, :2] = features(1)[:, :, :2]
    assert np.abs(found - features(0)).max() > 0.3
    assert 0.1 < error("int8", found) < 1
