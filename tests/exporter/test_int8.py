"""The search for what runs in INT8: measured, limited, and red when something is wrong with it."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from int8_graph import weight_of
from PIL import Image
from torch import Tensor

from lpips_export import calibration as calibration_module
from lpips_export import equalisation, int8, validate
from lpips_export import export as export_module
from lpips_export.backbones import BACKBONES
from lpips_export.calibration import Calibration, load_calibration
from lpips_export.distortions import DISTORTIONS
from lpips_export.equalisation import convolutions
from lpips_export.errors import CalibrationError, ValidationError
from lpips_export.export import export
from lpips_export.graph import backbone_convolutions
from lpips_export.int8 import Choice, Plan, find_plan, rank_limit
from lpips_export.manifest import Artifact
from lpips_export.metric import Comparator, Encoder
from lpips_export.quantize import FLAVOURS
from lpips_export.spec import ExportSpec, describe
from lpips_export.structure import RULES, Graph
from lpips_export.tracing import serialized, trace
from lpips_export.weights import load_backbone, load_lin
from lpips_runtime.contract import ModelInfo
from lpips_runtime.models import manifest_path

NAMES = [f"features.{number}" for number in (0, 3, 6, 8, 10)]


class Traces:
    """trace(), which is most of the time of a search, done once for equal weights: a search asks for the same again."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def __call__(self, encoder: Encoder, comparator: Comparator, info: ModelInfo) -> onnx.ModelProto:
        state = [*encoder.state_dict().items(), *comparator.state_dict().items()]
        digest = hashlib.sha256(f"{replace(info, target='')}{encoder.gains is None}".encode())
        for name, tensor in (*state, *enumerate(encoder.gains or [])):
            digest.update(f"{name}{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
        key = digest.hexdigest()
        if key not in self._known:
            self._known[key] = trace(encoder, comparator, info).SerializeToString()
        model = onnx.load_model_from_string(self._known[key])
        del model.metadata_props[:]
        for name, value in sorted(info.to_metadata().items()):
            model.metadata_props.add(key=name, value=value)
        return model


TRACES = Traces()


@pytest.fixture(autouse=True, scope="module")
def _traced_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "trace", TRACES)
        patch.setattr(export_module, "trace", TRACES)
        # Small and few: what is asked here is which way the figures decide, not how good they are.
        patch.setattr(calibration_module, "_CROPS", {"calibration": 1, "held out": 1})
        patch.setattr(calibration_module, "_SIDE", 96)
        yield


class Alex:
    """What find_plan is given for AlexNet with real weights."""

    def __init__(self, weights: Path, photographs: Path) -> None:
        self.weights = weights
        self.photographs = photographs
        backbone = load_backbone("alex", weights, allow_unknown=False, log=lambda _: None)
        lin = load_lin("alex", "0.1", None)
        self.comparator = Comparator(lin.tensors)
        self.encoder = Encoder(BACKBONES["alex"], backbone.state, version="0.1", image_input="float32")
        self.infos = {target: describe(self.spec(target=target), "pair", backbone, lin) for target in FLAVOURS}
        self.calibration = load_calibration(photographs, 64, lambda _: None)

    def spec(self, **fields: Any) -> ExportSpec:
        defaults = {"net": "alex", "precision": "int8", "calibration": self.photographs, "backbone": self.weights}
        return ExportSpec(**(defaults | fields))

    def plan(self, target: str = "cpu", max_error: float | None = None, **given: Any) -> Plan:
        return find_plan(
            given.get("encoder", self.encoder),
            self.comparator,
            self.infos[target],
            given.get("calibration", self.calibration),
            max_error or FLAVOURS[target].max_error,
        )


@pytest.fixture(scope="module")
def alex(real_weights: Callable[[str], Path], photographs: Path) -> Alex:
    return Alex(real_weights("alex"), photographs)


class Searched:
    """An export as a user makes it, all cases of the validation and the default limit, and the search behind it."""

    search: int8._Search
    plan: Plan
    artifact: Artifact

    def __init__(self, alex: Alex, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export_module, "find_plan", self._find_plan)
            (self.artifact,) = export(alex.spec(), folder)

    def _find_plan(self, *arguments: Any) -> Plan:
        self.search = int8._Search(*arguments)
        self.plan = self.search.run()
        return self.plan


