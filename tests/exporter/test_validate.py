"""The proof itself: its limits, its cases, its doctored copies, its reference, and the table of backbones."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import nn

from lpips_export import spec, validate
from lpips_export.backbones import BACKBONES, STRIDE, Backbone
from lpips_export.cases import Case, validation_cases
from lpips_export.errors import ValidationError
from lpips_export.limits import LIMITS
from lpips_export.reference import Reference, Truth, lpips
from lpips_export.tracing import serialized
from lpips_export.validate import Values, check_against_truth
from lpips_export.weights import load_backbone, load_lin
from lpips_runtime.session import Session

Exported = Callable[..., list[Path]]
NETS = tuple(BACKBONES)
QUANTITIES = ("distance", "layers", "map")

# --- limits


def limit(precision: str, quantity: str, d: float) -> float:
    """DESIGN.md, section 8, for a value that is also the peak of its map; in half with a part that is relative, below
    which no graph gets by with a constant, and in INT8 a guard alone: its own limits are those of int8.py."""
    return {
        ("fp32", "distance"): min(1e-5 * max(1, d), 1e-7 + 1e-3 * d),
        ("fp16", "distance"): min(1e-3 * max(1, d), 1e-6 + 0.5 * d),
        ("fp16", "map"): 5e-3 * max(1, d),
        ("fp16 baseline", "distance"): 5 * min(1e-3 * max(1, d), 1e-6 + 0.5 * d),
        ("fp16 baseline", "map"): 2.5e-2 * max(1, d),
        ("int8", "distance"): 0.02 + 0.25 * d,
        ("int8", "map"): 0.05 + 0.25 * d,
    }[precision, "map" if quantity == "map" and precision != "fp32" else "distance"]


def truth(value: float) -> Truth:
    """A batch of two, whose second item is `value` in everything; the first is 0.25."""
    arrays = {"distance": np.full(2, 0.25), "layers": np.full((2, 5), 0.25), "map": np.full((2, 4, 6), 0.25)}
    for array in arrays.values():
        array[1] = value
    return Truth(**arrays)


def found(of: Truth, quantity: str, value: float) -> Values:
    arrays = {name: getattr(of, name).copy() for name in QUANTITIES}
    arrays[quantity].flat[-1] = value
    return Values(**arrays)


def test_every_quantity_has_a_limit() -> None:
    assert {precision: tuple(limits) for precision, limits in LIMITS.items()} == dict.fromkeys(
        (*spec.CHOICES["precision"], "fp16 baseline"), QUANTITIES
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("value", [0.0, 1e-6, 4e-5, 0.002, 0.009, 0.0101, 0.7, 1.0, 9.0])
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("precision", LIMITS)
def test_an_error_just_under_the_limit_passes_and_just_over_fails(
    precision: str, quantity: str, value: float, sign: int
) -> None:
    expected = truth(value)
    off = sign * limit(precision, quantity, value)
    report = check_against_truth("a case", precision, found(expected, quantity, value + 0.999 * off), expected)
    assert report.share == pytest.approx(0.999)
    assert report.errors[quantity] == pytest.approx(0.999 * abs(off))
    assert (report.name, report.size, report.distance) == ("a case", "2x4x6", max(0.25, value))
    with pytest.raises(
        ValidationError, match=rf"case 'a case': {quantity} is .* the reference says .* off by .* limit"
    ):
        check_against_truth("a case", precision, found(expected, quantity, value + 1.001 * off), expected)


# The smallest of which 0 is no answer. INT8's guard is no proof of small ones, which int8.py measures.
@pytest.mark.parametrize(("precision", "value"), [("fp32", 1.1e-7), ("fp16", 2.1e-6), ("int8", 0.027)])
def test_a_graph_that_gives_zero_for_nearly_equal_images_fails(precision: str, value: float) -> None:
    expected = truth(value)
    with pytest.raises(ValidationError, match="distance is 0"):
        check_against_truth("dark", precision, found(expected, "distance", 0), expected)


def test_the_peak_that_half_s_map_is_limited_by_is_that_of_its_own_image() -> None:
    """Not of another one in the batch; and anywhere in the map the same error is admitted."""
    expected = truth(9.0)
    expected.map[1, 0, 0] = 0.0
    for at, limit_there in (((0, 3, 5), 5e-3), ((1, 0, 0), 45e-3)):
        for share in (0.999, 1.001):
            values = found(expected, "distance", 9.0)
            values.map[at] += share * limit_there
            if share < 1:
                check_against_truth("a case", "fp16", values, expected)
            else:
                with pytest.raises(ValidationError, match="map is"):
                    check_against_truth("a case", "fp16", values, expected)


def test_the_relative_error_is_the_largest_of_the_pairs_that_differ() -> None:
    expected = truth(4e-5)
    report = check_against_truth("dark", "fp16", found(expected, "distance", 5e-5), expected)
    assert report.relative == pytest.approx(0.25)
    nothing = truth(0)
    nothing.distance[0] = 0
    assert check_against_truth("equal", "fp16", found(nothing, "distance", 5e-7), nothing).relative is None


def test_equal_numbers_have_no_error() -> None:
    report = check_against_truth("equal", "fp32", found(truth(0), "map", 0), truth(0))
    assert report.errors == dict.fromkeys(QUANTITIES, 0.0)
    assert report.share == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_what_is_not_finite_fails(quantity: str, bad: float) -> None:
    with pytest.raises(ValidationError, match=f"case 'c': {quantity} is not finite"):
        check_against_truth("c", "fp32", found(truth(0.1), quantity, bad), truth(0.1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reference_that_is_not_finite_proves_nothing(bad: float) -> None:
    with pytest.raises(ValidationError, match="the reference's distance is not finite"):
        check_against_truth("c", "fp32", found(truth(0.1), "map", 0.1), truth(bad))


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_another_shape_fails_even_where_it_would_broadcast(quantity: str) -> None:
    expected = truth(0.25)
    values = found(expected, quantity, 0.25)
    cut = {name: getattr(values, name) for name in QUANTITIES}
    cut[quantity] = cut[quantity][:1]
    with pytest.raises(ValidationError, match=f"case 'c': {quantity} is .*, the reference's is"):
        check_against_truth("c", "fp32", Values(**cut), expected)


# --- cases


@pytest.fixture(scope="module", params=["float32", "uint8"])
def image_input(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=NETS)
def smallest(request: pytest.FixtureRequest) -> int:
    return BACKBONES[request.param].min_size


@pytest.fixture(scope="module")
def cases(smallest: int, image_input: str) -> dict[str, Case]:
    made = list(validation_cases(smallest, image_input))
    named = {case.name: case for case in made}
    assert len(named) == len(made)
    return named


def test_the_cases_are_the_same_each_time(cases: dict[str, Case], smallest: int, image_input: str) -> None:
    for again in validation_cases(smallest, image_input):
        np.testing.assert_array_equal(again.reference, cases[again.name].reference)
        np.testing.assert_array_equal(again.distorted, cases[again.name].distorted)


def test_every_case_is_a_pair_that_lpips_takes(cases: dict[str, Case], smallest: int) -> None:
    for case in cases.values():
        for image in (case.reference, case.distorted):
            assert image.dtype == np.float32
            assert image.shape == case.reference.shape
            assert image.shape[1] == 3
            assert min(image.shape[2:]) >= smallest
            assert np.abs(image).max() <= 1


def test_the_cases_cover_what_has_gone_wrong(cases: dict[str, Case], smallest: int) -> None:
    shapes = {case.reference.shape for case in cases.values()}
    sizes = {shape[2:] for shape in shapes}
    assert {1, 3} <= {shape[0] for shape in shapes}
    assert (smallest, smallest) in sizes
    assert any(height == smallest < width for height, width in sizes)
    assert any(height % 2 and width % 2 for height, width in sizes if smallest not in (height, width))
    assert any(height > 2 * width for height, width in sizes)
    assert any(width > 2 * height for height, width in sizes)
    assert any(height * width >= 384 * 512 for height, width in sizes)


def test_some_pair_is_identical_and_some_is_another_one_swapped(cases: dict[str, Case]) -> None:
    identical = [case for case in cases.values() if np.array_equal(case.reference, case.distorted)]
    assert [case.name for case in identical] == ["identical"]
    assert not np.shares_memory(identical[0].reference, identical[0].distorted)
    swapped = [
        (one.name, other.name)
        for one, other in itertools.permutations(cases.values(), 2)
        if np.array_equal(one.reference, other.distorted) and np.array_equal(one.distorted, other.reference)
    ]
    assert ("photo-like, odd", "the same, swapped") in swapped


def test_one_pixel_is_changed_by_exactly_one_level(cases: dict[str, Case]) -> None:
    case = cases["one pixel changed by 1/255"]
    levels = [(image.astype(np.float64) + 1) * 127.5 for image in (case.reference, case.distorted)]
    change = levels[1] - levels[0]
    for image in change:
        assert np.count_nonzero(image) == 1
        assert image[image != 0] == pytest.approx(1, abs=1e-4)


def test_a_dark_pair_is_nearly_equal(cases: dict[str, Case]) -> None:
    case = cases["dark and nearly equal"]
    levels = [(image.astype(np.float64) + 1) * 127.5 for image in (case.reference, case.distorted)]
    assert max(level.max() for level in levels) < 13
    changed = np.abs(levels[1] - levels[0]) > 0.5
    assert 0 < changed.mean() < 0.05
    assert all(image.any() for image in changed)


def test_black_meets_white_and_flat_meets_flat(cases: dict[str, Case]) -> None:
    black_on_white, flat = cases["black on white"], cases["flat fields"]
    assert np.unique(black_on_white.reference) == [1]
    assert np.array_equal(np.unique(black_on_white.distorted), [-1, 1])
    assert np.all(flat.reference == flat.reference[:, :, :1, :1])
    assert not np.array_equal(flat.reference, flat.distorted)


@pytest.mark.parametrize("net", NETS)
def test_for_uint8_graphs_every_value_lies_on_the_8_bit_grid(net: str) -> None:
    for case in validation_cases(BACKBONES[net].min_size, "uint8"):
        for image in (case.reference, case.distorted):
            level = np.rint((image.astype(np.float64) + 1) * 127.5)
            assert 0 <= level.min() <= level.max() <= 255
            np.testing.assert_array_equal(image, (level / 127.5 - 1).astype(np.float32))


# --- doctored copies


@pytest.fixture(scope="module", params=NETS)
def proven(
    request: pytest.FixtureRequest, exported: Exported, random_backbone: Callable[[str], Path]
) -> tuple[Path, Any, Callable[[Any], Reference]]:
    """A pair graph, its backbone's weights, and weights -> reference."""
    net = request.param
    backbone = load_backbone(net, random_backbone(net), allow_unknown=True, log=lambda line: None)
    lin = load_lin(net, "0.1")
    path, *_ = exported(net=net, split=True)  # as in test_parity.py, so that it is made once
    return path, backbone, lambda state: Reference(net, "0.1", state, lin)


