"""How well artifacts agree with people, on data sets of judged images, and with the first artifact given.

    python -m benchmarks accuracy artifacts/lpips_alex_fp32.onnx artifacts/lpips_alex_int8.onnx --data dataset
    python -m benchmarks accuracy artifacts/lpips_alex_fp32.onnx

--data is a folder of BAPPS (2AFC and JND), TID2013 or KADID-10k (mean opinions: Spearman's and Pearson's correlation
with the distance, its sign changed, no curve fitted), or a CSV file with the columns reference, distorted and mos,
larger for better, paths relative to it. Without it pictures cut from the photographs of scikit-learn and matplotlib are
distorted, each in five kinds of five strengths: printed is how well the distance keeps their order on each picture
(Kendall's tau) and on all together (Spearman's correlation).

In brackets is where 95 % of the bootstraps lie, drawn by reference image. Exit code 3 if rows could not be used.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lpips_export.agreement import SMALL, agreement
from lpips_runtime import Scorer
from lpips_runtime.contract import ModelInfo
from lpips_runtime.say import say

from .judged import LAYOUTS, Judged, judged
from .measures import MEASURES, Measure, interval
from .photographs import cut_photographs, graded
from .streaming import distances

# Lin weights v0.1, learned. Set and measure -> net -> value as shown. 2AFC: Zhang et al., The Unreasonable
# Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, "lin". TID2013: IQA-PyTorch, FR_benchmark_results.
_2AFC = "2AFC, %"
PUBLISHED: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("2afc traditional", _2AFC): {"alex": "73.9", "squeeze": "76.1", "vgg": "76.0"},
    ("2afc cnn", _2AFC): {"alex": "83.4", "squeeze": "83.5", "vgg": "82.8"},
    ("2afc superres", _2AFC): {"alex": "71.5", "squeeze": "71.1", "vgg": "70.5"},
    ("2afc deblur", _2AFC): {"alex": "61.2", "squeeze": "60.8", "vgg": "60.5"},
    ("2afc color", _2AFC): {"alex": "65.3", "squeeze": "65.3", "vgg": "62.5"},
    ("2afc frameinterp", _2AFC): {"alex": "63.2", "squeeze": "63.2", "vgg": "63.0"},
    ("mean of 6 sets", _2AFC): {"alex": "69.8", "squeeze": "70.0", "vgg": "69.2"},
    ("TID2013", "Spearman"): {"alex": "0.7445"},
}


def published(info: ModelInfo, name: str, measure: str) -> str:
    """The published value for this net, or nothing where none is known: none is for other lin weights."""
    if (info.version, info.lin) != ("0.1", "learned"):
        return ""
    return PUBLISHED.get((name, measure), {}).get(info.net, "")


def scores(sets: Sequence[Judged], found: Sequence[np.ndarray], scorer: Scorer, rounds: int) -> Iterator[str]:
    """Rows of the table of scores. found: distances of each set, NaN where there is none."""
    values: dict[Measure, dict[str, float]] = {}
    for each, distance in zip(sets, found, strict=True):
        scored = np.isfinite(distance).all(axis=1)
        data = distance[scored], each.said[scored], each.reference[:: each.width][scored]
        for measure in MEASURES[each.kind]:
            shown = "none"
            if scored.any():
                value = values.setdefault(measure, {})[each.name] = measure.of(*data[:2])
                low, high = map(measure.shown, interval(measure.of, *data, rounds))
                shown = f"{measure.shown(value)} ({low} to {high})"
            beside = published(scorer.info, each.name, measure.title)
            yield f"| {each.name} | {measure.title} | {scorer.path.name} | {shown} | {scored.sum()} | {beside} |"
    for measure, of in values.items():
        if len(of) > 1:
            # That of other sets, were they six, would be another number.
            known = all(published(scorer.info, name, measure.title) for name in of)
            name = f"mean of {len(of)} sets"
            beside = published(scorer.info, name, measure.title) if known else ""
            shown = measure.shown(float(np.mean(list(of.values()))))
            yield f"| {name} | {measure.title} | {scorer.path.name} | {shown} | | {beside} |"


def beside_first(name: str, sets: Sequence[Judged], first: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> str:
    """A row of the table of agreement: of all pairs that both scored."""
    expected, ours = (np.concatenate([each.ravel() for each in of]) for of in (first, found))
    pairs = [pair for each in sets for pair in each.pairs]
    names = [each.name for each in sets for _ in each.pairs]
    source = np.unique([str(reference) for reference, _ in pairs], return_inverse=True)[1]
    both = np.isfinite(expected) & np.isfinite(ours)
    if not both.any() or expected[both].max() < SMALL:
        return f"| {name} | {both.sum()} | no distance reaches {SMALL:g} | | | | |"
    kinds = list(itertools.compress(names, both))
    how = agreement(expected[both], ours[both], source[both], kinds)
    return (
        f"| {name} | {how.pairs} | {how.error:.2%} | {how.worst:.1%} | {how.spearman:.6f} | {how.kendall:.5f} "
        f"| {how.triplets:.3%} |"
    )


def measured(options: argparse.Namespace, sets: Sequence[Judged]) -> int:
    """Print the tables; -> how many rows could not be used."""
    faults = [fault for each in sets for fault in each.faults]
    for fault in faults:
        say(f"error: {fault}")
    unused = len(faults)
    every: list[list[np.ndarray]] = []
    print(f"{sum(len(each.said) for each in sets)} rows, 95 % of {options.bootstraps} bootstraps in brackets\n")
    print("| set | measure | model | score | rows | published |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    names, made_by = [], []
    for model in options.models:
        with Scorer(model, provider=options.provider, threads=options.threads, fast_math=options.fast_math) as scorer:
            every.append([distances(scorer, each, say) for each in sets])
            unused += sum(int((~np.isfinite(found)).any(axis=1).sum()) for found in every[-1])
            for line in scores(sets, every[-1], scorer, options.bootstraps):
                print(line, flush=True)
            names.append(scorer.path.name)
            runtime = scorer.provenance["runtime"]
            made_by.append(f"{names[-1]}: {runtime['provider']}{', fast-math' if scorer.fast_math else ''}")
    if len(every) > 1:
        print(f"\n| beside {names[0]} | pairs | mean error | worst | Spearman | Kendall | order changed |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, found in zip(names[1:], every[1:], strict=True):
            print(beside_first(name, sets, every[0], found), flush=True)
    print("\n" + "; ".join(made_by))
    return unused


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="the float32 one first")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set, or a table; without it the built-in one")
    parser.add_argument("--layout", choices=LAYOUTS, help="of --data (default: told by what lies in it)")
    parser.add_argument("--provider", default="cpu", metavar="NAME", help="(default cpu)")
    parser.add_argument("--fast-math", action="store_true", help="let float32 models run in faster types")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: the cores)")
    parser.add_argument("--bootstraps", type=int, default=1000, metavar="N", help="(default 1000)")
    options = parser.parse_args(arguments)
    if options.bootstraps < 1:
        parser.error("--bootstraps must be at least 1")
    if options.layout is not None and options.data is None:
        of = LAYOUTS[options.layout]
        parser.error(
            f"--layout {options.layout} needs --data; "
            + (f"get {of.title} from {of.source}" if of.source else "name the table")
        )
    if options.data is not None:
        unused = measured(options, judged(options.data, options.layout))
    else:
        with tempfile.TemporaryDirectory() as folder:
            unused = measured(options, graded(cut_photographs(), Path(folder)))
    if unused:
        print(f"{unused} rows could not be used", file=sys.stderr)
    return 3 if unused else 0