@pytest.fixture(scope="module")
def searched(alex: Alex, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return Searched(alex, tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def exported_alex(searched: Searched) -> Artifact:
    return searched.artifact


@pytest.fixture(scope="module")
def plan(searched: Searched) -> Plan:
    return searched.plan


@pytest.fixture
def without_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps leave convolutions in float, all of them: planes take a trace each."""
    monkeypatch.setattr(int8, "with_planes", lambda encoder, *_: encoder)


# --- what an export says of itself


def test_the_manifest_holds_every_figure_and_they_are_within_the_limits(exported_alex: Artifact, alex: Alex) -> None:
    assert exported_alex.path.name == "lpips_alex_int8.onnx"
    written = json.loads(manifest_path(exported_alex.path).read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (written["spec"]["precision"], written["spec"]["target"]) == ("int8", "cpu")
    assert len(written["structure"]) == len(RULES)
    figures = written["quantisation"]
    assert list(figures) == ["target", "calibration", "limits", "cost_alone", "in_float", "two_planes", "agreement"]
    assert figures["target"] == "cpu"
    assert figures["calibration"] == json.loads(json.dumps(alex.calibration.facts))
    assert figures["limits"] == {"error": 0.025, "error_of_a_kind": 0.1, "spearman": 1 - 0.025 / 80}
    assert list(figures["cost_alone"]) == NAMES
    assert all(0 < cost < 0.5 for cost in figures["cost_alone"].values())
    for kept in ("in_float", "two_planes"):
        assert figures[kept].items() <= figures["cost_alone"].items(), "why: what it costs alone"
    assert len(figures["in_float"]) < len(NAMES)

    agreement = figures["agreement"]
    assert agreement["pairs"] == len(alex.calibration.held_out)
    assert 0 < agreement["error"] <= 0.025
    assert agreement["error"] <= agreement["worst"] < 0.5
    assert 0 < agreement["small"] < agreement["pairs"]
    assert 0 < agreement["small_error"] < 0.01
    assert figures["limits"]["spearman"] <= agreement["spearman"] < 1
    assert 0.98 < agreement["kendall"] < agreement["spearman"]
    assert 0 <= agreement["triplets"] < 0.02
    assert list(agreement["by_distortion"]) == list(DISTORTIONS)
    each = agreement["by_distortion"].values()
    assert sum(kind["pairs"] for kind in each) + agreement["small"] == agreement["pairs"]
    weighted = sum(kind["pairs"] * kind.get("error", 0) for kind in each) / (agreement["pairs"] - agreement["small"])
    assert weighted == pytest.approx(agreement["error"])


def test_the_file_is_what_its_manifest_says(exported_alex: Artifact) -> None:
    model = onnx.load(exported_alex.path)
    figures = exported_alex.manifest["quantisation"]
    graph = Graph(model, ModelInfo.from_metadata({e.key: e.value for e in model.metadata_props}, exported_alex.path))
    backbone = graph.convolutions()
    in_float = [name for name, node in zip(NAMES, backbone, strict=True) if not graph.is_dequantised(node.input[0])]
    assert in_float == list(figures["in_float"])
    weights = [weight_of(graph, node).dims[1] for node in backbone]
    plain = [3, 64, 192, 384, 256]
    planes = [name for name, width, one in zip(NAMES, weights, plain, strict=True) if width == 2 * one]
    assert planes == list(figures["two_planes"])
    assert exported_alex.size < 7e6, "float32's is 9.9 MB"


def test_the_figures_are_those_of_the_published_file(exported_alex: Artifact, alex: Alex) -> None:
    """Measured again on the file itself: the search judges graphs of its own making."""
    pairs = alex.calibration.held_out
    found = int8._Graph(onnx.load(exported_alex.path), alex.infos["cpu"]).distances(pairs)
    exact = int8._Graph(TRACES(alex.encoder, alex.comparator, alex.infos["cpu"]), alex.infos["cpu"]).distances(pairs)
    agreement = int8.agreement(exact, found, pairs.source, pairs.distortion)
    assert agreement.as_dict() == exported_alex.manifest["quantisation"]["agreement"]


# --- how it decides


def test_a_search_is_deterministic(alex: Alex, plan: Plan, exported_alex: Artifact) -> None:
    again = alex.plan()
    assert again.facts == plan.facts == exported_alex.manifest["quantisation"]
    assert again.choice == plan.choice
    model = TRACES(again.encoder, alex.comparator, alex.infos["cpu"])
    assert serialized(again.applied(model)) == exported_alex.path.read_bytes()


def test_all_three_figures_are_limits(searched: Searched, plan: Plan) -> None:
    search = copy.copy(searched.search)
    search.max_error = 0.02
    kinds = {"blur": {"pairs": 3, "error": 0.08}, "noise": {"pairs": 2, "error": 0.5}}
    at = replace(plan.agreement, error=0.02, spearman=rank_limit(0.02), by_distortion=kinds)
    worse = kinds | {"blur": {"pairs": 3, "error": 0.0801}}
    assert search._meets(at)
    assert not search._meets(replace(at, error=0.0201))
    assert not search._meets(replace(at, by_distortion=worse))
    assert not search._meets(replace(at, spearman=rank_limit(0.02) - 1e-6))
    assert not search._meets(replace(at, spearman=float("nan")))
    assert [rank_limit(error) for error in (0.025, 0.05)] == pytest.approx([0.9996875, 0.999375])


@pytest.mark.usefixtures("without_planes")
def test_the_tighter_the_limit_the_more_stays_in_float(alex: Alex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "rank_limit", lambda error: 0.9)  # the error alone decides
    found = {limit: alex.plan(max_error=limit) for limit in (0.5, 0.025, 0.01)}
    assert found[0.5].choice == Choice(), "nothing that is not needed"
    assert [limit for limit, plan in found.items() if plan.agreement.error > limit] == []
    assert 0 < len(found[0.025].choice.in_float) < len(found[0.01].choice.in_float) < len(NAMES)
    assert found[0.5].agreement.error > 0.025


def test_no_step_is_kept_that_is_not_needed(searched: Searched, plan: Plan) -> None:
    """Each one taken back leaves the limits."""
    search = searched.search
    kept = plan.choice.in_float | plan.choice.in_planes
    assert kept
    for number in kept:
        assert not search._meets(search._judged(plan.choice.without(number)))


@pytest.mark.usefixtures("without_planes")
def test_a_step_that_turns_out_not_to_be_needed_is_taken_back(alex: Alex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured wrongly, the last convolution looks the worst: it comes first, and is given back at the end."""
    measure = int8._Search._measure

    def misleading(search: int8._Search) -> tuple[dict[int, float], dict[int, float]]:
        costs, finer = measure(search)
        return costs | {4: 1e3}, finer | {4: 2e3}

    judged: list[Choice] = []
    judge = int8._Search._judged

    def watched(search: int8._Search, choice: Choice) -> Any:
        judged.append(choice)
        return judge(search, choice)

    monkeypatch.setattr(int8._Search, "_measure", misleading)
    monkeypatch.setattr(int8._Search, "_judged", watched)
    found = alex.plan()
    met = [choice for choice in judged if 4 in choice.in_float]
    assert met, "the order of steps begins with it"
    assert 4 not in found.choice.in_float
    assert found.choice.in_float
    assert found.agreement.error <= 0.025


@pytest.mark.usefixtures("without_planes")
def test_an_impossible_limit_is_an_error_with_figures_and_nothing_is_published(alex: Alex, tmp_path: Path) -> None:
    """One that only float32 could meet: no graph whose convolutions are all in float is called INT8."""
    with pytest.raises(ValidationError) as caught:
        export(alex.spec(max_error=1e-6), tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(
        "INT8 misses its limits on 60 held-out pairs even with all but one convolution in float: "
    )
    assert "%, Spearman 0.99" in message
    assert message.endswith("raise --max-error, give more images, or use --precision fp16")
    assert not (tmp_path / "out").exists()


def test_blank_images_are_no_photographs(alex: Alex, tmp_path: Path) -> None:
    for level in range(8):
        Image.new("RGB", (96, 96), (20 * level, 255 - level, 9)).save(tmp_path / f"{level}.png")
    blank = load_calibration(tmp_path, 64, lambda _: None)
    with pytest.raises(CalibrationError, match="the images are blank or nearly so; give photographs like those"):
        alex.plan(calibration=blank)


@pytest.mark.usefixtures("without_planes")
def test_a_tensorrt_search_has_its_own_limit_and_rounds_no_tap(alex: Alex) -> None:
    found = alex.plan("tensorrt")
    assert found.facts["limits"] == {"error": 0.05, "error_of_a_kind": 0.2, "spearman": rank_limit(0.05)}
    assert found.agreement.error <= 0.05
    assert found.choice != Choice(range_of_all())
    model = found.applied(TRACES(found.encoder, alex.comparator, alex.infos["tensorrt"]))
    assert len(backbone_convolutions_in_float(model)) == len(found.choice.in_float)


def range_of_all() -> frozenset[int]:
    return frozenset(range(len(NAMES)))


def backbone_convolutions_in_float(model: onnx.ModelProto) -> list[str]:
    """Those that read no quantised weights: these are still initializers."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return [node.name for node in backbone_convolutions(model) if node.input[1] in constants]


# --- sabotage


def lost_gains(alex: Alex, patch: pytest.MonkeyPatch) -> None:
    """The taps stay scaled."""
    whole = equalisation.equalised

    def without(encoder: Encoder, images: Tensor) -> Any:
        found, ranges = whole(encoder, images)
        found.gains = None
        return found, ranges

    patch.setattr(int8, "equalised", without)


def forgotten_reader(alex: Alex, patch: pytest.MonkeyPatch) -> None:
    """A convolution reads scaled channels as if they were not."""
    whole = equalisation.equalised

    def equalised(encoder: Encoder, images: Tensor) -> Any:
        true, ranges = whole(encoder, images)
        convolutions(true)[2].weight.data = convolutions(encoder)[2].weight.data * _own_scale(encoder, true)
        return true, ranges

    patch.setattr(int8, "equalised", equalised)


def _own_scale(encoder: Encoder, true: Encoder) -> Tensor:
    """By how much the outputs of the third convolution were scaled."""
    biases = [convolutions(one)[2].bias for one in (true, encoder)]
    assert biases[0] is not None
    assert biases[1] is not None
    return (biases[0].data / biases[1].data).view(-1, 1, 1, 1)


def narrow_ranges(alex: Alex, patch: pytest.MonkeyPatch) -> None:
    """Calibrated on next to nothing: gray images, which no photograph is."""

    def gray(folder: Path, count: int, note: Callable[[str], object]) -> Calibration:
        return replace(alex.calibration, images=np.full_like(alex.calibration.images[:8], 128))

    patch.setattr(export_module, "load_calibration", gray)


SABOTAGES = [lost_gains, forgotten_reader, narrow_ranges]


@pytest.mark.usefixtures("without_planes")
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.__name__)
def test_a_mistake_turns_the_export_red(
    sabotage: Callable[[Alex, pytest.MonkeyPatch], None], alex: Alex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(alex, monkeypatch)
    with pytest.raises(ValidationError, match="INT8 misses its limits"):
        export(alex.spec(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ranges_of_another_convolution_are_found_out(searched: Searched) -> None:
    """A search that leaves enough in float may survive them; what it measures tells."""
    search = copy.copy(searched.search)
    search.judged = {}
    search.ranges = [*search.ranges[1:], search.ranges[0]]
    shuffled, right = search._judged(Choice()), searched.search._judged(Choice())
    assert shuffled.error > 2 * right.error
    assert not search._meets(shuffled)


def test_noise_in_place_of_photographs_costs_accuracy(alex: Alex, searched: Searched) -> None:
    """Why there is no calibration without photographs: the ranges of noise are not theirs."""
    noise = np.random.default_rng(0).integers(0, 256, alex.calibration.images.shape, dtype=np.uint8)
    errors = {"photographs": searched.search._judged(Choice())}
    calibrated_on_noise = replace(alex.calibration, images=noise)
    given = (alex.encoder, alex.comparator, alex.infos["cpu"], calibrated_on_noise, 0.025, int8.Progress())
    errors["noise"] = int8._Search(*given)._judged(Choice())
    assert errors["noise"].error > 1.2 * errors["photographs"].error
    assert errors["noise"].spearman < errors["photographs"].spearman


# --- what is published is checked once more


def test_a_published_graph_that_is_not_the_one_judged_is_caught_by_the_validation(
    alex: Alex, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search judged an encoder with gains; the graph that is written lost them."""
    broken = copy.deepcopy(plan.encoder)
    broken.gains = None
    monkeypatch.setattr(export_module, "find_plan", lambda *_: replace(plan, encoder=broken))
    cases = validate.validation_cases
    monkeypatch.setattr(validate, "validation_cases", lambda *of: [c for c in cases(*of) if "noise" in c.name][:1])
    with pytest.raises(ValidationError, match=r"case 'noise': .* the reference says"):
        export(alex.spec(), tmp_path / "out")


def test_numbers_of_work_and_writers(alex: Alex) -> None:
    """Multiplications of AlexNet's convolutions on 64x64, by hand: weights x positions of the output."""
    images = torch.zeros(1, 3, 64, 64)
    assert int8._multiplications(alex.encoder, images) == [
        64 * 3 * 11 * 11 * 15 * 15,
        192 * 64 * 5 * 5 * 7 * 7,
        384 * 192 * 9 * 3 * 3,
        256 * 384 * 9 * 3 * 3,
        256 * 256 * 9 * 3 * 3,
    ]
    assert int8._writers(alex.encoder) == [frozenset(), *(frozenset({number}) for number in range(4))]


def test_a_graph_to_be_quantised_has_the_backbone_in_the_order_of_the_encoder(alex: Alex) -> None:
    model = TRACES(alex.encoder, alex.comparator, alex.infos["cpu"])
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = [tuple(constants[node.input[1]].dims) for node in backbone_convolutions(model)]
    assert shapes == [tuple(conv.weight.shape) for conv in convolutions(alex.encoder)]
