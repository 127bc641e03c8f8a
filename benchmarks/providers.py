"""How fast and how exact each execution provider is beside the CPU provider, in float32 and with fast-math.

    python -m benchmarks providers artifacts/lpips_alex_fp32.onnx [MODEL ...] --photos DIR

Latencies are of one pair, conversion from 8-bit images included, measured in turns; printed are the median and, of the
CPU provider's time by this one's round by round, median and quartiles. Errors are relative to the CPU provider: of
crops of the photographs and the same with noise, blur, brightness or single bits changed, sorted by the distance.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.precision import latencies, photographs
from lpips_runtime import Scorer
from lpips_runtime.fast_math import SMALLEST
from lpips_runtime.listing import survey

# Distances from each of these up to the next are summed up together.
BANDS = (1e-12, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, np.inf)


def changed(crop: Image.Image, seed: int) -> Iterator[np.ndarray]:
    """uint8 [side,side,3]: the crop, from one changed pixel up to what nobody would overlook."""
    pixels, rng = np.asarray(crop).astype(np.float64), np.random.default_rng(seed)
    for count in (1, 10, 100, 1000, 10_000):
        bits = pixels.copy()
        y, x = rng.integers(0, pixels.shape[0], (2, count))
        bits[y, x] += rng.choice([-1, 1], (count, 3))
        yield bits.clip(0, 255).astype(np.uint8)
    for sigma in (1, 2, 4, 8, 16, 32):
        yield (pixels + sigma * rng.standard_normal(pixels.shape)).clip(0, 255).round().astype(np.uint8)
    for factor in (1.005, 1.01, 1.02, 1.05, 1.1, 1.3):
        yield (pixels * factor).clip(0, 255).round().astype(np.uint8)
    for radius in (0.3, 0.4, 0.5, 0.7, 1, 2, 4):
        yield np.asarray(crop.filter(ImageFilter.GaussianBlur(radius)))


def distances(scorer: Scorer, crops: list[Image.Image]) -> np.ndarray:
    """float32, of every crop and what became of it."""
    return np.array([scorer.score(np.asarray(crop), one) for k, crop in enumerate(crops) for one in changed(crop, k)])


def subjects(model: Path, threads: int | None) -> Iterator[tuple[str, Scorer, float]]:
    """What can run here, the CPU provider first, and the seconds that opening it took."""
    working = [row for row in reversed(survey()) if row["works"] and row["files"] == ".onnx"]
    for row in working:
        for fast in (False, True)[: 1 + bool(row["devices"][0]["faster"])]:
            start = time.perf_counter()
            scorer = Scorer(model, provider=row["provider"], threads=threads, fast_math=fast)
            types = scorer.provenance["runtime"].get("types", "as the model")
            yield f"{row['provider']} | {types}", scorer, time.perf_counter() - start


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks providers", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="measure the errors too, on crops of 128 pixels")
    parser.add_argument("--crops", type=int, default=2, metavar="N", help="of each photograph (default 2)")
    parser.add_argument("--side", type=int, default=256, metavar="PIXELS", help="for the times (default 256)")
    parser.add_argument("--threads", type=int, default=None, metavar="N")
    parser.add_argument("--rounds", type=int, default=30, metavar="N")
    options = parser.parse_args(arguments)
    crops = photographs(options.photos, 128, options.crops) if options.photos else []
    for model in options.models:
        compare(model, crops, options)
    return 0


def compare(model: Path, crops: list[Image.Image], options: argparse.Namespace) -> None:
    """Print both tables of one model."""
    names, scorers, opening = zip(*subjects(model, options.threads), strict=True)
    seconds = latencies(scorers, options.side, options.rounds)
    print(f"\n{model.name}, {options.side} pixels, {options.threads or 'default'} threads\n")
    print("| provider | types | opening | p50 | times as fast as cpu (quartiles) |\n| --- | --- | --- | --- | --- |")
    for name, took, row in zip(names, opening, seconds, strict=True):
        low, middle, high = np.quantile(seconds[0] / row, [0.25, 0.5, 0.75])
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        print(f"| {name} | {took * 1e3:.0f} ms | {np.median(row) * 1e3:.1f} ms | {ratio} |", flush=True)
    if not crops:
        return
    first, *others = (distances(scorer, crops) for scorer in scorers)
    print(
        "\n| provider | types | distances from | pairs | median error | worst |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, found in zip(names[1:], others, strict=True):
        for low, high in itertools.pairwise(BANDS):
            inside = (first >= low) & (first < high)
            if inside.any():
                error = np.abs(found[inside] / first[inside] - 1)
                print(f"| {name} | {low:g} | {inside.sum()} | {np.median(error):.2g} | {error.max():.2g} |", flush=True)
    for name, found in zip(names[1:], others, strict=True):
        shown = found >= SMALLEST
        error = np.abs(found[shown] / first[shown] - 1).max()
        print(f"\n{name}: of {shown.sum()} pairs that come out at {SMALLEST:g} or more the worst is {error:.2g} off")
