"""load_lin of lpips_export.weights; load_backbone is tested in test_weights.py."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lpips_export.backbones import BACKBONES
from lpips_export.errors import SpecError, WeightsError
from lpips_export.statefile import tensor_hash
from lpips_export.weights import LIN_SHA256, load_lin

NETS = tuple(BACKBONES)


def packaged(net: str, version: str) -> Path:
    spec = importlib.util.find_spec("lpips")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "weights" / f"v{version}" / f"{net}.pth"


def random_lin(net: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        f"lin{k}.model.1.weight": torch.rand(1, channels, 1, 1, generator=generator)
        for k, channels in enumerate(BACKBONES[net].channels)
    }


@pytest.mark.parametrize("version", ["0.1", "0.0"])
@pytest.mark.parametrize("net", NETS)
def test_the_lin_weights_of_the_lpips_package_are_known(net: str, version: str):
    lin = load_lin(net, version)
    assert (lin.kind, lin.sha256) == ("learned", LIN_SHA256[net, version])
    assert lin.origin == f"lpips 0.1.4, weights/v{version}/{net}.pth"
    assert lin.provenance == "lpips 0.1.4"
    original = torch.load(packaged(net, version), map_location="cpu", weights_only=True)
    assert len(lin.tensors) == len(BACKBONES[net].channels)
    for k, tensor in enumerate(lin.tensors):
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, original[f"lin{k}.model.1.weight"])


def test_the_six_lin_files_differ():
    assert len(set(LIN_SHA256.values())) == len(NETS) * 2 == len(LIN_SHA256)


@pytest.mark.parametrize("net", NETS)
def test_the_baseline_weighs_every_channel_with_one(net: str):
    lin = load_lin(net, "0.1", "none")
    assert (lin.kind, lin.sha256) == ("baseline", "none")
    assert lin.provenance == "none"
    assert [tuple(tensor.shape) for tensor in lin.tensors] == [(1, c, 1, 1) for c in BACKBONES[net].channels]
    assert all(torch.equal(tensor, torch.ones_like(tensor)) for tensor in lin.tensors)
    assert all(tensor.dtype == torch.float32 for tensor in lin.tensors)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_lin_file_of_the_users_is_custom(tmp_path: Path, suffix: str):
    state = random_lin("squeeze")
    path = tmp_path / f"lin{suffix}"
    (torch.save if suffix == ".pth" else save_file)(state, path)
    lin = load_lin("squeeze", "0.1", path)
    assert (lin.kind, lin.sha256, lin.origin) == ("custom", tensor_hash(state), str(path))
    assert lin.provenance == path.name
    assert all(torch.equal(tensor, state[f"lin{k}.model.1.weight"]) for k, tensor in enumerate(lin.tensors))


def test_names_without_dropout_are_the_same_weights(tmp_path: Path):
    state = random_lin("alex")
    path = tmp_path / "lin.safetensors"
    save_file({key.replace("model.1", "model.0"): tensor for key, tensor in state.items()}, path)
    lin = load_lin("alex", "0.1", path)
    assert lin.sha256 == tensor_hash(state)
    assert torch.equal(lin.tensors[2], state["lin2.model.1.weight"])


def test_the_packages_own_file_named_by_the_user_is_still_learned(tmp_path: Path):
    path = tmp_path / "copy.pth"
    shutil.copy(packaged("alex", "0.0"), path)
    assert load_lin("alex", "0.0", path).kind == "learned"
    assert load_lin("alex", "0.1", path).kind == "custom"


def test_lin_tensors_are_in_the_order_of_their_depths(tmp_path: Path):
    state = random_lin("alex")
    path = tmp_path / "lin.pth"
    torch.save(dict(reversed(state.items())), path)
    assert [tensor.shape[1] for tensor in load_lin("alex", "0.1", path).tensors] == [64, 192, 384, 256, 256]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"lin1.model.1.weight": torch.full((1, 192, 1, 1), -0.5)},
            "lin1.model.1.weight holds negative values, down to -0.5; weights must be >= 0",
        ),
        (
            {"lin1.model.1.weight": torch.full((1, 192, 1, 1), torch.inf)},
            "lin1.model.1.weight holds NaN or infinite values; give finite weights",
        ),
        (
            {"lin1.model.1.weight": torch.ones(192)},
            "lin1.model.1.weight is [192], alex needs [1, 192, 1, 1]; give a file of alex's weights",
        ),
        (
            {"lin5.model.1.weight": torch.ones(1)},
            "not alex's weights, unexpected: lin5.model.1.weight; give a file of alex's weights",
        ),
        (
            {"net.slice1.0.bias": torch.ones(1)},
            "not alex's weights, unexpected: net.slice1.0.bias; give a file of alex's weights",
        ),
        (
            {"lin1.model.1.weight": None},
            "not alex's weights, missing: lin1.model.1.weight; give a file of alex's weights",
        ),
        ({"lin1.model.0.weight": torch.ones(1)}, "names a depth twice, as model.0 and as model.1"),
    ],
)
def test_a_bad_lin_file_is_refused(tmp_path: Path, change: dict[str, Tensor | None], message: str):
    path = tmp_path / "lin.pth"
    state = {**random_lin("alex"), **change}
    torch.save({key: tensor for key, tensor in state.items() if tensor is not None}, path)
    with pytest.raises(WeightsError) as caught:
        load_lin("alex", "0.1", path)
    assert str(caught.value) == f"{path}: {message}"


def test_lin_weights_of_another_net_are_named_as_such(tmp_path: Path):
    path = tmp_path / "lin.pth"
    torch.save(random_lin("vgg"), path)
    with pytest.raises(WeightsError, match=r"; are these vgg's weights\?$"):
        load_lin("alex", "0.1", path)


def test_a_lin_file_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"lin\.pth: no such file; check the path$"):
        load_lin("alex", "0.1", tmp_path / "lin.pth")


def test_a_lpips_package_with_other_lin_weights_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "weights" / "v0.1" / "alex.pth"
    path.parent.mkdir(parents=True)
    state = random_lin("alex")
    torch.save(state, path)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: spec)
        with pytest.raises(WeightsError) as caught:
            load_lin("alex", "0.1")
    assert str(caught.value) == (
        f"{path}: unknown lin weights, tensor hash {tensor_hash(state)}, lpips 0.1.4 has "
        f"{LIN_SHA256['alex', '0.1']}; install lpips==0.1.4 anew, or name the file with --lin if it is meant"
    )


def test_a_missing_lpips_package_is_said(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(WeightsError, match=r"install lpips==0\.1\.4"):
            load_lin("alex", "0.1")


@pytest.mark.parametrize(
    ("net", "version", "message"),
    [("resnet", "0.1", "no backbone is named 'resnet'"), ("alex", "0.2", "choose from 0.0, 0.1")],
)
def test_lin_weights_of_no_such_net_or_version_are_a_wrong_call(net: str, version: str, message: str):
    with pytest.raises(SpecError, match=message):
        load_lin(net, version, "none")
