"""Whether artifact B measures what A does, for a team to gate a change of model, precision or provider on.

    python -m benchmarks compare artifacts/lpips_alex_fp32.onnx artifacts/lpips_alex_int8.onnx
    python -m benchmarks compare A B --photos DIR --max-difference 0.01 --json report.json

Pictures, of --photos or cut from photographs that come with scikit-learn and matplotlib, are distorted, each in five
kinds of five strengths, and scored by both. B passes if the mean relative difference over the pairs that A finds 0.01
or more apart is within --max-difference, and Spearman's correlation over all pairs is at least --min-rank. Told too:
which 2AFC decisions change (of each two distorted versions of a picture, the nearer), and the time of both, taken in
turns; p is of Wilcoxon's signed-rank test on the ratios round by round. Time does not decide.

Exit code 0: the same within the limits; 1: not; 2: the call was wrong; 3: an image or a pair could not be scored.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lpips_export.agreement import SMALL, Agreement, agreement
from lpips_export.int8 import rank_limit
from lpips_runtime import Scorer
from lpips_runtime.errors import InputError
from lpips_runtime.output import open_output, reported
from lpips_runtime.say import say

from .judged import Judged
from .photographs import cut_photographs, graded
from .precision import latencies, photographs
from .streaming import distances
from .turns import quartiles

__all__ = ["Timing", "differences", "main", "misses", "timing"]

# What a p-value must be below for a difference in time to be called one.
_SIGNIFICANT = 0.01

# The least p of Wilcoxon's test in n rounds is 2 / 2^n.
_ROUNDS = 8

# scipy finds 0.9999999999999999 between an array and itself.
_ROUNDING = 1e-12

# Of the images whose scoring is timed, pixels.
_SIDE = 256


@dataclass(frozen=True)
class Timing:
    """Seconds of a pair, medians; ratio: B's by A's time, round by round, quartiles; p: that they do not differ."""

    a: float
    b: float
    ratio: tuple[float, float, float]
    p: float
    rounds: int

    @property
    def verdict(self) -> str:
        if self.p >= _SIGNIFICANT:
            return "no significant difference"
        return "B is slower" if self.ratio[1] > 1 else "B is faster"


def timing(seconds: np.ndarray) -> Timing:
    """seconds: float64 [2, rounds], of A and B in the same round."""
    ratio = seconds[1] / seconds[0]
    logarithms = np.log(ratio)
    test: Any = stats.wilcoxon
    p = float(test(logarithms).pvalue) if logarithms.any() else 1.0
    a, b = np.median(seconds, axis=1).tolist()
    low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75]).tolist()
    return Timing(a, b, (low, middle, high), p, len(ratio))


def differences(expected: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """How B's distances lie about A's: relative, of pairs of SMALL or more; `signed` is their mean with its sign."""
    judged = expected >= SMALL
    signed = found[judged] / expected[judged] - 1
    median, ninety, ninety_nine = np.quantile(np.abs(signed), [0.5, 0.9, 0.99]).tolist()
    return {"signed": float(signed.mean()), "median": median, "90 %": ninety, "99 %": ninety_nine}


def misses(how: Agreement, max_difference: float, min_rank: float) -> list[str]:
    """Which limits are not met, with both numbers; none if B passes. A figure that is no number meets no limit."""
    found = []
    if not how.error <= max_difference:
        found.append(f"mean relative difference {how.error:.3%}, the limit is {max_difference:.3%}")
    if not how.spearman >= min_rank - _ROUNDING:
        found.append(f"Spearman {how.spearman:.6f}, the limit is {min_rank:.6f}")
    return found


def both(options: argparse.Namespace, sets: Sequence[Judged]) -> tuple[list[np.ndarray], np.ndarray, list[dict]]:
    """Distances [pairs] and seconds [2, rounds] of both artifacts, and what made them."""
    paths = (options.a, options.b)
    scorers = [Scorer(path, provider=options.provider, threads=options.threads) for path in paths]
    found = [np.concatenate([distances(scorer, each, say).ravel() for each in sets]) for scorer in scorers]
    if failed := sum(int((~np.isfinite(each)).sum()) for each in found):
        raise InputError(f"{failed} pairs could not be scored, as said above; the models cannot be compared")
    return found, latencies(scorers, _SIDE, options.rounds), [scorer.provenance for scorer in scorers]


def compared(options: argparse.Namespace, sets: Sequence[Judged]) -> int:
    (expected, found), seconds, made_by = both(options, sets)
    pairs = [pair for each in sets for pair in each.pairs]
    source = np.unique([str(reference) for reference, _ in pairs], return_inverse=True)[1]
    if expected.max() < SMALL:
        raise InputError(
            f"{options.a}: no distorted picture is {SMALL:g} from its original, so that there is nothing to judge by; "
            "give other --photos, or another A"
        )
    how = agreement(expected, found, source, [each.name for each in sets for _ in each.pairs])
    spread, took = differences(expected, found), timing(seconds)
    triplets = int(sum(math.comb(count, 2) for count in np.bincount(source)))
    missed = misses(how, options.max_difference, options.min_rank)
    report: dict[str, Any] = {
        "same": not missed,
        "misses": missed,
        "limits": {"max_difference": options.max_difference, "min_rank": options.min_rank},
        "a": made_by[0],
        "b": made_by[1],
        "pictures": int(source.max()) + 1,
        "agreement": how.as_dict(),
        "differences": spread,
        "decisions": {"triplets": triplets, "changed": round(how.triplets * triplets)},
        "latency": {
            "side": _SIDE,
            "rounds": took.rounds,
            "seconds": {"a": took.a, "b": took.b},
            "ratio": {"quartiles": took.ratio, "p": took.p, "verdict": took.verdict},
        },
    }
    if options.json:
        with open_output(options.json, atomic=True) as file, reported(options.json):
            file.write(json.dumps(report, indent=2) + "\n")
    _print(options, report, how, took, seconds)
    print("\nthe same within the limits" if not missed else f"\nnot the same: {'; '.join(missed)}")
    return 1 if missed else 0


def _print(
    options: argparse.Namespace, report: dict[str, Any], how: Agreement, took: Timing, seconds: np.ndarray
) -> None:
    for name in ("a", "b"):
        model, runtime = report[name]["model"], report[name]["runtime"]
        print(f"{name.upper()}: {model['file']}, {model['net']} {model['precision']}, {runtime['provider']}")
    print(f"{how.pairs} pairs of {report['pictures']} pictures, {how.small} of them below {SMALL:g}\n")
    spread, decisions = report["differences"], report["decisions"]
    kind, worst = how.worst_kind()
    of_small = f"{how.small_error:.2g}" if how.small else "no pair"
    rows = [
        ("mean relative difference", f"{how.error:.3%}", f"{options.max_difference:.3%}"),
        ("the same, with its sign", f"{spread['signed']:+.3%}", ""),
        (
            "half, 90 %, 99 % of the pairs within",
            ", ".join(f"{spread[at]:.2%}" for at in ("median", "90 %", "99 %")),
            "",
        ),
        ("largest relative difference", f"{how.worst:.2%}", ""),
        ("worst kind of distortion", f"{kind}, {worst:.2%}", ""),
        (f"largest difference below {SMALL:g}", of_small, ""),
        ("Spearman", f"{how.spearman:.6f}", f"{options.min_rank:.6f}"),
        ("Kendall", f"{how.kendall:.5f}", ""),
        ("2AFC decisions changed", f"{decisions['changed']} of {decisions['triplets']} ({how.triplets:.2%})", ""),
        (f"ms a pair of {_SIDE}x{_SIDE}, A and B", f"{took.a * 1e3:.2f}, {took.b * 1e3:.2f}", ""),
        ("B's time by A's (quartiles)", quartiles(seconds[1] / seconds[0]), ""),
        (f"p of {took.rounds} rounds", f"{took.p:.2g}: {took.verdict}", ""),
    ]
    print("| | found | limit |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="the artifact that is trusted")
    parser.add_argument("b", metavar="B", help="the one in question")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photographs like those that will be scored")
    parser.add_argument("--side", type=int, default=224, metavar="PIXELS", help="of crops of --photos (default 224)")
    parser.add_argument("--max-difference", type=float, default=0.025, metavar="X", help="(default 0.025)")
    parser.add_argument("--min-rank", type=float, metavar="R", help="(default 1 - X/80, as INT8 must have)")
    parser.add_argument("--provider", default="auto", metavar="NAME", help="of both (default auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: the cores)")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="of timing (default 30)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    options = parser.parse_args(arguments)
    if not options.max_difference >= 0:
        parser.error("--max-difference must be 0 or more")
    if options.min_rank is None:
        options.min_rank = rank_limit(options.max_difference)
    if not -1 <= options.min_rank <= 1:
        parser.error("--min-rank must be from -1 to 1")
    if options.rounds < _ROUNDS or options.side < 1:
        parser.error(f"--rounds must be at least {_ROUNDS}, since fewer cannot show a difference, and --side 1")
    pictures = photographs(options.photos, options.side, 1) if options.photos else list(cut_photographs())
    if not pictures:
        print(f"error: {options.photos}: no image of {options.side} pixels or more", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return compared(options, graded(pictures, Path(folder)))
