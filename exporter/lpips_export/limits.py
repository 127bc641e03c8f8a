"""How far a graph may be from the PyTorch reference.

Limits are those of the design: for float32 |error| <= min(1e-5 max(1, d), 1e-7 + 1e-3 d) for distance, layers and the
map, where d is the reference's value: the first part holds large distances to six digits, the second keeps a graph
that returns 0 for nearly equal images from passing.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lpips_runtime.contract import ModelInfo

__all__ = ["FEATURE_LIMITS", "LIMITS", "FeatureLimit", "limits_of"]


def _float32_limit(truth: np.ndarray) -> np.ndarray:
    magnitude = np.abs(truth)
    return np.minimum(1e-5 * np.maximum(1, magnitude), 1e-7 + 1e-3 * magnitude)


def _half_limit(truth: np.ndarray) -> np.ndarray:
    magnitude = np.abs(truth)
    return np.minimum(1e-3 * np.maximum(1, magnitude), 1e-6 + 0.5 * magnitude)


def _half_map_limit(truth: np.ndarray) -> np.ndarray:
    peak = truth.max(axis=(1, 2), keepdims=True)
    return np.broadcast_to(5e-3 * np.maximum(1, peak), truth.shape)


def _int8_limit(truth: np.ndarray) -> np.ndarray:
    # A guard against a graph that is broken: how well it agrees on photographs is measured and limited in int8.py.
    return 0.02 + 0.25 * np.abs(truth)


def _int8_map_limit(truth: np.ndarray) -> np.ndarray:
    return np.broadcast_to(0.05 + 0.25 * truth.max(axis=(1, 2), keepdims=True), truth.shape)


# precision, or precision and weighting -> quantity -> largest admitted |error|, elementwise, of the reference's values.
LIMITS: Mapping[str, Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    "fp32": {"distance": _float32_limit, "layers": _float32_limit, "map": _float32_limit},
    "fp16": {"distance": _half_limit, "layers": _half_limit, "map": _half_map_limit},
    # Without lin weights distances are some ten times as large.
    "fp16 baseline": {
        "distance": lambda truth: 5 * _half_limit(truth),
        "layers": lambda truth: 5 * _half_limit(truth),
        "map": lambda truth: 5 * _half_map_limit(truth),
    },
    "int8": {"distance": _int8_limit, "layers": _int8_limit, "map": _int8_map_limit},
}


def limits_of(info: ModelInfo) -> str:
    """The key of LIMITS that holds for an artifact."""
    baseline = f"{info.precision} baseline"
    return baseline if info.lin == "baseline" and baseline in LIMITS else info.precision


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


def _mean_length(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((found - expected) ** 2).sum(1)).mean())


class FeatureLimit(NamedTuple):
    """error: unit-length features [N, C, h, w], the graph's and the reference's -> how far they are apart, as this
    precision counts it. largest: what it may be."""

    error: Callable[[np.ndarray, np.ndarray], float]
    largest: float


# INT8 has an average: where a position is nearly dark, its few levels of 256 point anywhere, and a single one was 0.41
# off in a graph whose distances were fine. On the validation cases the average length of the error was 0.30 at most
# (squeeze, noise; alex 0.27); of the features of two different images it is about 1.
FEATURE_LIMITS = {
    "fp32": FeatureLimit(_largest, 1e-5),
    "fp16": FeatureLimit(_largest, 5e-3),
    "int8": FeatureLimit(_mean_length, 0.5),
}
