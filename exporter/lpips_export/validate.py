"""A graph's numbers against the PyTorch reference, on every case, in float64, within `limits.py`."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from lpips_runtime import contract
from lpips_runtime.contract import ModelInfo
from lpips_runtime.errors import ModelError, ProviderError, ShapeError
from lpips_runtime.session import Session
from lpips_runtime.upsample import spatial_map

from .cases import Case, validation_cases
from .errors import ValidationError
from .graph import backbone_convolutions
from .limits import FEATURE_LIMITS, LIMITS, limits_of
from .metric import Pair
from .progress import Progress
from .reference import Reference, Truth
from .tracing import serialized
from .weights import BackboneWeights

__all__ = ["CaseReport", "Report", "Values", "check_against_truth", "validate"]


# Noise against noise is some tenths with every net; below this the absolute part of the limits proves nothing.
_LEAST_DISTANCE = 1e-3

# Two copies of the graph with other weights, for what real ones never or seldom show. Dead: every bias so low that
# all channels are zero everywhere, so that a missing eps gives 0/0. Faint: first layer scaled down and all later
# biases zero, so that norms are of the size of eps, and another eps, or eps elsewhere, gives another number.
_DOCTORED = {"dead": {"scale": 1.0, "bias": -1e4}, "faint": {"scale": 1e-10, "bias": 0.0}}
# In half, 1e-10 is 0; in INT8 weights are not to be exchanged.
_DOCTORED_IN = {"fp32": ("dead", "faint"), "fp16": ("dead",), "int8": ()}


@dataclass(frozen=True)
class Values:
    """What a graph says of a batch: distance [N], layers [N, L], map [N, H, W]."""

    distance: np.ndarray
    layers: np.ndarray
    map: np.ndarray


@dataclass(frozen=True)
class CaseReport:
    """Figures of one case: its size, the reference's largest distance, the largest |error| of each quantity, `share`,
    the largest error over its limit, and `relative`, the largest |error| of a distance over that distance."""

    name: str
    size: str
    distance: float
    errors: dict[str, float]
    share: float
    relative: float | None = None


@dataclass
class Report:
    """All figures of a validation, as they go into the manifest."""

    cases: list[CaseReport] = field(default_factory=list)

    @property
    def worst(self) -> dict[str, float]:
        """The largest |error| of each quantity over all cases."""
        quantities = {quantity for case in self.cases for quantity in case.errors}
        return {q: max(case.errors.get(q, 0.0) for case in self.cases) for q in sorted(quantities)}

    def as_dict(self) -> dict:
        return {"worst": self.worst, "cases": [asdict(case) for case in self.cases]}


def check_against_truth(case: str, limits: str, values: Values, truth: Truth) -> CaseReport:
    """Compare a graph's values with the reference's. Raises ValidationError if one is not finite or off limits."""
    errors, share = {}, 0.0
    for quantity, limit_of in LIMITS[limits].items():
        found, expected = getattr(values, quantity), getattr(truth, quantity)
        if found.shape != expected.shape:
            raise ValidationError(f"case {case!r}: {quantity} is {found.shape}, the reference's is {expected.shape}")
        for whose, values_ in (("", found), ("the reference's ", expected)):
            if not np.isfinite(values_).all():
                raise ValidationError(f"case {case!r}: {whose}{quantity} is not finite")
        error, limit = np.abs(found.astype(np.float64) - expected), limit_of(expected)
        errors[quantity] = float(error.max())
        at = np.unravel_index(np.argmax(error / limit), error.shape)
        share = max(share, float(error[at] / limit[at]))
        if error[at] > limit[at]:
            raise ValidationError(
                f"case {case!r}: {quantity} is {found[at]:.9g}, the reference says {expected[at]:.9g}; "
                f"off by {error[at]:.3g}, limit {limit[at]:.3g}"
            )
    height, width = truth.map.shape[1:]
    size = f"{truth.map.shape[0]}x{height}x{width}"
    apart = truth.distance > 0
    error = np.abs(values.distance[apart].astype(np.float64) - truth.distance[apart])
    relative = float(np.max(error / truth.distance[apart])) if apart.any() else None
    return CaseReport(case, size, float(truth.distance.max()), errors, share, relative)


def validate(
    paths: Sequence[Path],
    reference_of: Callable[[Mapping], Reference],
    backbone: BackboneWeights,
    progress: Progress | None = None,
    traced: Pair | None = None,
) -> list[Report]:
    """Run the graphs of one export on every case, on the CPU provider, against the reference; a Report for each.

    reference_of: backbone state -> Reference, called anew for the doctored copies. traced: the module that the graphs
    come from, to be run in PyTorch as well; needed in half, which ONNX Runtime's CPU provider computes in float32 for
    the most part, so that an overflow would not show. Raises ValidationError on the first case that is off, naming
    the quantity, both numbers and the limit.
    """
    sessions = [_opened(path) for path in paths]
    reports = [Report() for _ in paths]
    info = sessions[0].info
    cases = list(validation_cases(info.min_size, info.input))
    encoding = [
        (path, report)
        for path, session, report in zip(paths, sessions, reports, strict=True)
        if session.info.kind != "compare"
    ]
    doctored = {name: _DOCTORED[name] for name in _DOCTORED_IN[info.precision]} if encoding else {}
    title = f"validating {paths[0].name}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    with (progress or Progress()).stage(title, len(cases) + len(doctored)) as advance:
        reference = reference_of(backbone.state)
        for case in cases:
            # Case by case through all graphs, while the reference remembers the taps of its images.
            for session, report in zip(sessions, reports, strict=True):
                report.cases.append(_run_case(session, case, reference))
            if traced is not None:
                reports[0].cases.append(_run_module(traced, info, case, reference))
            advance()
        _check_that_something_was_told_apart(reports)
        sample = next(case for case in cases if case.name == "photo-like, batch of 3")
        for name, change in doctored.items():
            case = Case(f"{name} backbone", sample.reference, sample.distorted)
            changed = reference_of(_doctor_state(backbone.state, **change))
            for path, report in encoding:
                with tempfile.TemporaryDirectory() as folder:
                    copy = Path(folder, path.name)
                    copy.write_bytes(serialized(_doctor_model(onnx.load(path), **change)))
                    report.cases.append(_run_case(_opened(copy), case, changed))
            advance()
    return reports


def _check_that_something_was_told_apart(reports: Sequence[Report]) -> None:
    """The limits are absolute for small distances: with weights that give none, a graph that returns 0 would pass."""
    largest = max((case.distance for report in reports for case in report.cases), default=0.0)
    if "distance" in reports[0].worst and largest < _LEAST_DISTANCE:
        raise ValidationError(
            f"with these weights no distance of the reference reaches {_LEAST_DISTANCE:g}, the largest is "
            f"{largest:.3g}: they tell nothing apart, so nothing is proven; check the backbone and lin weights"
        )


def as_input(image: np.ndarray, info: ModelInfo) -> np.ndarray:
    """Float [N, 3, H, W] in [-1, 1] as the tensor that the graph takes."""
    if info.input == "float32":
        return image
    return np.rint((image.transpose(0, 2, 3, 1).astype(np.float64) + 1) * 127.5).astype(np.uint8)


def _as_image(image: np.ndarray, info: ModelInfo) -> np.ndarray:
    """What the reference is given for the same input: for uint8 graphs exactly u / 127.5 - 1."""
    if info.input == "float32":
        return image
    return as_input(image, info).transpose(0, 3, 1, 2) / 127.5 - 1


def _results(session: Session, inputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> Values:
    names = [contract.DISTANCE, contract.LAYERS, *(contract.depth(k) for k in range(session.depths))]
    distance, layers, *depths = session.run(inputs, names)
    return Values(distance, layers, spatial_map(depths, *size))


def _opened(path: Path) -> Session:
    try:
        return Session(path, provider="cpu", kind=None)
    except ModelError as error:
        raise ValidationError(f"the graph cannot be run: {error}") from error


def _run_case(session: Session, case: Case, reference: Reference) -> CaseReport:
    try:
        return _RUNNERS[session.info.kind](session, case, reference)
    except (ProviderError, ShapeError) as error:
        raise ValidationError(f"case {case.name!r}, {case.distorted.shape}: the graph fails on it: {error}") from error


def _check_identical(case: Case, values: Values) -> None:
    if np.array_equal(case.reference, case.distorted) and (values.distance.any() or values.map.any()):
        raise ValidationError(f"case {case.name!r}: distance is {values.distance.max():.3g}, must be exactly 0")


def _run_pair(session: Session, case: Case, reference: Reference) -> CaseReport:
    info = session.info
    inputs = {
        contract.REFERENCE: as_input(case.reference, info),
        contract.DISTORTED: as_input(case.distorted, info),
    }
    values = _results(session, inputs, case.reference.shape[2:])
    _check_identical(case, values)
    truth = reference(_as_image(case.reference, info), _as_image(case.distorted, info))
    return check_against_truth(case.name, limits_of(info), values, truth)


def _run_module(module: Pair, info: ModelInfo, case: Case, reference: Reference) -> CaseReport:
    pair = [torch.from_numpy(as_input(image, info)) for image in (case.reference, case.distorted)]
    with torch.no_grad():
        distance, layers, *depths = (output.numpy() for output in module(*pair))
    values = Values(distance, layers, spatial_map(depths, *case.reference.shape[2:]))
    truth = reference(_as_image(case.reference, info), _as_image(case.distorted, info))
    return check_against_truth(f"{case.name}, in PyTorch", limits_of(info), values, truth)


def _run_features(session: Session, case: Case, reference: Reference) -> CaseReport:
    names = [contract.feature(k) for k in range(session.depths)]
    found = session.run({contract.IMAGE: as_input(case.distorted, session.info)}, names)
    expected = reference.features(_as_image(case.distorted, session.info))
    error, limit = FEATURE_LIMITS[session.info.precision]
    worst = 0.0
    for name, ours, theirs in zip(names, found, expected, strict=True):
        if ours.shape != theirs.shape or not np.isfinite(ours).all():
            raise ValidationError(f"case {case.name!r}: {name} is {ours.shape}, the reference's is {theirs.shape}")
        worst = max(worst, error(ours, theirs))
    if worst > limit:
        raise ValidationError(f"case {case.name!r}: features are off by {worst:.3g}, limit {limit:g}")
    count, _, height, width = case.distorted.shape
    return CaseReport(case.name, f"{count}x{height}x{width}", 0.0, {"features": worst}, worst / limit)


def _run_compare(session: Session, case: Case, reference: Reference) -> CaseReport:
    """The first reference against every distorted image of the case, so that the broadcast is proven too."""
    info = session.info
    sides = {"reference": case.reference[:1], "distorted": case.distorted}
    inputs = {
        contract.feature(k, side): feature.astype(np.float32)
        for side, image in sides.items()
        for k, feature in enumerate(reference.features(_as_image(image, info)))
    }
    values = _results(session, inputs, case.reference.shape[2:])
    truth = reference(_as_image(case.reference[:1], info), _as_image(case.distorted, info))
    return check_against_truth(case.name, limits_of(info), values, truth)


_RUNNERS = {"pair": _run_pair, "features": _run_features, "compare": _run_compare}


def _doctor_model(model: onnx.ModelProto, *, scale: float, bias: float) -> onnx.ModelProto:
    """The same nodes with the weights of `_doctor_state` in them.

    Each convolution gets a bias of its own: torch.onnx removes a bias of zeros and lets equal ones share a tensor.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = backbone_convolutions(model)
    entrances = {node.input[1] for node in convolutions[:1]}
    for number, node in enumerate(convolutions):
        weight = numpy_helper.to_array(tensors[node.input[1]])
        zeros = np.zeros(len(weight), weight.dtype)
        own = numpy_helper.to_array(tensors[node.input[2]]) if len(node.input) > 2 else zeros
        changed = _doctor(weight, own, first=node.input[1] in entrances, scale=scale, bias=bias)
        names = [f"doctored_{number}_weight", f"doctored_{number}_bias"]
        model.graph.initializer.extend(map(numpy_helper.from_array, changed, names))
        node.input[:] = [node.input[0], *names]
    return model


def _doctor_state(state: Mapping[str, torch.Tensor], *, scale: float, bias: float) -> dict[str, torch.Tensor]:
    doctored = {}
    for key in state:
        if key.endswith(".weight"):
            names = key, key.replace(".weight", ".bias")
            values = (state[name].numpy() for name in names)
            changed = _doctor(*values, first=key == "features.0.weight", scale=scale, bias=bias)
            doctored.update(zip(names, map(torch.from_numpy, changed), strict=True))
    return doctored


def _doctor(
    weight: np.ndarray, own_bias: np.ndarray, *, first: bool, scale: float, bias: float
) -> tuple[np.ndarray, np.ndarray]:
    if first and not bias:
        return weight * weight.dtype.type(scale), own_bias * own_bias.dtype.type(scale)
    return weight.copy(), np.full_like(own_bias, bias)
