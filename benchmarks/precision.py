"""How artifacts of other precisions agree with the float32 one on photographs, and how fast they are beside it.

    python -m benchmarks precision artifacts/lpips_alex_fp32.onnx artifacts/lpips_alex_int8.onnx --photos DIR

The photographs should be others than those of the calibration; the distortions here are. Each crop is compared with
its distorted versions. Latencies are of one pair, conversion from 8-bit images included, measured in turns; printed
are the median and, of the ratio to the first artifact round by round, median and quartiles.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from lpips_export.agreement import Agreement, agreement
from lpips_runtime import Scorer
from lpips_runtime.images import load_image
from lpips_runtime.pairs import images_in

# Seconds between turns.
_PAUSE = 0.01

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _coded(kind: str, **options: object) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return Image.open(file).convert("RGB")

    return change


def _pixels(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Change:
    def whole(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        return Image.fromarray(change(np.asarray(image, np.float64), rng).clip(0, 255).round().astype(np.uint8))

    return whole


def _waves(amplitude: float) -> Change:
    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = pixels.shape[:2]
        y, x = np.mgrid[:height, :width]
        to_x = (x + amplitude * np.sin(y / 9)).round().astype(int).clip(0, width - 1)
        to_y = (y + amplitude * np.sin(x / 11)).round().astype(int).clip(0, height - 1)
        return pixels[to_y, to_x]

    return _pixels(change)


def _salt_and_pepper(share: float) -> Change:
    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chance = rng.random(pixels.shape[:2])
        pixels = pixels.copy()
        pixels[chance < share / 2] = 0
        pixels[chance > 1 - share / 2] = 255
        return pixels

    return _pixels(change)


def _pixelated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    small = image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)
    return small.resize(image.size, Image.Resampling.NEAREST)


# None of them is among those of lpips_export.distortions.
DISTORTIONS: Mapping[str, Change] = {
    "webp 10": _coded("WEBP", quality=10),
    "webp 50": _coded("WEBP", quality=50),
    "webp 85": _coded("WEBP", quality=85),
    "jpeg2000 1:60": _coded("JPEG2000", quality_mode="rates", quality_layers=[60]),
    "median 3": lambda image, rng: image.filter(ImageFilter.MedianFilter(3)),
    "median 5": lambda image, rng: image.filter(ImageFilter.MedianFilter(5)),
    "sharpened": lambda image, rng: image.filter(ImageFilter.UnsharpMask(2, 120, 0)),
    "salt and pepper 0.5 %": _salt_and_pepper(0.005),
    "salt and pepper 2 %": _salt_and_pepper(0.02),
    "speckle 0.08": _pixels(lambda pixels, rng: pixels * (1 + 0.08 * rng.standard_normal(pixels.shape))),
    "gamma 0.8": _pixels(lambda pixels, rng: 255 * (pixels / 255) ** 0.8),
    "gamma 1.3": _pixels(lambda pixels, rng: 255 * (pixels / 255) ** 1.3),
    "saturation 0.5": lambda image, rng: ImageEnhance.Color(image).enhance(0.5),
    "saturation 1.6": lambda image, rng: ImageEnhance.Color(image).enhance(1.6),
    "warmer": _pixels(lambda pixels, rng: pixels * [1.1, 1.0, 0.9]),
    "16 levels": lambda image, rng: ImageOps.posterize(image, 4),
    "pixelated": _pixelated,
    "waves of 1 px": _waves(1),
    "waves of 3 px": _waves(3),
}


def photographs(folder: Path, side: int, crops: int) -> list[Image.Image]:
    """Crops of `side` pixels along the diagonal of every image of a folder tree that is large enough."""
    found = []
    for name in sorted(images_in(str(folder), lambda note: print(note, file=sys.stderr))):
        picture = Image.fromarray(load_image(folder / name).pixels)
        if min(picture.size) < side:
            print(f"left out, smaller than {side} pixels: {name}", file=sys.stderr)
            continue
        for number in range(crops):
            x, y = (round((length - side) * (number + 0.5) / crops) for length in picture.size)
            found.append(picture.crop((x, y, x + side, y + side)))
    return found


def distances(scorer: Scorer, crops: Sequence[Image.Image]) -> np.ndarray:
    """float32 [crops, DISTORTIONS]."""
    rows = []
    for at, crop in enumerate(crops):
        changed = [
            np.asarray(change(crop, np.random.default_rng([at, number])))
            for number, change in enumerate(DISTORTIONS.values())
        ]
        original = np.broadcast_to(np.asarray(crop), (len(changed), *changed[0].shape))
        rows.append(
            np.concatenate(
                [scorer.score(original[k : k + 5], np.stack(changed[k : k + 5])) for k in range(0, len(changed), 5)]
            )
        )
    return np.stack(rows)


def latencies(scorers: Sequence[Scorer], side: int, rounds: int) -> np.ndarray:
    """Seconds, float64 [scorers, rounds]; three rounds before the first are not counted.

    In every round each takes its turn, in an order that changes, after a pause in which the threads of the one before
    end their spinning.
    """
    pair = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    order = np.random.default_rng(1)
    seconds = np.empty((len(scorers), rounds))
    for number in range(-3, rounds):
        for row in order.permutation(len(scorers)):
            time.sleep(_PAUSE)
            start = time.perf_counter()
            scorers[row].score(*pair)
            if number >= 0:
                seconds[row, number] = time.perf_counter() - start
    return seconds


def _line(name: str, found: Agreement | None, seconds: np.ndarray, first: np.ndarray) -> str:
    low, middle, high = np.quantile(first / seconds, [0.25, 0.5, 0.75])
    speed = f"{np.median(seconds) * 1e3:.2f} ms | {middle:.2f} ({low:.2f} to {high:.2f})"
    if found is None:
        return f"| {name} | | | | | {speed} |"
    return f"| {name} | {found.error:.2%} | {found.worst:.0%} | {found.spearman:.5f} | {found.triplets:.2%} | {speed} |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks precision", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("artifacts", nargs="+", metavar="MODEL", help="the float32 one first")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR")
    parser.add_argument("--side", type=int, default=224, metavar="PIXELS", help="of the crops (default 224)")
    parser.add_argument("--crops", type=int, default=1, metavar="N", help="of each photograph (default 1)")
    parser.add_argument("--threads", type=int, default=None, metavar="N")
    parser.add_argument("--rounds", type=int, default=30, metavar="N")
    options = parser.parse_args(arguments)
    crops = photographs(options.photos, options.side, options.crops)
    scorers = [Scorer(path, provider="cpu", threads=options.threads) for path in options.artifacts]
    every = [distances(scorer, crops) for scorer in scorers]
    source = np.repeat(np.arange(len(crops)), len(DISTORTIONS))
    names = list(DISTORTIONS) * len(crops)
    seconds = latencies(scorers, options.side, options.rounds)
    small = int((every[0] < 0.01).sum())
    print(f"{every[0].size} pairs of {len(crops)} crops, {options.side} pixels, {small} below 0.01\n")
    print("| artifact | mean error | worst | Spearman | triplets changed | p50 | times as fast (quartiles) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row, scorer in enumerate(scorers):
        found = agreement(every[0].ravel(), every[row].ravel(), source, names) if row else None
        print(_line(scorer.path.name, found, seconds[row], seconds[0]), flush=True)
    return 0
