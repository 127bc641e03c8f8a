"""The physical limit: the multiply-accumulates of a pair, and how fast a machine multiplies matrices at best.

`python -m benchmarks.physical THREADS` prints the rates of this machine, a line of JSON for each.
"""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lpips_runtime.say import say

__all__ = ["FLOAT32", "RATES", "Rate", "limits", "macs", "share"]


class Rate(NamedTuple):
    """What matrices are multiplied in. device, dtype: as torch names them. tf32: let float32 be rounded to TF32."""

    device: str
    dtype: str
    tf32: bool = False


# Of a device, as `limits` names it: what has no other type is held against it.
FLOAT32 = {"cpu": "float32", "cuda": "cuda float32"}
# As `limits` names them.
RATES: Mapping[str, Rate] = {
    "float32": Rate("cpu", "float32"),
    "bfloat16": Rate("cpu", "bfloat16"),
    "cuda float32": Rate("cuda", "float32"),
    "cuda tf32": Rate("cuda", "float32", tf32=True),
    "cuda half": Rate("cuda", "float16"),
}
# Sides of the square matrices. Small ones do not fill a GPU, and large ones take too long where a type is imitated:
# the next is taken as long as it should be multiplied within _LONGEST seconds.
_SIDES = (512, 1024, 2048, 4096, 8192)
_LONGEST = 0.4
_ROUNDS = 5


@functools.cache
def macs(net: str, height: int, width: int) -> int:
    """Multiply-accumulates of the convolutions of one pair, both images counted.

    Biases, pooling and what follows the backbone (normalisation, squares, weighting) are left out: they are less than
    two percent of it, and not what a matrix unit would do. height, width: pixels, at least the net's smallest.
    Raises ImportError where the exporter or torch is not installed.
    """
    import torch

    from lpips_export.backbones import BACKBONES

    with torch.device("meta"):  # shapes alone: no weights are drawn
        features = BACKBONES[net].features()
    size, total = (height, width), 0
    for layer in features:
        size, found = _through(layer, size)
        total += found
    return 2 * total


def _through(layer: Any, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """What height and width become in a layer, and its multiply-accumulates."""
    from torch import nn

    if hasattr(layer, "squeeze"):  # SqueezeNet's Fire: two convolutions of what a third gives, side by side
        size, total = _through(layer.squeeze, size)
        return size, total + sum(_through(branch, size)[1] for branch in (layer.expand1x1, layer.expand3x3))
    if isinstance(layer, nn.Conv2d):
        size = _windows(layer, size)
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        return size, size[0] * size[1] * layer.out_channels * kernel * layer.in_channels // layer.groups
    if isinstance(layer, nn.MaxPool2d):
        return _windows(layer, size), 0
    if isinstance(layer, nn.ReLU):
        return size, 0
    raise NotImplementedError(f"multiply-accumulates of {type(layer).__name__}")


def _windows(layer: Any, size: tuple[int, int]) -> tuple[int, int]:
    """How often the window of a convolution or pooling fits into height and width."""
    found = []
    for axis, length in enumerate(size):
        kernel, stride, padding, dilation = (
            of if isinstance(of, int) else of[axis]
            for of in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
        room = length + 2 * padding - dilation * (kernel - 1) - 1
        steps = room // stride
        if getattr(layer, "ceil_mode", False):
            steps = -(-room // stride)
            # The last window must still begin within the image or the padding before it.
            steps -= steps * stride >= length + padding
        found.append(steps + 1)
    return found[0], found[1]


def share(net: str, height: int, width: int, images: int, seconds: float, gflops: float | None) -> float | None:
    """How much of a rate a call makes use of. images: that it encodes. seconds: that it took. gflops: of `limits`.

    More than 1 is possible for an algorithm that multiplies less (Winograd's). None if gflops is.
    """
    return gflops and macs(net, height, width) * images / seconds / (gflops * 1e9)


def limits(threads: int) -> dict[str, float | None]:
    """How fast torch multiplies matrices on this machine: GFLOP/s by the names of RATES, best of several sizes.

    Those of the CPU are always in it, None where torch is missing or cannot; those of a GPU where torch finds one. It
    is measured in a process of its own, in some seconds, with so many threads. A multiply-accumulate is two FLOP.
    """
    found: dict[str, float | None] = {name: None for name, rate in RATES.items() if rate.device == "cpu"}
    call = [sys.executable, "-m", "benchmarks.physical", str(threads)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        found.update(json.loads(line))
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        say(f"the speed of matrix products is not known: {reason}")
    return found


def _measured(threads: int) -> Iterator[tuple[str, float]]:
    import torch

    torch.set_num_threads(threads)
    for name, rate in RATES.items():
        if rate.device == "cpu" or torch.cuda.is_available():
            yield name, _best(rate)


def _best(rate: Rate) -> float:
    """GFLOP/s."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = rate.tf32
    best = 0.0
    for side in _SIDES:
        if best and 2 * side**3 / best > _LONGEST * 1e9:
            break
        a, b = (torch.randn(side, side).to(rate.device, getattr(torch, rate.dtype)) for _ in range(2))
        out = torch.empty_like(a)
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            if rate.device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * side**3 / (time.perf_counter() - start) / 1e9)
    return best


if __name__ == "__main__":
    for _name, _gflops in _measured(int(sys.argv[1])):
        print(json.dumps({_name: _gflops}), flush=True)
