"""How well a quantised graph agrees with the float32 one on pairs of photographs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["SMALL", "Agreement", "agreement"]

# Below this float32 distance an error is given in absolute terms: a difference that hardly anybody sees.
SMALL = 0.01

# Of one kind of distortion, for its mean error to say something.
_LEAST_PAIRS = 3


@dataclass(frozen=True)
class Agreement:
    """error: mean relative error over the pairs whose float32 distance is at least SMALL; worst: the largest of them.
    small: how many pairs lie below, small_error: the largest absolute error among those. spearman, kendall: rank
    agreement over all pairs, 0 where one side is constant and so orders nothing. triplets: share of the pairs of
    distorted images of one reference whose order changes. by_distortion: mean relative error (absolute where no pair
    reaches SMALL) of each kind."""

    pairs: int
    error: float
    worst: float
    small: int
    small_error: float
    spearman: float
    kendall: float
    triplets: float
    by_distortion: dict[str, dict[str, float]]

    def worst_kind(self) -> tuple[str, float]:
        """The kind of distortion of the largest mean relative error, of those with three pairs or more."""
        judged = {name: kind["error"] for name, kind in self.by_distortion.items() if kind["pairs"] >= _LEAST_PAIRS}
        return max(judged.items(), key=lambda item: item[1], default=("none", 0.0))

    def kinds_not_judged(self) -> list[str]:
        """The kinds of distortion that too few pairs of SMALL or more are of."""
        return [name for name, kind in self.by_distortion.items() if kind["pairs"] < _LEAST_PAIRS]

    def as_dict(self) -> dict:
        return asdict(self)


def agreement(expected: np.ndarray, found: np.ndarray, source: np.ndarray, distortion: Sequence[str]) -> Agreement:
    """Compare distances, float [P] each; source, distortion: of each pair, as in calibration.Pairs.

    Raises ValueError if no expected distance reaches SMALL: then there is nothing to be judged by.
    """
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    error = np.abs(found - expected)
    judged = expected >= SMALL
    if not judged.any():
        raise ValueError(f"no distance reaches {SMALL:g}")
    relative = error[judged] / expected[judged]
    return Agreement(
        pairs=len(expected),
        error=float(relative.mean()),
        worst=float(relative.max()),
        small=int((~judged).sum()),
        small_error=float(error[~judged].max(initial=0)),
        spearman=_rank_correlation(stats.spearmanr, expected, found),
        kendall=_rank_correlation(stats.kendalltau, expected, found),
        triplets=_changed_triplets(expected, found, source),
        by_distortion={
            name: _figures(expected, error, np.array(distortion) == name) for name in dict.fromkeys(distortion)
        },
    )


def _rank_correlation(measure: Callable[..., Any], expected: np.ndarray, found: np.ndarray) -> float:
    if np.ptp(expected) == 0 or np.ptp(found) == 0:  # scipy warns and says NaN, which is no JSON
        return 0.0
    return float(measure(expected, found).statistic)


def _figures(expected: np.ndarray, error: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    judged, small = chosen & (expected >= SMALL), chosen & (expected < SMALL)
    figures: dict[str, float] = {"pairs": int(judged.sum()), "small": int(small.sum())}
    if judged.any():
        figures["error"] = float((error[judged] / expected[judged]).mean())
    if small.any():
        figures["small_error"] = float(error[small].max())
    return figures


def _changed_triplets(expected: np.ndarray, found: np.ndarray, source: np.ndarray) -> float:
    changed = total = 0
    for reference in np.unique(source):
        for one, other in combinations(np.flatnonzero(source == reference), 2):
            before, after = expected[one] - expected[other], found[one] - found[other]
            total += 1
            changed += before * after <= 0 and before != after
    return float(changed / total) if total else 0.0
