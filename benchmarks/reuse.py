"""What encoding each image once saves: all pairs of a set, and one reference against the others.

    python -m benchmarks reuse artifacts/lpips_alex_fp32.onnx artifacts/lpips_squeeze_fp32.onnx

Needs the --split graphs beside each model. Both ways start from decoded images, each in a process of its own, in turns
(`turns.py`), with a new cache each time; of pair by pair a sample of the pairs is timed and taken for all. Printed are
medians, and of the ratio round by round median and quartiles, with the least that is asked of it for as many images of
that size as there are by default. `--blocks` prints instead what encoding and comparing take per image and pair when
more are taken at once, `--half DIR` what half precision in a store does to distances of the photographs in a folder.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lpips_runtime import Features, FeatureStore, Scorer

from .job import Job
from .precision import DISTORTIONS, photographs
from .sets import SETS, sampled
from .subjects import REUSE
from .turns import asked, quartiles, take_turns

# The set of which something is asked: images, and pixels of a side.
_IMAGES, _SIDE = 24, 256

# Job -> how many times as fast reusing is to be at least, by net.
FLOORS: dict[str, dict[str, float]] = {
    "all pairs": {"alex": 6.0, "squeeze": 4.5, "vgg": 6.0},
    "one against the others": {"alex": 1.7, "squeeze": 1.5, "vgg": 1.7},
}

# What distances may differ by and still be the same numbers, relative: float32's rounding.
SAME = 1e-4


def seconds(work: Callable[[], object]) -> float:
    """What one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def savings(model: Path, options: argparse.Namespace) -> None:
    """Print a row for all pairs of the images, and one for the first against the others."""
    with Scorer(model, provider="cpu") as scorer:
        net = scorer.info.net
        _ = scorer.split  # what is missing says so here
    job = Job(net, str(model), options.side, options.images, options.threads)
    for which, floors in FLOORS.items():
        plain, ours = (REUSE[which, way].title for way in ("pair by pair", "reusing"))
        found = take_turns({name: (name, job) for name in (plain, ours)}, options.rounds)
        count = len(SETS[which](range(options.images)))
        title = f"{model.name} | {which}, {options.images} images"
        if absent := found[plain].absent or found[ours].absent:
            print(f"| {title} | absent: {absent} | | | |", flush=True)
            continue
        sample = np.array(sampled(list(found[ours].distances)))
        slow = np.array(found[plain].seconds) * count / len(sample)
        fast = np.array(found[ours].seconds)
        error = np.abs(sample / found[plain].distances - 1).max()
        wrong = f", WRONG by {error:.2%}" if error > SAME else ""
        floor = floors[net] if (options.images, options.side) == (_IMAGES, _SIDE) else None
        print(
            f"| {title} | {np.median(slow):.2f} | {np.median(fast):.2f}{wrong} | {quartiles(slow / fast)} "
            f"| {asked(slow / fast, floor)} |",
            flush=True,
        )


def blocks(scorer: Scorer, side: int, rounds: int) -> None:
    """Print what an image and a pair take for several numbers of them at once."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8)
    encoded = [scorer.encode(image) for image in pixels]
    sizes = (1, 2, 4, 8, 16)

    def encode(at_once: int) -> None:
        for start in range(0, len(pixels), at_once):
            scorer.encode(pixels[start : start + at_once])

    def compare(at_once: int) -> None:
        for start in range(0, len(pixels), at_once):
            block = encoded[start : start + at_once]
            scorer.compare(encoded[0], Features.stack(block) if len(block) > 1 else block[0])

    for name, work in (("encode", encode), ("compare", compare)):
        spent = [[seconds(lambda n=n, work=work: work(n)) / len(pixels) * 1e3 for n in sizes] for _ in range(rounds)]
        row = " | ".join(f"{figure:.2f}" for figure in np.median(spent, 0))
        print(f"| {scorer.path.name} | {side} | {encoded[0].nbytes / 1e6:.2f} MB | {name} | {row} |", flush=True)


def half(path: Path, photos: Path, threads: int | None) -> None:
    """Print how far distances move when features are kept in half precision."""
    with tempfile.TemporaryDirectory() as folder:
        kept = FeatureStore(folder, precision="fp16")
        exact, rounded = (Scorer(path, provider="cpu", threads=threads, features=store) for store in (None, kept))
        pairs = [
            (np.asarray(crop), np.asarray(change(crop, np.random.default_rng(0))))
            for crop in photographs(photos, 224, 2)
            for change in DISTORTIONS.values()
        ]
        # Nearly equal ones besides: one pixel changed by one level.
        for a, _ in pairs[:: len(DISTORTIONS)]:
            b = a.copy()
            b[100, 100, 0] ^= 1
            pairs.append((a, b))
        figures = np.array(
            [[scorer.compare(scorer.encode(a), scorer.encode(b)) for scorer in (exact, rounded)] for a, b in pairs]
        )
        error = np.abs(figures[:, 1] - figures[:, 0])
        large = figures[:, 0] >= 0.01
        tiny = figures[-len(pairs) // (len(DISTORTIONS) + 1) :]
        print(
            f"| {path.name} | {len(pairs)} | {error.max():.1e} | {(error / figures[:, 0])[large].max():.1e} "
            f"| {np.median(tiny[:, 0]):.1e}, {np.median(tiny[:, 1]):.1e} |",
            flush=True,
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks reuse", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--images", type=int, default=_IMAGES, metavar="N")
    parser.add_argument("--side", type=int, default=_SIDE, metavar="PIXELS")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--blocks", action="store_true", help="time per image and pair, for several at once")
    parser.add_argument("--half", type=Path, metavar="DIR", help="error of half precision on these photographs")
    options = parser.parse_args(arguments)
    if options.half is not None:
        print("| model | pairs | largest error | relative, from 0.01 on | one pixel by 1/255: float32, half |")
        print("| --- | --- | --- | --- | --- |")
        for path in options.models:
            half(path, options.half, options.threads)
        return 0
    if options.blocks:
        print("| model | pixels | features | ms per image or pair, at once: | 1 | 2 | 4 | 8 | 16 |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    else:
        print("| model | job | pair by pair, s | reusing, s | times as fast (quartiles) | at least |")
        print("| --- | --- | --- | --- | --- | --- |")
    for path in options.models:
        if options.blocks:
            with Scorer(path, provider="cpu", threads=options.threads) as scorer:
                blocks(scorer, options.side, options.rounds)
        else:
            savings(path, options)
    return 0
