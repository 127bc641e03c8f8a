"""What scoring takes in memory, and what tiles cost in time.

    python -m benchmarks memory artifacts/lpips_alex_fp32.onnx artifacts/lpips_vgg_fp32.onnx
    python -m benchmarks memory --costs artifacts/lpips_alex_fp32.onnx artifacts/lpips_alex_fp16.onnx
    python -m benchmarks memory --tiles artifacts/lpips_alex_fp32.onnx

Without an option, lpips-score scores a pair of 3840x2160 PNG files, in a process of its own for each row, with and
without a heatmap, and with other limits: printed are the limit, the tiles, the largest resident memory of the process
(ru_maxrss) and its time. `--costs` prints what lpips_runtime.memory has in its table, each figure from processes of its
own: memory with the model open, and bytes per pixel of a pair that runs of three sizes add at their peak; where the
--split graphs lie beside it, what they add, and bytes per pixel of encoding one image and comparing two. `--tiles`
times tiled runs against untiled ones, in turns, and prints median and quartiles of the ratio beside that of the pixels.
Unix only.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from lpips_runtime import Scorer
from lpips_runtime.arrays import as_batch
from lpips_runtime.features import sibling
from lpips_runtime.memory import Memory
from lpips_runtime.tiling import Part, run_parts

SIZE = 3840, 2160
_LIMITS = {"alex": ("650MB",), "squeeze": ("750MB",), "vgg": ("1700MB",)}
# Some fall well into the blocks of the arena, some badly.
_SIDES = {"alex": (768, 1536, 2080), "squeeze": (768, 1024, 1536), "vgg": (544, 640, 768)}
_ONCE = """
import sys
import numpy as np
from benchmarks.memory import peak
from lpips_runtime.scorer import Scorer
from lpips_runtime.arrays import as_batch
from lpips_runtime.tiling import Part, run_parts
scorer = Scorer(sys.argv[1], provider=sys.argv[3])
side = int(sys.argv[2])
fixed = peak()
if side:
    batches = [as_batch(np.random.default_rng(k).integers(0, 256, (side, side, 3), dtype=np.uint8), "") for k in (0, 1)]
    for _ in range(2):
        run_parts(scorer._open, *batches, Part(None), depths=True)
print(fixed, peak())
"""
_SPLIT = """
import sys
import numpy as np
from benchmarks.memory import peak
from lpips_runtime.scorer import Scorer
scorer = Scorer(sys.argv[1], provider=sys.argv[3])
side = int(sys.argv[2])
images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
found = [peak()]
scorer.split
found.append(peak())
one = scorer.encode(images[0])
found.append(peak())
other = scorer.encode(images[1])
for _ in range(2):
    scorer.detail(one, other)
print(*found, peak())
"""


def peak() -> int:
    """The largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def photographs(folder: Path) -> list[str]:
    """A smooth random picture of 3840x2160 and a blurred copy, as PNG files."""
    coarse = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 12, SIZE[0] // 12, 3), dtype=np.uint8)
    sharp = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    found = []
    for name, image in (("reference", sharp), ("distorted", sharp.filter(ImageFilter.GaussianBlur(3)))):
        found.append(str(folder / f"{name}.png"))
        image.save(found[-1], compress_level=1)
    return found


def command(model: str, files: list[str], provider: str, *more: str) -> tuple[int, float, str]:
    """Largest resident memory of lpips-score, bytes, its seconds, and its words on stderr."""
    started = time.perf_counter()
    call = [sys.executable, "-m", "lpips_runtime", "-m", model, "--provider", provider, *more, *files]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=words)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        words.seek(0)
        said = words.read().decode()
    if process.returncode:
        sys.exit(said)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), seconds, said


