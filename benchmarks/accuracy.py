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
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lpips_export.agreement import SMALL, Agreement, agreement
from lpips_runtime import Scorer
from lpips_runtime.contract import BACKBONE_SHA256, ModelInfo
from lpips_runtime.output import open_output, reported
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
    """The published value of the weights of this model, or nothing where none is known."""
    if (info.version, info.lin, info.backbone_sha256) != ("0.1", "learned", BACKBONE_SHA256[info.net]):
        return ""
    return PUBLISHED.get((name, measure), {}).get(info.net, "")


@dataclass(frozen=True)
class Score:
    """Of a model on a set, or its mean over sets, which has neither interval nor rows. value: None if no row could be
    scored. published: as text, with the digits of its source; empty where none is known."""

    set: str
    measure: Measure
    model: str
    value: float | None
    interval: tuple[float, float] | None
    rows: int | None
    published: str

    def line(self) -> str:
        shown = "none" if self.value is None else self.measure.shown(self.value)
        if self.interval is not None:
            shown += " ({} to {})".format(*map(self.measure.shown, self.interval))
        rows = "" if self.rows is None else self.rows
        return f"| {self.set} | {self.measure.title} | {self.model} | {shown} | {rows} | {self.published} |"

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"measure": self.measure.title}


def scores(sets: Sequence[Judged], found: Sequence[np.ndarray], scorer: Scorer, rounds: int) -> Iterator[Score]:
    """found: distances of each set, NaN where there is none."""
    model = scorer.path.name
    values: dict[Measure, dict[str, float]] = {}
    for each, distance in zip(sets, found, strict=True):
        scored = np.isfinite(distance).all(axis=1)
        data = distance[scored], each.said[scored], each.reference[:: each.width][scored]
        for measure in MEASURES[each.kind]:
            value = between = None
            if scored.any():
                value = values.setdefault(measure, {})[each.name] = measure.of(*data[:2])
                between = interval(measure.of, *data, rounds)
            beside = published(scorer.info, each.name, measure.title)
            yield Score(each.name, measure, model, value, between, int(scored.sum()), beside)
    for measure, of in values.items():
        if len(of) > 1:
            name = f"mean of {len(of)} sets"
            # That of other sets, were they six, would be another number.
            known = all(published(scorer.info, name, measure.title) for name in of)
            beside = published(scorer.info, name, measure.title) if known else ""
            yield Score(name, measure, model, float(np.mean(list(of.values()))), None, None, beside)


def beside_first(sets: Sequence[Judged], first: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Agreement | None:
    """Of all pairs that both scored; None if no distance of the first reaches SMALL."""
    expected, ours = (np.concatenate([each.ravel() for each in of]) for of in (first, found))
    pairs = [pair for each in sets for pair in each.pairs]
    names = [each.name for each in sets for _ in each.pairs]
    source = np.unique([str(reference) for reference, _ in pairs], return_inverse=True)[1]
    both = np.isfinite(expected) & np.isfinite(ours)
    if not both.any() or expected[both].max() < SMALL:
        return None
    return agreement(expected[both], ours[both], source[both], list(itertools.compress(names, both)))


def _agreement_line(name: str, how: Agreement | None) -> str:
    if how is None:
        return f"| {name} | no distance reaches {SMALL:g} | | | | | |"
    return (
        f"| {name} | {how.pairs} | {how.error:.2%} | {how.worst:.1%} | {how.spearman:.6f} | {how.kendall:.5f} "
        f"| {how.triplets:.3%} |"
    )


def measured(options: argparse.Namespace, sets: Sequence[Judged]) -> int:
    """Print the tables and write the report; -> how many rows could not be used."""
    unused = [fault for each in sets for fault in each.faults]
    for fault in unused:
        say(f"error: {fault}")
    report: dict[str, Any] = {"bootstraps": options.bootstraps, "models": [], "scores": [], "beside_first": {}}
    every: list[list[np.ndarray]] = []
    failed = 0
    print(f"{sum(len(each.said) for each in sets)} rows, 95 % of {options.bootstraps} bootstraps in brackets\n")
    print("| set | measure | model | score | rows | published |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    for model in options.models:
        with Scorer(model, provider=options.provider, threads=options.threads, fast_math=options.fast_math) as scorer:
            every.append([distances(scorer, each, say) for each in sets])
            failed += sum(int((~np.isfinite(found)).any(axis=1).sum()) for found in every[-1])
            for score in scores(sets, every[-1], scorer, options.bootstraps):
                print(score.line(), flush=True)
                report["scores"].append(score.as_dict())
            report["models"].append(scorer.provenance)
    made_by = [(each["model"]["file"], each["runtime"]) for each in report["models"]]
    if len(every) > 1:
        print(f"\n| beside {made_by[0][0]} | pairs | mean error | worst | Spearman | Kendall | order changed |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for (name, _), found in zip(made_by[1:], every[1:], strict=True):
            how = beside_first(sets, every[0], found)
            print(_agreement_line(name, how), flush=True)
            report["beside_first"][name] = how and how.as_dict()
    print("\n" + "; ".join(f"{name}: {of['provider']}{', fast-math' * of['fast_math']}" for name, of in made_by))
    report["unused"] = len(unused) + failed
    if options.json:
        with open_output(options.json, atomic=True) as file, reported(options.json):
            file.write(json.dumps(report, indent=2) + "\n")
    return report["unused"]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="the float32 one first")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set, or a table; without it the built-in one")
    parser.add_argument("--layout", choices=LAYOUTS, help="of --data (default: told by what lies in it)")
    parser.add_argument("--provider", default="auto", metavar="NAME", help="(default auto)")
    parser.add_argument("--fast-math", action="store_true", help="let float32 models run in faster types")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: the cores)")
    parser.add_argument("--bootstraps", type=int, default=1000, metavar="N", help="(default 1000)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
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
