"""Which convolutions run in INT8, and how: the cheapest choice that agrees with float32 well enough.

Each convolution costs accuracy when it is quantised, and time when it is not. What each costs alone is measured on
pairs of the calibration images. Steps that would help (leaving one in float, or giving it two planes) are put in the
order of what they give per multiplication; a run of them is taken, by bisection, with which the held-out pairs agree
with float32, and of it every step is taken back that turns out not to be needed, the dearest first.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from lpips_runtime.contract import DISTANCE, DISTORTED, REFERENCE, ModelInfo
from lpips_runtime.cpu import exact_int8
from lpips_runtime.ort import onnxruntime

from .agreement import SMALL, Agreement, agreement
from .calibration import Calibration, Pairs
from .equalisation import Range, Stage, convolution_names, convolutions, equalised, stages
from .errors import CalibrationError, ValidationError
from .metric import Comparator, Encoder
from .planes import with_planes
from .progress import Progress
from .quantize import FLAVOURS, quantised
from .tracing import trace

__all__ = ["Plan", "find_plan", "rank_limit"]

_BATCH = 8

# What a step adds to the time of a convolution, in units of its multiplications in INT8: float is some four times as
# slow, two planes are twice as much work.
_FLOAT, _PLANES = 3.0, 1.0

# How many times max_error the mean error of one kind of distortion may be. VGG16 all in INT8 met the other limits on
# the held-out pairs, with a change of contrast 19 % off, and reached a Spearman of 0.998 on other photographs.
_KIND = 4

# Two planes are thought of where a convolution makes up so much of the sum of all squared errors.
_MATTERS = 0.01


def rank_limit(max_error: float) -> float:
    """The least Spearman correlation admitted for a limit of the mean relative error.

    0.99969 for 2.5 %, 0.99938 for 5 %. Graphs that met the error limit alone, on few and tame held-out pairs, ordered
    other photographs worse than that: at 0.9991 here SqueezeNet for TensorRT reached 0.9945 there.
    """
    return 1 - max_error / 80


@dataclass(frozen=True)
class Choice:
    """Numbers of the convolutions that stay in float, and of those that read two planes."""

    in_float: frozenset[int] = frozenset()
    in_planes: frozenset[int] = frozenset()

    def with_step(self, step: "Step") -> "Choice":
        in_float = self.in_float | step.to_float
        return Choice(in_float, (self.in_planes | step.to_planes) - in_float)

    def without(self, number: int) -> "Choice":
        return Choice(self.in_float - {number}, self.in_planes - {number})


@dataclass(frozen=True)
class Step:
    """One way to be more exact. gain: squared relative error it removes; price: multiplications it adds."""

    to_float: frozenset[int]
    to_planes: frozenset[int]
    gain: float
    price: float


@dataclass(frozen=True, eq=False)
class Plan:
    """How the backbone is quantised, enough to do it to each graph of an export.

    encoder: equalised, with planes. ranges: of what each convolution reads and writes. choice: see there.
    agreement: with float32, on the held-out pairs. facts: what the manifest says of it.
    """

    encoder: Encoder
    ranges: Sequence[tuple[Range, Range]]
    choice: Choice
    target: str
    agreement: Agreement
    facts: dict

    def applied(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The INT8 graph of a float32 graph that was traced from `encoder`."""
        return quantised(model, self.ranges, self.target, self.choice.in_float)


def find_plan(
    encoder: Encoder,
    comparator: Comparator,
    info: ModelInfo,
    calibration: Calibration,
    max_error: float,
    progress: Progress | None = None,
) -> Plan:
    """Measure, choose, and judge. info: of the pair graph.

    Raises CalibrationError if the held-out pairs are too much alike to judge by, ValidationError if no choice meets
    max_error and rank_limit(max_error).
    """
    return _Search(encoder, comparator, info, calibration, max_error, progress or Progress()).run()