def doctored(path: Path, kind: str, folder: Path) -> Session:
    copy = folder / path.name
    copy.write_bytes(serialized(validate._doctor_model(onnx.load(path), **validate._DOCTORED[kind])))
    return Session(copy, provider="cpu")


def sample_of(session: Session) -> Case:
    cases = validation_cases(session.info.min_size, session.info.input)
    return next(case for case in cases if case.name == "photo-like, batch of 3")


def test_the_dead_copy_is_dead_at_every_depth(proven: tuple, tmp_path: Path) -> None:
    path, backbone, reference_of = proven
    session = doctored(path, "dead", tmp_path)
    case = sample_of(session)
    inputs = {"reference": case.reference, "distorted": case.distorted}
    names = ["distance", "layers", *(f"depth_{k}" for k in range(session.depths))]
    for name, values in zip(names, session.run(inputs, names), strict=True):
        assert np.array_equal(values, np.zeros_like(values)), name
    state = validate._doctor_state(backbone.state, **validate._DOCTORED["dead"])
    assert not reference_of(state)(case.reference, case.distorted).distance.any()


def test_the_faint_copy_has_norms_of_the_size_of_eps(proven: tuple) -> None:
    path, backbone, reference_of = proven
    state = validate._doctor_state(backbone.state, **validate._DOCTORED["faint"])
    case = sample_of(Session(path, provider="cpu"))
    lengths = [np.sqrt((tap**2).sum(1)).max() for tap in reference_of(state).features(case.reference)]
    # f / (|f| + eps) is shorter than 1 by a share that a limit of 1e-5 sees.
    assert any(1e-3 < length < 1 - 1e-3 for length in lengths), lengths


