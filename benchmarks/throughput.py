"""How much of the speed of the bare session a stream of PNG pairs keeps, and what takes the rest.

    python -m benchmarks throughput artifacts/lpips_alex_fp32.onnx
    python -m benchmarks throughput artifacts/lpips_alex_fp32.onnx --batches

Scored are crops of scikit-learn's china.jpg against noisy versions of them. The bare session gets them as decoded 8-bit
arrays; conversion to float32 counts for all. Subjects take turns within a round; printed are medians, and of the ratios
round by round median and quartiles. `--batches` says instead how much faster larger batches are for images of each
size: the figures behind the batch sizes of stream.py.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from lpips_runtime import Scorer
from lpips_runtime.arrays import as_batch, to_tensor
from lpips_runtime.images import load_image
from lpips_runtime.stream import _PAIRS, _PIXELS
from lpips_runtime.workers import cores

from .turns import quartiles

SIDES = (32, 64, 128, 181, 256, 512)
BATCHES = (1, 2, 4, 8, 16, 32)

Pairs = Sequence[tuple[Path, Path]]


def save_pairs(folder: Path, side: int, count: int) -> Pairs:
    with Image.open(str(files("sklearn.datasets.images").joinpath("china.jpg"))) as file:
        photo = np.asarray(file.convert("RGB"))
    rng = np.random.default_rng(0)
    made = []
    for k in range(count):
        y, x = (rng.integers(0, extent - side + 1) for extent in photo.shape[:2])
        crop = photo[y : y + side, x : x + side]
        noisy = np.clip(crop + rng.normal(0, 6, crop.shape), 0, 255).astype(np.uint8)
        made.append((folder / f"{k}_a.png", folder / f"{k}_b.png"))
        for path, pixels in zip(made[-1], (crop, noisy), strict=True):
            Image.fromarray(pixels).save(path)
    return made


def bare(scorer: Scorer, arrays: np.ndarray, size: int) -> None:
    """Score uint8 [2, N, H, W, 3] with nothing around it, `size` pairs at a time."""
    for k in range(0, arrays.shape[1], size):
        scorer.run(*(as_batch(side[k : k + size], name) for side, name in zip(arrays, "ab", strict=True)), depths=False)


def in_turns(subjects: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Wall and processor seconds of each, float64 [2, rounds], after a round that is not counted."""
    seconds = {name: np.empty((2, rounds)) for name in subjects}
    for number in range(-1, rounds):
        for name, subject in subjects.items():
            start = time.perf_counter(), time.process_time()
            subject()
            if number >= 0:
                seconds[name][:, number] = time.perf_counter() - start[0], time.process_time() - start[1]
    return seconds


def ratio(of: np.ndarray, to: np.ndarray) -> str:
    return quartiles(to / of)


def throughput(scorer: Scorer, side: int, count: int, rounds: int) -> None:
    size = max(1, min(_PAIRS, _PIXELS // side**2))
    with tempfile.TemporaryDirectory() as folder:
        pairs = save_pairs(Path(folder), side, count)
        arrays = np.stack([[load_image(path).pixels for path in paths] for paths in zip(*pairs, strict=True)])
        tensors = [as_batch(half, "image") for half in arrays]
        one, many, stream = "bare session, one pair at a time", f"bare session, {size} at a time", "stream of PNG files"
        seconds = in_turns(
            {
                one: lambda: bare(scorer, arrays, 1),
                many: lambda: bare(scorer, arrays, size),
                stream: lambda: list(scorer.stream(pairs)),
                "decoding alone, one thread": lambda: [load_image(path) for paths in pairs for path in paths],
                "conversion to float32 alone": lambda: [to_tensor(half, "float32") for half in tensors],
            },
            rounds,
        )
    print(f"{scorer.path.name}, {count} pairs of {side}x{side}, {rounds} rounds, {cores()} cores\n")
    print("| | pairs/s | ms a pair | processor ms a pair |")
    print("| --- | --- | --- | --- |")
    for name, (wall, processor) in seconds.items():
        wall_ms, processor_ms = (1e3 * np.median(each) / count for each in (wall, processor))
        print(f"| {name} | {1e3 / wall_ms:.1f} | {wall_ms:.2f} | {processor_ms:.2f} |")
    wall = {name: found[0] for name, found in seconds.items()}
    # What the stream could be at best where decoding takes its time from the cores that score.
    scoring, decoding = seconds[many][1], seconds["decoding alone, one thread"][1]
    print(f"\nstream / bare session, one at a time: {ratio(wall[stream], wall[one])}")
    print(f"stream / bare session, {size} at a time: {ratio(wall[stream], wall[many])}")
    print(
        f"the latter at best, by processor time, with decoding on the same cores: {ratio(scoring + decoding, scoring)}"
    )


def batches(scorer: Scorer, rounds: int) -> None:
    print(f"{scorer.path.name}, pairs/s against one at a time, median (quartiles) of {rounds} rounds\n")
    print("| side | ms a pair | " + " | ".join(f"{size} at a time" for size in BATCHES[1:]) + " |")
    print("| --- " * (len(BATCHES) + 1) + "|")
    for side in SIDES:
        # Some 1e8 pixels a round at most, and no batch of images that no stream would make.
        sizes = [size for size in BATCHES if size == 1 or size * side**2 <= 4 * _PIXELS]
        arrays = np.random.default_rng(0).integers(0, 256, (2, sizes[-1], side, side, 3), dtype=np.uint8)
        runs = {str(size): (lambda size=size, arrays=arrays: bare(scorer, arrays, size)) for size in sizes}
        wall = {name: found[0] for name, found in in_turns(runs, rounds).items()}
        found = [ratio(wall[str(size)], wall["1"]) if size in sizes else "" for size in BATCHES[1:]]
        print(f"| {side} | {1e3 * np.median(wall['1']) / sizes[-1]:.2f} | {' | '.join(found)} |", flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks throughput", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--side", type=int, default=256, metavar="PIXELS", help="of the images (default 256)")
    parser.add_argument("--pairs", type=int, default=64, metavar="N", help="scored in a round (default 64)")
    parser.add_argument("--rounds", type=int, default=11, metavar="N")
    parser.add_argument("--threads", type=int, default=None, metavar="N")
    parser.add_argument("--batches", action="store_true", help="measure what larger batches gain instead")
    options = parser.parse_args(arguments)
    with Scorer(options.model, provider="cpu", threads=options.threads) as scorer:
        if options.batches:
            batches(scorer, options.rounds)
        else:
            throughput(scorer, options.side, options.pairs, options.rounds)
    return 0
