import hashlib
import os
import pickle
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lpips_export.errors import WeightsError
from lpips_export.statefile import check_tensors, one_line, read_state, tensor_hash

LAYOUTS = {
    "one": {"features.0.weight": (2, 3), "features.0.bias": (2,)},
    "two": {"features.0.weight": (4, 3), "features.0.bias": (4,)},
}


def state_of(net: str, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) for key, shape in LAYOUTS[net].items()}


class Payload:
    """Pickles into a call that makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.marker),)


def save_legacy(state: object, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS: dict[str, tuple[str, Callable]] = {
    "safetensors": (".safetensors", save_file),
    "pth": (".pth", torch.save),
    "legacy pth": (".pth", save_legacy),
}


def test_tensor_hash_is_sha256_over_sorted_keys_and_little_endian_floats():
    state = {"b": torch.tensor([[1.5, -2.0], [0.0, 3.25]]), "ä": torch.tensor([7.0]), "a": torch.tensor(0.1)}
    content = b"a" + struct.pack("<f", 0.1) + b"b" + struct.pack("<4f", 1.5, -2.0, 0.0, 3.25)
    content += "ä".encode() + struct.pack("<f", 7.0)
    assert tensor_hash(state) == hashlib.sha256(content).hexdigest()


def test_tensor_hash_reads_a_transposed_tensor_in_row_major_order():
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert tensor_hash({"a": tensor}) == tensor_hash({"a": tensor.contiguous()})
    assert tensor_hash({"a": tensor}) != tensor_hash({"a": torch.arange(6.0)})


def test_tensor_hash_refuses_another_dtype():
    with pytest.raises(TypeError, match=r"a is torch\.float16"):
        tensor_hash({"a": torch.zeros(1, dtype=torch.float16)})


def test_one_line_joins_and_cuts():
    assert one_line("  two\n\tlines ") == "two lines"
    assert one_line("x" * 300, 10) == "xxxxxxx..."


@pytest.mark.parametrize("writer", WRITERS)
def test_reads_what_was_written(tmp_path: Path, writer: str):
    suffix, write = WRITERS[writer]
    path = tmp_path / f"weights{suffix}"
    write(state_of("one"), path)
    assert tensor_hash(read_state(path)) == tensor_hash(state_of("one"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_unreadable_files_are_named_with_what_is_wrong(tmp_path: Path, suffix: str):
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert str(caught.value) == f"{path}: no such file; check the path"
    path.touch()
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert str(caught.value) == f"{path}: the file is empty; download or save it again"
    path.unlink()
    path.mkdir()
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert str(caught.value) == f"{path}: not a regular file; give a .safetensors or .pth file"
    below = path / f"no-folder-of-mine{suffix}" / "x.pth"
    below.parent.touch()
    with pytest.raises(WeightsError) as caught:
        read_state(below)
    assert str(caught.value) == f"{below}: cannot be read: Not a directory; check the path and its permissions"


@pytest.mark.parametrize("name", ["weights.bin", "weights", "weights.pt"])
def test_another_suffix_is_refused_before_it_is_read(tmp_path: Path, name: str):
    path = tmp_path / name
    torch.save(state_of("one"), path)
    with pytest.raises(WeightsError, match=r"read from \.safetensors or \.pth files"):
        read_state(path)


@pytest.mark.parametrize("writer", WRITERS)
def test_every_truncation_and_any_flipped_bytes_give_a_state_or_our_error(tmp_path: Path, writer: str):
    suffix, write = WRITERS[writer]
    path = tmp_path / f"weights{suffix}"
    write(state_of("one"), path)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError) as caught:
            read_state(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    chance = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        with suppress(WeightsError):  # any other error fails the test
            read_state(path)


@pytest.mark.parametrize("save", [torch.save, save_legacy, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, save: Callable):
    marker = tmp_path / "ran"
    path = tmp_path / "weights.pth"
    save({**state_of("one"), "features.9.weight": Payload(marker)}, path)
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert not marker.exists()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "weights_only" not in message  # torch advises to switch the protection off
    assert len(message.splitlines()) == 1


def test_the_refusal_says_what_the_pickle_wanted(tmp_path: Path):
    path = tmp_path / "weights.pth"
    torch.save({"a": Payload(tmp_path / "ran")}, path)
    with pytest.raises(WeightsError, match=r"refused, it holds \w+\.mkdir, not tensors alone"):
        read_state(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_raw_pickle_with_code_is_refused_in_our_own_words(tmp_path: Path, protocol: int):
    marker = tmp_path / "ran"
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Payload(marker), protocol))
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert not marker.exists()
    assert str(caught.value).startswith(f"{path}: refused, it ")
    assert str(caught.value).endswith(" may run code when loaded; save it as .safetensors")
    assert "PyTorch" not in str(caught.value)


def test_the_environment_cannot_switch_the_protection_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "ran"
    path = tmp_path / "weights.pth"
    torch.save({"a": Payload(marker)}, path)
    with pytest.raises(WeightsError):
        read_state(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([torch.zeros(1)], "holds a list, not a state dict; save model.state_dict()"),
        ({"epoch": 3}, "entry 'epoch' is a int"),
        ({"state_dict": {"a": torch.zeros(1)}}, "entry 'state_dict' is a dict"),
        ({1: torch.zeros(1)}, "entry 1 is a Tensor"),
    ],
)
def test_anything_but_a_flat_state_dict_is_refused(tmp_path: Path, content: object, what: str):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert what in str(caught.value)


def test_checked_tensors_are_contiguous_copies():
    state = state_of("one")
    state["features.0.weight"] = state["features.0.weight"].T.contiguous().T
    checked = check_tensors(state, LAYOUTS, "one", "here")
    assert tensor_hash(checked) == tensor_hash(state)
    assert all(tensor.is_contiguous() for tensor in checked.values())
    state["features.0.bias"].zero_()
    assert checked["features.0.bias"].abs().min() > 0


def test_weights_of_another_net_are_recognised():
    with pytest.raises(WeightsError) as caught:
        check_tensors(state_of("two"), LAYOUTS, "one", "here")
    assert str(caught.value) == "here: features.0.weight is [4, 3], one needs [2, 3]; are these two's weights?"


def altered(key: str, value: Tensor | None) -> dict[str, Tensor]:
    state = {**state_of("one"), key: value}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            altered("features.0.bias", torch.zeros(3)),
            "here: features.0.bias is [3], one needs [2]; give a file of one's weights",
        ),
        (
            altered("features.0.bias", None),
            "here: not one's weights, missing: features.0.bias; give a file of one's weights",
        ),
        (
            altered("features.1.bias", torch.zeros(2)),
            "here: not one's weights, unexpected: features.1.bias; give a file of one's weights",
        ),
        (
            {"a": torch.zeros(1)},
            "here: not one's weights, missing: features.0.bias, features.0.weight; give a file of one's weights",
        ),
        (
            {**state_of("one"), **{f"x{i}": torch.zeros(1) for i in range(5)}},
            "here: not one's weights, unexpected: x0, x1, x2 and 2 more; give a file of one's weights",
        ),
        (
            altered("features.0.bias", torch.zeros(2, dtype=torch.float64)),
            "here: features.0.bias is torch.float64; torch.float32 is needed",
        ),
        (
            altered("features.0.bias", torch.zeros(2).to_sparse()),
            "here: features.0.bias is torch.float32, torch.sparse_coo, on cpu; torch.float32 is needed",
        ),
        (
            altered("features.0.bias", torch.zeros(2, device="meta")),
            "here: features.0.bias is torch.float32, torch.strided, on meta; torch.float32 is needed",
        ),
        (
            altered("features.0.bias", torch.tensor([0.0, float("nan")])),
            "here: features.0.bias holds NaN or infinite values; give finite weights",
        ),
        (
            altered("features.0.bias", torch.tensor([0.0, float("-inf")])),
            "here: features.0.bias holds NaN or infinite values; give finite weights",
        ),
    ],
)
def test_what_is_wrong_with_tensors_is_said(state: dict[str, Tensor], message: str):
    with pytest.raises(WeightsError) as caught:
        check_tensors(state, LAYOUTS, "one", "here")
    assert str(caught.value) == message