# VGG would take 45 seconds.
@pytest.mark.parametrize("proven", ["alex", "squeeze"], indirect=True)
def test_another_eps_is_caught_by_the_faint_copy_and_by_no_case(proven: tuple, tmp_path: Path) -> None:
    path, backbone, reference_of = proven
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.size == 1 and value.dtype == np.float32 and value.item() == np.float32(1e-10):
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(value, 2e-10), tensor.name))
    wrong = tmp_path / path.name
    wrong.write_bytes(serialized(model))
    assert wrong.read_bytes() != path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "_DOCTORED_IN", {"fp32": ()})
        validate.validate([wrong], reference_of, backbone)
    with pytest.raises(ValidationError, match="faint backbone"):
        validate.validate([wrong], reference_of, backbone)


# --- the reference


def plain(net: str, version: str, backbone: Path, baseline: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = lpips.LPIPS(net=net, version=version, lpips=not baseline, pnet_rand=True, verbose=False)
    state = load_file(backbone)
    own = metric.net.state_dict()
    metric.net.load_state_dict({key: state[f"features.{key.split('.', 1)[1]}"] for key in own}, strict=True)
    return metric.double().eval()


@pytest.mark.parametrize(
    ("net", "version", "lin"), [*itertools.product(NETS, ["0.1", "0.0"], [None]), ("alex", "0.1", "none")]
)
def test_the_reference_is_plain_lpips_in_float64(
    net: str, version: str, lin: Any, random_backbone: Callable[[str], Path]
) -> None:
    metric = plain(net, version, random_backbone(net), lin == "none")
    state = load_backbone(net, random_backbone(net), allow_unknown=True, log=lambda line: None).state
    reference = Reference(net, version, state, load_lin(net, version, lin))
    pair = np.random.default_rng(8).uniform(-1, 1, (2, 2, 3, 40, 50))
    # Twice, with the images swapped: nothing of one call may stay for the next.
    for one, other in (pair, pair[::-1]):
        ours = reference(one, other)
        with torch.no_grad():
            tensors = torch.from_numpy(one.copy()), torch.from_numpy(other.copy())
            metric.spatial = False
            distance, layers = metric(*tensors, retPerLayer=True)
            metric.spatial = True
            spatial = metric(*tensors)
        assert ours.distance.dtype == ours.layers.dtype == ours.map.dtype == np.float64
        np.testing.assert_allclose(ours.distance, distance.flatten().numpy(), rtol=1e-12)
        np.testing.assert_allclose(ours.layers, np.stack([layer.flatten() for layer in layers], 1), rtol=1e-12)
        np.testing.assert_allclose(ours.map, spatial[:, 0].numpy(), rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(ours.layers.sum(1), ours.distance, rtol=1e-12)


def test_the_reference_takes_one_image_against_many_and_mistakes_none_for_another(
    random_backbone: Callable[[str], Path],
) -> None:
    state = load_backbone("alex", random_backbone("alex"), allow_unknown=True, log=lambda line: None).state
    reference = Reference("alex", "0.1", state, load_lin("alex", "0.1"))
    one, many = np.random.default_rng(10).uniform(-1, 1, (2, 3, 3, 40, 48))
    first = np.repeat(one[:1], len(many), 0)
    broadcast, repeated = reference(one[:1], many), reference(first, many)
    np.testing.assert_allclose(broadcast.distance, repeated.distance, rtol=1e-12)
    np.testing.assert_allclose(broadcast.layers, repeated.layers, rtol=1e-12)
    np.testing.assert_allclose(broadcast.map, repeated.map, rtol=1e-12)
    # The same bytes in another shape are another image.
    flat = np.zeros((1, 3, 40, 56))
    assert reference.features(flat)[0].shape[2:] == (9, 13)
    assert reference.features(flat.reshape(1, 3, 56, 40))[0].shape[2:] == (13, 9)
    # An array that was changed in place is another image too.
    before = reference(one, many).distance
    one += 0.1
    assert (reference(one, many).distance != before).all()


@pytest.mark.parametrize("version", ["0.1", "0.0"])
def test_the_features_of_the_reference_are_those_it_compares(
    version: str, random_backbone: Callable[[str], Path]
) -> None:
    state = load_backbone("alex", random_backbone("alex"), allow_unknown=True, log=lambda line: None).state
    reference = Reference("alex", version, state, load_lin("alex", version, "none"))
    one, other = np.random.default_rng(9).uniform(-1, 1, (2, 1, 3, 64, 48))
    features = zip(reference.features(one), reference.features(other), strict=True)
    layers = [((a - b) ** 2).sum(1).mean((1, 2)) for a, b in features]
    np.testing.assert_allclose(np.stack(layers, 1), reference(one, other).layers, rtol=1e-10)


# --- the table of backbones


@pytest.mark.parametrize("net", NETS)
def test_min_size_is_the_smallest_side_that_torch_takes(net: str) -> None:
    row = BACKBONES[net]
    features = row.features()
    tiny, side = row.min_size - 1, row.min_size
    for size in ((side, side), (side, 80), (80, side)):
        assert features(torch.zeros(1, 3, *size)).numel() > 0
    for size in ((tiny, side), (side, tiny), (tiny, 80), (80, tiny)):
        with pytest.raises(RuntimeError, match="Output size is too small"):
            features(torch.zeros(1, 3, *size))


def strided_layers(module: nn.Module) -> Iterator[nn.Conv2d | nn.MaxPool2d]:
    """The layers on the way with the largest receptive field, in order."""
    if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
        yield module
    elif type(module).__name__ == "Fire":  # its two ways out are joined, and the other is 1x1
        yield from (module.squeeze, module.expand3x3)  # pyright: ignore[reportReturnType]
    else:
        for child in module.children():
            yield from strided_layers(child)


def reach(row: Backbone) -> tuple[int, int]:
    """Pixels per position of the deepest tap, and how far beyond its own pixels a position of any tap looks."""

    def number(value: Any) -> int:
        return value if isinstance(value, int) else value[0]

    stride, before, after, farthest = 1, 0, 0, 0
    features = row.features()
    for start, stop in itertools.pairwise(row.cuts):
        for layer in strided_layers(features[start:stop]):
            kernel, step, padding = map(number, (layer.kernel_size, layer.stride, layer.padding))
            assert number(layer.dilation) == 1
            before += padding * stride
            after += (kernel - 1 - padding) * stride
            stride *= step
        farthest = max(farthest, before, after - (stride - 1))
    return stride, farthest


@pytest.mark.parametrize("net", NETS)
def test_stride_and_halo_are_those_of_the_receptive_field(net: str) -> None:
    stride, farthest = reach(BACKBONES[net])
    assert stride == STRIDE
    assert BACKBONES[net].halo == -(-farthest // STRIDE) * STRIDE


@pytest.mark.parametrize("net", NETS)
def test_cuts_and_channels_are_those_of_lpips(net: str, random_backbone: Callable[[str], Path]) -> None:
    row = BACKBONES[net]
    metric = plain(net, "0.1", random_backbone(net), False)
    slices = [part for name, part in metric.net.named_children() if name.startswith("slice")]
    numbers = [[int(name) for name, _ in part.named_children()] for part in slices]
    assert numbers == [list(range(start, stop)) for start, stop in itertools.pairwise(row.cuts)]
    assert tuple(metric.chns) == row.channels
    taps = metric.net(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    assert tuple(tap.shape[1] for tap in taps) == row.channels
