"""What encoding each image once saves: all pairs of a set, and one reference against the others.

    python -m benchmarks reuse artifacts/lpips_alex_fp32.onnx artifacts/lpips_squeeze_fp32.onnx

Needs the --split graphs beside each model. Both ways start from decoded images and run in turns, with a new cache each
time; of pair by pair a sample of the pairs is timed and taken for all. Printed are medians, and of the ratio round by
round median and quartiles. `--blocks` prints instead what encoding and comparing take per image and pair when more are
taken at once, `--half DIR` what half precision in a store does to distances of the photographs in a folder.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lpips_runtime import Features, FeatureStore, Scorer
from lpips_runtime.images import Image
from lpips_runtime.reuse import Reuse

from .precision import DISTORTIONS, photographs
from .turns import quartiles

# Pairs at once, as a stream of such images has them.
_BATCH = 8
# Pairs whose time, pair by pair, stands for that of all.
_SAMPLE = 12


def noise(count: int, side: int) -> list[Image]:
    """Decoded images of random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return [Image(image, (), key=number) for number, image in enumerate(pixels)]


def seconds(work: Callable[[], object]) -> float:
    """What one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def savings(scorer: Scorer, images: Sequence[Image], rounds: int) -> None:
    """Print a row for all pairs of the images, and one for the first against the others."""
    jobs = {
        f"all pairs of {len(images)}": list(itertools.combinations(images, 2)),
        f"one against {len(images) - 1}": [(images[0], image) for image in images[1:]],
    }

    def unread(path: Path) -> Image:
        raise AssertionError(f"{path}: these images are decoded already")

    def reusing(pairs: Sequence[tuple[Image, Image]]) -> None:
        reuse = Reuse(scorer, unread)
        for start in range(0, len(pairs), _BATCH):
            reuse.run(pairs[start : start + _BATCH], depths=False)

    def one_by_one(pairs: Sequence[tuple[Image, Image]]) -> None:
        for a, b in pairs:
            scorer.score(a.pixels, b.pixels)

    for name, pairs in jobs.items():
        sample = pairs[:: -(-len(pairs) // _SAMPLE)]
        scorer.score(*(image.pixels for image in pairs[0]))
        reusing(pairs[:2])
        plain, ours = [], []
        for _ in range(rounds):
            plain.append(seconds(lambda some=sample: one_by_one(some)) * len(pairs) / len(sample))
            ours.append(seconds(lambda some=pairs: reusing(some)))
        ratios = quartiles([a / b for a, b in zip(plain, ours, strict=True)])
        print(
            f"| {scorer.path.name} | {name} | {np.median(plain):.2f} | {np.median(ours):.2f} | {ratios} |", flush=True
        )


def blocks(scorer: Scorer, side: int, rounds: int) -> None:
    """Print what an image and a pair take for several numbers of them at once."""
    pixels = np.stack([image.pixels for image in noise(16, side)])
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
    parser.add_argument("--images", type=int, default=24, metavar="N")
    parser.add_argument("--side", type=int, default=256, metavar="PIXELS")
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
        print("| model | job | pair by pair, s | reusing, s | times as fast (quartiles) |")
        print("| --- | --- | --- | --- | --- |")
    for path in options.models:
        with Scorer(path, provider="cpu", threads=options.threads) as scorer:
            if options.blocks:
                blocks(scorer, options.side, options.rounds)
            else:
                savings(scorer, noise(options.images, options.side), options.rounds)
    return 0
