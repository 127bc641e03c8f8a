"""What distances are worth by what people, or the strength of a distortion, say: scores, and how sure they are.

2AFC and JND are scored as by `lpips` 0.1.4 (trainer.py: score_2afc_dataset, score_jnd_dataset).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["MEASURES", "Measure", "interval"]

# Distances [rows, pairs of a row], what was said of them -> one number.
Statistic = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Measure:
    """title: as tables name it. of: the statistic, 1 at best. percent: shown so, as the papers do."""

    title: str
    of: Statistic
    percent: bool = False

    def shown(self, value: float) -> str:
        return f"{value * 100:.1f}" if self.percent else f"{value:.4f}"


def two_afc(distances: np.ndarray, preferred: np.ndarray) -> float:
    """The share of people that choose as the distance does, halves where it cannot decide.

    distances: [N, 2], of p0 and p1 from the reference. preferred: [N], share of people that took p1 for the nearer.
    """
    first, second = distances.T
    agreeing = np.where(first < second, 1 - preferred, np.where(second < first, preferred, 0.5))
    return float(agreeing.mean())


def average_precision(distances: np.ndarray, same: np.ndarray) -> float:
    """Area below precision over recall, as VOC takes it since 2010, of finding pairs that look the same by distance.

    distances: [N, 1]. same: [N], share of people that saw no difference; at least one must not be 0.
    """
    same = same[np.argsort(distances[:, 0], kind="stable")]
    found = np.cumsum(same)
    precision = found / np.arange(1, len(same) + 1)
    # The best precision at this recall or a higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * same).sum() / found[-1]) if found[-1] else 0.0


def _correlation(measure: Callable[..., Any], one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:  # orders nothing; scipy warns and says NaN
        return 0.0
    return float(measure(one, other).statistic)


def _with_opinion(measure: Callable[..., Any]) -> Statistic:
    """Between mean opinion, larger for better, and the distance with its sign changed: 1 is full agreement."""
    return lambda distances, opinion: _correlation(measure, -distances[:, 0], opinion)


def in_order(distances: np.ndarray, strengths: np.ndarray) -> float:
    """Kendall's tau-a between distance and strength within each row, their mean: 1 if all grow together.

    distances, strengths: [N, levels].
    """
    first, second = np.triu_indices(distances.shape[1], 1)
    grown = np.sign(distances[:, second] - distances[:, first]) * np.sign(strengths[:, second] - strengths[:, first])
    return float(grown.mean())


def with_strength(distances: np.ndarray, strengths: np.ndarray) -> float:
    """Spearman's correlation between distance and strength over all rows: pictures differ in what they hide."""
    return _correlation(stats.spearmanr, distances.ravel(), strengths.ravel())


MEASURES: Mapping[str, Sequence[Measure]] = {
    "2afc": (Measure("2AFC, %", two_afc, percent=True),),
    "jnd": (Measure("JND mAP, %", average_precision, percent=True),),
    "opinion": (Measure("Spearman", _with_opinion(stats.spearmanr)), Measure("Pearson", _with_opinion(stats.pearsonr))),
    "strength": (Measure("order kept", in_order), Measure("Spearman", with_strength)),
}


def interval(
    of: Statistic, distances: np.ndarray, said: np.ndarray, reference: np.ndarray, rounds: int, seed: int = 0
) -> tuple[float, float]:
    """Where 95 % of `rounds` bootstraps of the statistic lie: percentiles 2.5 and 97.5.

    distances: [N, pairs of a row]; said: [N] or more; reference: int [N]. References are drawn with replacement, each
    with all its rows: those of one picture are no independent evidence.
    """
    order = np.argsort(reference, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(reference[order])) + 1)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        chosen = rng.integers(len(rows), size=len(rows))
        at = order[chosen] if len(rows) == len(order) else np.concatenate([rows[number] for number in chosen])
        found.append(of(distances[at], said[at]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
