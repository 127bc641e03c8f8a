"""Which arrangement of norm, difference, weighting and mean is the cheapest: the measurement behind metric.py.

    python -m benchmarks tail alex squeeze vgg --batch 1 8

The same backbone with each arrangement behind it is traced, opened on every provider that works here (with fast-math
too, where there is any) and timed in turns on one pair or more, no conversion counted. Printed are, for each provider,
the median in ms and the time beside that of what is exported, round by round, median and quartiles. `--accuracy` prints
how far each is from float64 instead: on pairs that differ, and on pairs that differ by 1/255 in one pixel, for which
the reference itself in float32 is named too.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from lpips_export import metric
from lpips_export.arrangements import arrangement
from lpips_export.backbones import BACKBONES
from lpips_export.cases import validation_cases
from lpips_export.metric import Comparator, Encoder, Pair, square
from lpips_export.reference import Reference, reference_metric
from lpips_export.spec import ExportSpec, describe
from lpips_export.tracing import serialized, trace
from lpips_export.weights import load_backbone, load_lin
from lpips_runtime.cpu import cpu_name
from lpips_runtime.listing import survey
from lpips_runtime.session import Session

from .turns import quartiles

Forward = Callable[[Pair, Tensor, Tensor], tuple[Tensor, ...]]


def _outputs(depths: list[Tensor]) -> tuple[Tensor, ...]:
    layers = torch.stack([depth.mean((1, 2)) for depth in depths], 1)
    return layers.sum(1), layers, *depths


def _norm(pair: Pair, tap: Tensor) -> Tensor:
    return square(tap).sum(1, keepdim=True).sqrt() + pair.encoder.eps.unsqueeze(0)


def _weighed(pair: Pair, k: int, difference: Tensor) -> Tensor:
    lin = getattr(pair.comparator, f"lin{k}")
    return torch.nn.functional.conv2d(square(difference), lin[:, :, None, None]).squeeze(1)


def four_dimensions(pair: Pair, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
    """As the reference writes it: sums over an axis, slices, a convolution of one output."""
    count, depths = reference.shape[0], []
    for k, tap in enumerate(pair.encoder.taps(torch.cat([reference, distorted], 0))):
        unit = tap / _norm(pair, tap)
        depths.append(_weighed(pair, k, unit[:count] - unit[count:]))
    return _outputs(depths)


def two_passes(pair: Pair, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
    """The same, each image through the backbone by itself: nothing to slice, but two convolutions for each."""
    taps = zip(pair.encoder.taps(reference), pair.encoder.taps(distorted), strict=True)
    return _outputs([_weighed(pair, k, a / _norm(pair, a) - b / _norm(pair, b)) for k, (a, b) in enumerate(taps)])


def products_in_two_passes(pair: Pair, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
    """Matrix products, each image by itself."""
    a, b = pair.encoder.taps(reference), pair.encoder.taps(distorted)
    units = zip(map(pair.encoder.unit, a), map(pair.encoder.unit, b), strict=True)
    return pair.comparator.weigh([one - other for one, other in units], [tap.shape[2:] for tap in a])


def sliced_products(pair: Pair, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
    """Matrix products, but for the difference, which is that of two slices."""
    count = reference.shape[0]
    taps = pair.encoder.taps(torch.cat([reference, distorted], 0))
    units = map(pair.encoder.unit, taps)
    return pair.comparator.weigh([unit[:count] - unit[count:] for unit in units], [tap.shape[2:] for tap in taps])


_exported = Pair.forward


def squares_as_powers(pair: Pair, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
    """What is exported, but for the squares, which torch.onnx is left to write."""
    with mock.patch.object(metric, "square", torch.square):
        return _exported(pair, reference, distorted)


def sums_in_two_passes(pair: Pair, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
    """Four dimensions, each image by itself, and the weighting as a sum too."""
    taps = zip(pair.encoder.taps(reference), pair.encoder.taps(distorted), strict=True)
    differences = [a / _norm(pair, a) - b / _norm(pair, b) for a, b in taps]
    lins = [getattr(pair.comparator, f"lin{k}")[:, :, None, None] for k in range(len(differences))]
    return _outputs([(square(one) * lin).sum(1) for one, lin in zip(differences, lins, strict=True)])


def for_openvino(pair: Pair, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
    """What `--target openvino` exports: four dimensions, two passes, sums over channels as convolutions."""
    four = arrangement("openvino")
    features = [
        tuple(four.encoder.unit(pair.encoder, tap) for tap in pair.encoder.taps(image))
        for image in (reference, distorted)
    ]
    return four.comparator.forward(pair.comparator, *features)


def backbone_alone(pair: Pair, reference: Tensor, distorted: Tensor) -> tuple[Tensor, ...]:
    """No metric at all: the first channel of each tap, so that nothing of the backbone is left out."""
    count = reference.shape[0]
    return _outputs([tap[:count, 0] for tap in pair.encoder.taps(torch.cat([reference, distorted], 0))])


# The first is what is exported, the last what --target openvino exports.
ARRANGEMENTS: dict[str, Forward] = {
    "matrix products": _exported,
    "products, squares by Pow": squares_as_powers,
    "products, but slices": sliced_products,
    "products, two passes": products_in_two_passes,
    "four dimensions": four_dimensions,
    "four dimensions, two passes": two_passes,
    "sums, two passes": sums_in_two_passes,
    "convolutions, two passes": for_openvino,
}
# What remains if all that follows the backbone costs nothing.
LEAST: dict[str, Forward] = {"backbone alone": backbone_alone}


def build(net: str, folder: Path, forwards: Mapping[str, Forward]) -> dict[str, Path]:
    """A pair graph of each."""
    backbone = load_backbone(net, None, allow_unknown=False, log=lambda _: None)
    lin = load_lin(net, "0.1")
    info = describe(ExportSpec(net=net), "pair", backbone, lin)
    encoder = Encoder(BACKBONES[net], backbone.state, version="0.1", image_input="float32")
    paths = {}
    for number, (name, forward) in enumerate(forwards.items()):
        with mock.patch.object(Pair, "forward", forward):
            paths[name] = folder / f"{net}_{number}.onnx"
            paths[name].write_bytes(serialized(trace(encoder, Comparator(lin.tensors), info)))
    return paths


def providers() -> list[tuple[str, bool]]:
    """(name, fast-math or not) of what works here, the CPU provider first."""
    working = [row for row in reversed(survey()) if row["works"] and row["files"] == ".onnx"]
    return [
        (row["provider"], fast) for row in working for fast in (False, True)[: 1 + bool(row["devices"][0]["faster"])]
    ]


def times(net: str, options: argparse.Namespace) -> None:
    """Print a table of one net for each provider and batch."""
    with tempfile.TemporaryDirectory() as folder:
        paths = build(net, Path(folder), ARRANGEMENTS | LEAST)
        jobs = [(provider, fast, batch) for provider, fast in providers() for batch in options.batch]
        for provider, fast, batch in jobs:
            sessions = [
                Session(path, provider=provider, fast_math=fast, threads=options.threads) for path in paths.values()
            ]
            rng = np.random.default_rng(0)
            shape = batch, 3, options.side, options.side
            inputs = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name in ("reference", "distorted")}
            seconds = np.empty((len(sessions), options.rounds))
            for number in range(-3, options.rounds):
                for at in rng.permutation(len(sessions)):
                    start = time.perf_counter()
                    sessions[at].run(inputs, ["distance"])
                    if number >= 0:
                        seconds[at, number] = time.perf_counter() - start
            what = f"{provider}, fast-math" if fast else provider
            print(f"\n{net}, {what}, {batch} x {options.side}x{options.side}, {options.threads} threads\n")
            print("| arrangement | p50, ms | fastest | time beside the exported one |\n| --- | --- | --- | --- |")
            for name, row in zip(paths, seconds, strict=True):
                p50, fastest = np.median(row) * 1e3, row.min() * 1e3
                print(f"| {name} | {p50:.1f} | {fastest:.1f} | {quartiles(row / seconds[0])} |", flush=True)


def accuracy(net: str, options: argparse.Namespace) -> None:
    """Print the worst relative error of the distance, on the CPU provider."""
    backbone, lin = load_backbone(net, None, allow_unknown=False, log=lambda _: None), load_lin(net, "0.1")
    truth = Reference(net, "0.1", backbone.state, lin)
    reference = reference_metric(net, "0.1", backbone.state, lin)
    cases = {case.name: case for case in validation_cases(BACKBONES[net].min_size, "float32")}
    differing = [case for case in cases.values() if case.name not in ("identical", "one pixel changed by 1/255")]
    rng = np.random.default_rng(0)
    nearly = []
    for _ in range(options.rounds):
        image = (rng.integers(20, 230, (1, 3, 64, 64)) / 127.5 - 1).astype(np.float32)
        changed = image.copy()
        changed[0, rng.integers(3), rng.integers(64), rng.integers(64)] += np.float32(1 / 127.5)
        nearly.append((image, changed))
    sets = {"differing": [(case.reference, case.distorted) for case in differing], "one pixel by 1/255": nearly}
    true = {name: [truth(*pair).distance for pair in pairs] for name, pairs in sets.items()}

    def row(name: str, score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        cells = []
        for which, pairs in sets.items():
            errors = np.concatenate(
                [np.abs(score(*pair) / expected - 1) for pair, expected in zip(pairs, true[which], strict=True)]
            )
            cells.append(f"{np.median(errors):.1e}, {errors.max():.1e}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    print(f"\n{net}, relative error against float64, median and worst\n")
    print(f"| | {' | '.join(f'{name} ({len(pairs)} batches)' for name, pairs in sets.items())} |")
    print("| --- | --- | --- |")
    with torch.no_grad():
        row("lpips 0.1.4 in float32", lambda a, b: reference(*map(torch.from_numpy, (a, b))).reshape(-1).numpy())
    with tempfile.TemporaryDirectory() as folder:
        for name, path in build(net, Path(folder), ARRANGEMENTS).items():
            session = Session(path, provider="cpu", threads=options.threads)
            row(name, lambda a, b, on=session: on.run({"reference": a, "distorted": b}, ["distance"])[0])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks tail", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="+", choices=BACKBONES, metavar="NET")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="pairs at once (default 1)")
    parser.add_argument("--side", type=int, default=256, metavar="PIXELS", help="of the images (default 256)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="(default 2)")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="(default 40)")
    parser.add_argument("--accuracy", action="store_true", help="errors in place of times")
    options = parser.parse_args(arguments)
    print(cpu_name())
    for net in options.nets:
        (accuracy if options.accuracy else times)(net, options)
    return 0