def commands(models: list[str], provider: str) -> None:
    print(f"{'model':24} {'options':44} {'tiles':>5} {'peak MB':>8} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder))
        pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        for model in models:
            with Scorer(model, provider=provider) as scorer:
                info, name = scorer.info, scorer.provenance["runtime"]["provider"]
            drawn = ("--heatmap", f"{folder}/map.png")
            limits = [(), *(("--max-memory", limit) for limit in _LIMITS[info.net])]
            for options in [(*limit, *heatmap) for limit in limits for heatmap in ((), drawn)]:
                limit = options[1] if options[:1] == ("--max-memory",) else None
                batch = as_batch(pixels, "")
                tiles = Memory.of(info, limit, name).part(batch, batch, depths="--heatmap" in options).tiles
                used, seconds, _ = command(model, files, provider, *options)
                shown = " ".join(options).replace(f"{folder}/", "")
                print(f"{Path(model).stem:24} {shown:44} {tiles:5} {used / 1e6:8.0f} {seconds:8.1f}", flush=True)


def _measured(model: str, side: int, provider: str) -> tuple[int, int]:
    call = [sys.executable, "-c", _ONCE, model, str(side), provider]
    fixed, used = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    return int(fixed), int(used)


def costs(models: list[str], provider: str) -> None:
    print(f"{'model':28} {'fixed MB':>8}  bytes per pixel")
    for model in models:
        with Scorer(model, provider="cpu") as scorer:
            net = scorer.info.net
        fixed, _ = _measured(model, 0, provider)
        found = [(_measured(model, side, provider)[1] - fixed) / side**2 - 6 for side in _SIDES[net]]
        shown = ", ".join(f"{value:.0f} ({side}x{side})" for value, side in zip(found, _SIDES[net], strict=True))
        print(f"{Path(model).stem:28} {fixed / 1e6:8.0f}  {shown}", flush=True)
        if not sibling(Path(model), "features").exists():
            continue
        for side in _SIDES[net]:
            call = [sys.executable, "-c", _SPLIT, model, str(side), provider]
            done = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
            before, opened, encoded, compared = map(int, done)
            more = ", ".join(
                f"{what} {(used - opened) / side**2:.0f}"
                for what, used in (("encoded", encoded), ("compared", compared))
            )
            print(f"{'':21} split {(opened - before) / 1e6:8.0f}  {more} ({side}x{side})", flush=True)


def tiles(models: list[str], rounds: int) -> None:
    print(f"{'model':24} {'image':>10} {'tiles':>6} {'pixels':>7}  time, quartiles of the ratio to untiled")
    for model in models:
        with Scorer(model, provider="cpu") as scorer:
            side = 768 if scorer.info.net == "vgg" else 1536
            draw = np.random.default_rng(0).integers
            a, b = (as_batch(draw(0, 256, (side, side, 3), dtype=np.uint8), "") for _ in range(2))
            for part in (Part(1, 1, 2), Part(1, 2, 1), Part(1, 2, 2)):
                ratios = []
                for turn in range(rounds + 1):
                    spent = {}
                    for way in (part, Part(None))[:: 1 if turn % 2 else -1]:
                        started = time.perf_counter()
                        run_parts(scorer._open, a, b, way, depths=False)
                        spent[way] = time.perf_counter() - started
                    ratios.append(spent[part] / spent[Part(None)])
                low, middle, high = np.quantile(ratios[1:], (0.25, 0.5, 0.75))
                share = part.computed(side, side, scorer.info) / side**2
                cut = f"{side:5}x{side} {part.rows:4}x{part.columns} {share:7.2f}"
                print(f"{Path(model).stem:24} {cut}  {middle:.2f} ({low:.2f}..{high:.2f})", flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--costs", action="store_true", help="the figures of the table in lpips_runtime.memory")
    parser.add_argument("--tiles", action="store_true", help="time of tiled runs against untiled ones")
    parser.add_argument("--provider", default="cpu", metavar="NAME", help="not of --tiles (default cpu)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    options = parser.parse_args(arguments)
    if options.costs:
        costs(options.models, options.provider)
    elif options.tiles:
        tiles(options.models, options.rounds)
    else:
        commands(options.models, options.provider)
    return 0