class _Search:
    def __init__(
        self,
        encoder: Encoder,
        comparator: Comparator,
        info: ModelInfo,
        calibration: Calibration,
        max_error: float,
        progress: Progress,
    ) -> None:
        self.info = info
        self.flavour = FLAVOURS[info.target]
        self.comparator = comparator
        self.calibration = calibration
        self.max_error = max_error
        self.progress = progress
        with progress.stage(f"equalising channels on {len(calibration.images)} crops"):
            self.encoder, self.ranges = equalised(encoder, torch.from_numpy(as_input(calibration.images, info)))
        self.names = [f"features.{name.split('.', 1)[1]}" for name in convolution_names(self.encoder)]
        self.every = frozenset(range(len(self.names)))
        self.work = _multiplications(self.encoder, torch.from_numpy(as_input(calibration.images[:1], info)))
        self.writers = _writers(self.encoder)
        self.models: dict[frozenset[int], onnx.ModelProto] = {}
        self.judged: dict[Choice, Agreement] = {}
        with progress.stage("scoring the held-out pairs in float32"):
            plain = _Graph(trace(encoder, comparator, info), info)
            self.truth = {id(pairs): plain.distances(pairs) for pairs in (calibration.costs, calibration.held_out)}
        if self.truth[id(calibration.held_out)].max() < SMALL or self.truth[id(calibration.costs)].max() < SMALL:
            raise CalibrationError(
                f"no distorted calibration image is {SMALL:g} from its original: the images are blank or nearly so; "
                "give photographs like those you will score"
            )

    def run(self) -> Plan:
        costs, finer = self._measure()
        choices = list(self._choices(costs, finer))
        at = bisect.bisect_left(choices, True, key=self._good)
        if at == len(choices):
            raise ValidationError(self._failure(self._judged(choices[-1])))
        choice = choices[at]
        for number in sorted(choice.in_float | choice.in_planes, key=lambda number: -self._price(choice, number)):
            if self._good(fewer := choice.without(number)):
                choice = fewer
        found = self._judged(choice)
        return Plan(
            with_planes(self.encoder, choice.in_planes, self.ranges, self.flavour.levels),
            self.ranges,
            choice,
            self.info.target,
            found,
            self._facts(choice, costs, found),
        )

    def _good(self, choice: Choice) -> bool:
        return self._meets(self._judged(choice))

    def _meets(self, found: Agreement) -> bool:
        return (
            found.error <= self.max_error
            and found.worst_kind()[1] <= _KIND * self.max_error
            and found.spearman >= rank_limit(self.max_error)
        )

    def _measure(self) -> tuple[dict[int, float], dict[int, float]]:
        """Mean relative error of each convolution alone in INT8, and of those that matter and can, in two planes."""
        title = f"measuring what each of {len(self.every)} convolutions costs"
        costs = self._costs(title, self._traced(frozenset()), self.every)
        total = sum(cost**2 for cost in costs.values())
        mattering = frozenset(number for number, cost in costs.items() if number and cost**2 >= _MATTERS * total)
        title = f"measuring what {len(mattering)} of them cost in two planes"
        return costs, self._costs(title, self._traced(self.every), mattering)

    def _costs(self, title: str, model: onnx.ModelProto, numbers: frozenset[int]) -> dict[int, float]:
        pairs = self.calibration.costs
        costs = {}
        with self.progress.stage(title, len(numbers)) as advance:
            for number in sorted(numbers):
                graph = quantised(model, self.ranges, self.info.target, self.every - {number})
                costs[number] = self._agreement(pairs, _Graph(graph, self.info).distances(pairs)).error
                advance()
        return costs

    def _choices(self, costs: dict[int, float], finer: dict[int, float]) -> Iterator[Choice]:
        """From everything in INT8 to all but one convolution in float, by the step that gives most for its price."""
        choice = Choice()
        while choice.in_float != self.every:
            yield choice
            steps = self._steps(choice, costs, finer)
            choice = choice.with_step(max(steps, key=lambda step: step.gain / step.price))

    def _price(self, choice: Choice, number: int) -> float:
        return (_FLOAT if number in choice.in_float else _PLANES) * self.work[number]

    def _steps(self, choice: Choice, costs: dict[int, float], finer: dict[int, float]) -> Iterator[Step]:
        for number in self.every - choice.in_float:
            # Errors of different convolutions are nearly independent, so that their squares add up.
            now = (finer if number in choice.in_planes else costs)[number]
            spent = _PLANES if number in choice.in_planes else 0.0
            yield Step(frozenset({number}), frozenset(), now**2, (_FLOAT - spent) * self.work[number])
            if number in finer and number not in choice.in_planes and finer[number] < costs[number]:
                # Of an input that was rounded where it was written, no remainder is left for a second plane.
                needed = self.writers[number] - choice.in_float if self.flavour.rounds_outputs else frozenset[int]()
                gain = costs[number] ** 2 - finer[number] ** 2 + sum(costs[writer] ** 2 for writer in needed)
                price = _PLANES * self.work[number] + _FLOAT * sum(self.work[writer] for writer in needed)
                yield Step(needed, frozenset({number}), gain, price)

    def _judged(self, choice: Choice) -> Agreement:
        if choice not in self.judged:
            self.judged[choice] = self._judge(choice)
        return self.judged[choice]

    def _judge(self, choice: Choice) -> Agreement:
        pairs = self.calibration.held_out
        title = f"judging {len(self.every - choice.in_float)} of {len(self.every)} convolutions in INT8"
        with self.progress.stage(f"{title}, {len(choice.in_planes)} of two planes"):
            model = self._traced(choice.in_planes)
            graph = quantised(model, self.ranges, self.info.target, choice.in_float)
            return self._agreement(pairs, _Graph(graph, self.info).distances(pairs))

    def _agreement(self, pairs: Pairs, found: np.ndarray) -> Agreement:
        return agreement(self.truth[id(pairs)], found, pairs.source, pairs.distortion)

    def _traced(self, in_planes: frozenset[int]) -> onnx.ModelProto:
        if in_planes not in self.models:
            encoder = with_planes(self.encoder, in_planes, self.ranges, self.flavour.levels)
            self.models[in_planes] = trace(encoder, self.comparator, self.info)
        return self.models[in_planes]

    def _failure(self, found: Agreement) -> str:
        return (
            f"INT8 misses its limits on {found.pairs} held-out pairs even with all but one convolution in float: mean "
            f"relative error {found.error:.2%}, {found.worst_kind()[0]} {found.worst_kind()[1]:.1%}, Spearman "
            f"{found.spearman:.5f}; limits {self.max_error:.2%}, {_KIND * self.max_error:.1%} and "
            f"{rank_limit(self.max_error):.5f}; raise --max-error, give more images, or use --precision fp16"
        )

    def _facts(self, choice: Choice, costs: dict[int, float], found: Agreement) -> dict[str, Any]:
        def named(numbers: frozenset[int]) -> dict[str, float]:
            return {self.names[number]: costs[number] for number in sorted(numbers)}

        return {
            "target": self.info.target,
            "calibration": self.calibration.facts,
            "limits": {
                "error": self.max_error,
                "error_of_a_kind": _KIND * self.max_error,
                "spearman": rank_limit(self.max_error),
            },
            "cost_alone": named(self.every),
            "in_float": named(choice.in_float),
            "two_planes": named(choice.in_planes),
            "agreement": found.as_dict(),
        }


