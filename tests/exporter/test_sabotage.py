"""Each way in which exports of LPIPS have gone wrong, put back on purpose, must turn the export red."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lpips_export import export as export_module
from lpips_export import metric, tracing, validate
from lpips_export.backbones import BACKBONES
from lpips_export.errors import StructureError, ValidationError
from lpips_export.export import export
from lpips_export.metric import Comparator, Encoder, Pair
from lpips_export.spec import ExportSpec
from lpips_runtime.contract import ModelInfo

RED = (StructureError, ValidationError)


def eps_as_a_scalar(self: Encoder, tap: torch.Tensor) -> torch.Tensor:
    return (tap / (tap.square().sum(1, keepdim=True).sqrt() + 1e-10)).flatten(2)


def eps_in_rsqrt(self: Encoder, tap: torch.Tensor) -> torch.Tensor:
    return (tap * torch.rsqrt(tap.square().sum(1, keepdim=True) + 1e-20)).flatten(2)


def eps_after_vector_norm(self: Encoder, tap: torch.Tensor) -> torch.Tensor:
    return (tap / (torch.linalg.vector_norm(tap, dim=1, keepdim=True) + 1e-10)).flatten(2)


def eps_of_torchmetrics(self: Encoder, tap: torch.Tensor) -> torch.Tensor:
    flat = tap.flatten(2)
    return flat / torch.sqrt(flat.square().sum(1, keepdim=True) + self.eps * 100)


def no_eps(self: Encoder, tap: torch.Tensor) -> torch.Tensor:
    return (tap / tap.square().sum(1, keepdim=True).sqrt()).flatten(2)


def chunked(self: Pair, reference: torch.Tensor, distorted: torch.Tensor) -> tuple[torch.Tensor, ...]:
    features = self.encoder(torch.cat([reference, distorted], 0))
    halves = [feature.chunk(2, 0) for feature in features]
    return self.comparator([half[0] for half in halves], [half[1] for half in halves])


def frozen_batch(self: Pair, reference: torch.Tensor, distorted: torch.Tensor) -> tuple[torch.Tensor, ...]:
    features = self.encoder(torch.cat([reference, distorted], 0))
    return self.comparator([f[:2] for f in features], [f[2:] for f in features])


def concat_before_cast(self: Pair, reference: torch.Tensor, distorted: torch.Tensor) -> tuple[torch.Tensor, ...]:
    count = reference.shape[0]
    features = self.encoder(torch.cat([reference, distorted], 0))
    return self.comparator([f[:count] for f in features], [f[count:] for f in features])


def half_throughout(self: Encoder, x: torch.Tensor) -> list[torch.Tensor]:
    x = ((x - self.shift) / self.scale).half()
    taps = []
    for part in self.slices:
        x = torch.func.functional_call(part, {name: value.half() for name, value in part.named_parameters()}, (x,))
        taps.append(x)
    return taps


def small_differences_dropped(self: Comparator, differences: list, sizes: list) -> tuple[torch.Tensor, ...]:
    large = [torch.where(each.square() < 1e-5, torch.zeros_like(each), each) for each in differences]
    return weigh(self, large, sizes)


def references_and_distorted_interleaved(self: Pair, both: torch.Tensor) -> torch.Tensor:
    """Right for one pair, wrong for a batch, which comes reference by reference, then distorted by distorted."""
    channels, positions = both.shape[1:]
    return torch.matmul(self.sign, both.reshape(-1, 2, channels * positions)).reshape(-1, channels, positions)


def same_tensor_twice(encoder: Encoder, comparator: Comparator, info: ModelInfo) -> tuple:
    example = tracing._example_image(info.input, 1)
    return Pair(encoder, comparator), (example, example)


def blue_first(self: Encoder, x: torch.Tensor) -> torch.Tensor:
    return x.flip(1)


def layers_summed_over_positions(self: Comparator, differences: list, sizes: list) -> tuple[torch.Tensor, ...]:
    distance, _, *depths = weigh(self, differences, sizes)
    return distance, torch.stack([depth.sum((1, 2)) for depth in depths], 1), *depths


weigh = Comparator.weigh

# What is patched, and with what. Named so that a failure says which trap came back.
SABOTAGES: dict[str, tuple[object, str, object]] = {
    "eps as a scalar": (Encoder, "unit", eps_as_a_scalar),
    "eps in rsqrt": (Encoder, "unit", eps_in_rsqrt),
    "eps after vector_norm": (Encoder, "unit", eps_after_vector_norm),
    "eps of torchmetrics": (Encoder, "unit", eps_of_torchmetrics),
    "no eps": (Encoder, "unit", no_eps),
    "chunk": (Pair, "forward", chunked),
    "frozen batch": (Pair, "forward", frozen_batch),
    "same tensor twice": (tracing, "_CALLS", {"pair": same_tensor_twice}),
    "blue first": (Encoder, "image", blue_first),
    "layers summed over positions": (Comparator, "weigh", layers_summed_over_positions),
    "half throughout": (Encoder, "taps", half_throughout),
    "small differences dropped": (Comparator, "weigh", small_differences_dropped),
    "references and distorted interleaved": (Pair, "difference", references_and_distorted_interleaved),
    "opset 20": (tracing, "OPSET", 20),
    "stack traces kept": (tracing, "_clean", lambda model: None),
    "scaling of v0.0": (metric, "_SCALING", {"0.1": None}),
}

# Those that the numbers alone must catch, should the rule of structure be mistaken one day.
CAUGHT_BY_NUMBERS = (
    "eps as a scalar",
    "eps in rsqrt",
    "eps after vector_norm",
    "eps of torchmetrics",
    "no eps",
    "same tensor twice",
    "small differences dropped",
    "references and distorted interleaved",
    "scaling of v0.0",
    "blue first",
    "layers summed over positions",
)


@pytest.fixture
def spec(random_backbone: Callable[[str], Path]) -> ExportSpec:
    return ExportSpec(net="alex", backbone=random_backbone("alex"), allow_unknown_weights=True)


def attempt(spec: ExportSpec, folder: Path, expected: type[Exception] | tuple[type[Exception], ...]) -> None:
    with pytest.raises(expected):
        export(spec, folder)
    assert list(folder.iterdir()) == [], "a failed export leaves nothing behind"


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_trap_put_back_turns_the_export_red(
    name: str, spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, attribute, replacement = SABOTAGES[name]
    monkeypatch.setattr(target, attribute, replacement)
    attempt(spec, tmp_path, RED)


@pytest.mark.parametrize("name", CAUGHT_BY_NUMBERS)
def test_the_numbers_alone_catch_it(
    name: str, spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, attribute, replacement = SABOTAGES[name]
    monkeypatch.setattr(target, attribute, replacement)
    monkeypatch.setattr(export_module, "check_structure", lambda model, info: ())
    attempt(spec, tmp_path, ValidationError)


def test_uint8_joined_before_the_cast_turns_the_export_red(
    random_backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pair, "forward", concat_before_cast)
    spec = ExportSpec(backbone=random_backbone("alex"), allow_unknown_weights=True, input="uint8")
    attempt(spec, tmp_path, StructureError)


def test_another_upsampling_turns_the_map_red(
    spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearest(depths: list, height: int, width: int) -> object:
        maps = [torch.from_numpy(depth)[:, None] for depth in depths]
        resized = [torch.nn.functional.interpolate(depth, size=(height, width)) for depth in maps]
        return torch.stack(resized).sum(0)[:, 0].numpy()

    monkeypatch.setattr(validate, "spatial_map", nearest)
    attempt(spec, tmp_path, ValidationError)


@pytest.mark.parametrize("factor", [0.0, 1e-30])
def test_weights_that_tell_nothing_apart_prove_nothing(
    factor: float, random_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every error is below the absolute part of the limits then, also that of a graph that returns 0."""
    lin = tmp_path / "lin.pth"
    channels = BACKBONES["alex"].channels
    torch.save({f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) * factor for k, c in enumerate(channels)}, lin)
    spec = ExportSpec(backbone=random_backbone("alex"), allow_unknown_weights=True, lin=lin)
    with pytest.raises(ValidationError, match="they tell nothing apart"):
        export(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_export_without_sabotage_is_green(spec: ExportSpec, tmp_path: Path) -> None:
    (artifact,) = export(spec, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {artifact.path.name, artifact.path.name + ".json"}
