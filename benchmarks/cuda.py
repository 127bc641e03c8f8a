"""What decided how the CUDA provider is opened: its search for convolution algorithms, and pairs at once.

    python -m benchmarks cuda artifacts/lpips_alex_fp32_uint8.onnx artifacts/lpips_squeeze_fp32_uint8.onnx

For each way to search, the first run on a size of image and the median of 20 more; then, as this project opens it, the
pairs a second by the number of pairs at once. Of uint8 models; images go to the GPU and numbers come back in the time.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lpips_runtime.nvidia import nvidia_gpus
from lpips_runtime.ort import onnxruntime
from lpips_runtime.session import Session

from .events import cuda_options
from .job import Job, images

SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
# Pixels of a side, each a new size to the session.
SIDES = (64, 256, 257, 301, 1080)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


def times(session: Session, batch: int, side: int, runs: int = 20) -> tuple[float, float]:
    """Milliseconds of the first run on this size, and the median of more."""
    reference, distorted = images(Job("", "", side, batch, 0))
    pair = {"reference": reference, "distorted": distorted}
    taken = []
    for _ in range(1 + runs):
        start = time.perf_counter()
        session.run(pair, ["distance"])
        taken.append((time.perf_counter() - start) * 1e3)
    return taken[0], statistics.median(taken[1:])


def searched(model: Path, search: str) -> Session:
    """The model, opened with another search than the project's."""
    with cuda_options(cudnn_conv_algo_search=search):
        return Session(model, provider="cuda")


def measure(model: Path) -> None:
    """Print both tables of one model."""
    print(f"\n{model.name}: ms of the first run on a size, and of the ones after\n")
    print("| search |" + "".join(f" {side}x{side} |" for side in SIDES) + "\n| --- |" + " --- |" * len(SIDES))
    for search in SEARCHES:
        session = searched(model, search)
        cells = [" {:.0f}, {:.2f} |".format(*times(session, 1, side)) for side in SIDES]
        print(f"| {search} |" + "".join(cells))
    print("\n| pairs of 256x256 at once | ms | pairs a second |\n| --- | --- | --- |")
    session = Session(model, provider="cuda")
    for batch in BATCHES:
        _, taken = times(session, batch, 256)
        print(f"| {batch} | {taken:.2f} | {batch / taken * 1e3:.0f} |")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks cuda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="uint8 artifacts")
    options = parser.parse_args(arguments)
    print(f"{', '.join(gpu.name for gpu in nvidia_gpus()) or 'no GPU'}, ONNX Runtime {onnxruntime().__version__}")
    for model in options.models:
        measure(model)
    return 0
