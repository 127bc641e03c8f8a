"""How what scoring takes grows: with pairs at once, pixels, threads, and the images of a set.

    python -m benchmarks scaling
    python -m benchmarks scaling artifacts/lpips_alex_fp32.onnx -o results/scaling.json

All points of a curve take turns, each in a process of its own. To curves of five points or more time = constant + per
unit * n^exponent is fitted, every point weighing the same relative to its time. Sets of images are scored as streams of
them are, each image encoded once (the graphs of --split must lie beside the model), and pair by pair by `lpips`.
Written are the report, REPORT.json, and what `python -m benchmarks report` makes of it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lpips_runtime.workers import cores

from .job import Job
from .runs import Step, add_options, measured_steps, model_info, models_at_hand, published
from .schema import EXPONENTS, Cell, Fit, measured, write_report
from .subjects import REUSE

__all__ = ["fits", "fitted_growth", "main"]

_SIDE, _SIDE_OF_SETS = 256, 128
# Three numbers are fitted: through fewer points than these there is a curve whatever they are.
_POINTS = 5
_EXPONENTS = np.linspace(*EXPONENTS, 451)


def _threads() -> list[int]:
    """1, 2, 4 ... and all the cores that this process may use."""
    count = cores()
    return sorted({count, *(2**k for k in range(count.bit_length()) if 2**k <= count)})


def _pair(net: str, model: str, threads: int, side: int = _SIDE, batch: int = 1) -> Job:
    return Job(net, model, side, batch, threads)


# What varies -> its points, and the job of one: (net, model, threads, point).
_CURVES: Mapping[str, tuple[Callable[[], Sequence[int]], Callable[[str, str, int, int], Job]]] = {
    "batch": (lambda: (1, 2, 4, 8, 16), lambda net, model, threads, at: _pair(net, model, threads, batch=at)),
    "pixels": (
        lambda: [side * side for side in (64, 128, 256, 512, 1024)],
        lambda net, model, threads, at: _pair(net, model, threads, side=round(at**0.5)),
    ),
    "threads": (_threads, lambda net, model, _, at: _pair(net, model, at)),
    "images, all pairs": (
        lambda: (2, 4, 8, 16, 24),
        lambda net, model, threads, at: _pair(net, model, threads, _SIDE_OF_SETS, at),
    ),
    "images, one against the others": (
        lambda: (2, 4, 8, 16, 32),
        lambda net, model, threads, at: _pair(net, model, threads, _SIDE_OF_SETS, at),
    ),
}


def _subjects(against: str) -> Sequence[str]:
    if against.startswith("images, "):
        return [REUSE[against.removeprefix("images, "), way].title for way in ("reusing", "lpips")]
    return ["ours", "eager"]


def fitted_growth(at: Sequence[float], ms: Sequence[float]) -> tuple[float, float, float, float]:
    """Exponent, constant and factor of ms = constant + factor * at^exponent, and the largest relative distance of a
    point from it.

    at, ms: three points at least, all above 0. Constant and factor are not negative.
    """
    x, y = np.asarray(at, float), np.asarray(ms, float)
    best = (np.inf, 0.0, 0.0, 0.0)
    for exponent in _EXPONENTS:
        powers = x**exponent
        for columns in ([powers], [powers, np.ones_like(x)]):
            terms = np.stack(columns, 1) / y[:, None]
            found = np.linalg.lstsq(terms, np.ones_like(y), rcond=None)[0]
            error = float(np.abs(terms @ found - 1).max())
            # A constant must earn its place: it is taken where it comes nearer by a hundredth of the way.
            if (found >= 0).all() and error < best[0] * (0.99 if len(columns) > 1 else 1):
                best = error, float(exponent), float([*found, 0.0][1]), float(found[0])
    error, exponent, constant, factor = best
    return exponent, constant, factor, error


def fits(cells: Sequence[Cell]) -> list[Fit]:
    """Of curves with points enough: none is what is wrong, or was measured while others had some of the machine."""
    curves: dict[tuple[Any, ...], list[Any]] = {}
    for cell in cells:
        if measured(cell) and cell.get("steady") and not cell.get("wrong"):
            curves.setdefault((cell["net"], cell["subject"], cell.get("against")), []).append(cell)
    found: list[Fit] = []
    for (net, subject, against), points in curves.items():
        if len(points) < _POINTS:
            continue
        growth = fitted_growth([cell["at"] for cell in points], [cell["ms"]["p50"] for cell in points])
        exponent, constant, factor, residual = growth
        found.append(
            {
                "net": net,
                "subject": subject,
                "against": against,
                "exponent": exponent,
                "constant_ms": constant,
                "per_unit_ms": factor,
                "residual": residual,
                "points": len(points),
            }
        )
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, "scaling.json", 7)
    parser.add_argument(
        "--against", nargs="+", choices=_CURVES, metavar="WHAT", help=f"(default all: {'; '.join(_CURVES)})"
    )
    options = parser.parse_args(arguments)
    models = models_at_hand(options)
    points: dict[tuple[str, str], tuple[str, int]] = {}

    def plan(folder: str) -> list[Step]:
        steps = []
        for model in models:
            net = model_info(model).net
            for against in options.against or _CURVES:
                values, job_of = _CURVES[against]
                title, of = f"{net} against {against}", {}
                for at in values():
                    for subject in _subjects(against):
                        of[f"{subject}, {at}"] = subject, job_of(net, str(model), options.threads, at)
                        points[title, f"{subject}, {at}"] = against, at
                steps.append(Step(title, of))
        return steps

    with measured_steps("scaling", plan, options, arguments) as report:
        # Cells come in the order of the plan.
        for cell, (against, at) in zip(report["cells"], points.values(), strict=True):
            cell["against"], cell["at"] = against, at  # pyright: ignore[reportGeneralTypeIssues]
        report["fits"] = fits(report["cells"])
        write_report(options.output, report)
    return published(options.output, report)