def _multiplications(encoder: Encoder, image: torch.Tensor) -> list[int]:
    """Of each convolution, on one image."""
    found: list[int] = []

    def count(convolution: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        found.append(convolution.weight.numel() * output[0, 0].numel())

    handles = [convolution.register_forward_hook(count) for convolution in convolutions(encoder)]
    with torch.no_grad():
        encoder(image)
    for handle in handles:
        handle.remove()
    return found


def _writers(encoder: Encoder) -> list[frozenset[int]]:
    """Of each convolution, the numbers of those that write what it reads; none for the first."""
    number = {conv: at for at, conv in enumerate(convolutions(encoder))}
    reads: dict[nn.Conv2d, Stage] = {conv: stage for stage in stages(encoder) for conv in stage.readers}
    return [
        frozenset(number[writer] for writer in reads[conv].writers) if conv in reads else frozenset() for conv in number
    ]


class _Graph:
    """A pair graph on the CPU provider."""

    def __init__(self, model: onnx.ModelProto, info: ModelInfo) -> None:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry(*exact_int8())
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._info = info

    def distances(self, pairs: Pairs) -> np.ndarray:
        """float32 [P]"""
        found = []
        for start in range(0, len(pairs), _BATCH):
            part = slice(start, start + _BATCH)
            sides = {REFERENCE: pairs.reference[part], DISTORTED: pairs.distorted[part]}
            inputs = {name: as_input(images, self._info) for name, images in sides.items()}
            found.append(self._session.run([DISTANCE], inputs)[0])
        return np.concatenate(found)


def as_input(images: np.ndarray, info: ModelInfo) -> np.ndarray:
    """uint8 [N, H, W, 3] as the graph of this artifact takes it."""
    if info.input == "uint8":
        return images
    return images.transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1)
