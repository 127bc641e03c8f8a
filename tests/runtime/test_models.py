"""Which file a model's name means, and what a manifest that does not belong to it gives."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from lpips_runtime.errors import DamagedModelError, ForeignModelError, ModelNotFoundError
from lpips_runtime.models import DEFAULT_MODEL, find_model, manifest_path, read_model


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(name: str) -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"model")
    return path


# Names


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (None, "artifacts/lpips_alex_fp32.onnx"),
        ("alex", "artifacts/lpips_alex_fp32.onnx"),
        ("vgg", "artifacts/lpips_vgg_fp32.onnx"),
        ("squeeze-int8", "artifacts/lpips_squeeze_int8.onnx"),
        ("alex-fp16", "artifacts/lpips_alex_fp16.onnx"),
        ("vgg-v0.0-baseline-uint8", "artifacts/lpips_vgg_fp32_v0.0_baseline_uint8.onnx"),
        ("squeeze-openvino", "artifacts/lpips_squeeze_fp32_openvino.onnx"),
        ("some/where.onnx", "some/where.onnx"),
        (Path("where.onnx"), "where.onnx"),
    ],
)
def test_a_name_or_path_means_one_file(name: str | Path | None, file: str) -> None:
    assert find_model(touch(file) and name) == Path(file)


def test_the_environment_names_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    touch(str(DEFAULT_MODEL))
    touch("artifacts/lpips_squeeze_fp32.onnx")
    touch("mine.onnx")
    monkeypatch.setenv("LPIPS_MODEL", "mine.onnx")
    assert find_model() == Path("mine.onnx")
    assert find_model("alex") == DEFAULT_MODEL
    monkeypatch.setenv("LPIPS_MODEL", "squeeze")
    assert find_model() == Path("artifacts/lpips_squeeze_fp32.onnx")
    monkeypatch.setenv("LPIPS_MODEL", "")
    assert find_model() == DEFAULT_MODEL


def test_a_file_goes_before_a_name_and_a_folder_does_not() -> None:
    touch(str(DEFAULT_MODEL))
    Path("alex").mkdir()
    assert find_model("alex") == DEFAULT_MODEL
    Path("alex").rmdir()
    assert find_model(touch("alex")) == Path("alex")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            None,
            "artifacts/lpips_alex_fp32.onnx: no such model; pip install the wheel lpips-model-alex, export it "
            "with lpips-export, or name a model with -m or $LPIPS_MODEL",
        ),
        (
            "vgg",
            "artifacts/lpips_vgg_fp32.onnx: no such model; pip install the wheel lpips-model-vgg, "
            "or export it with: lpips-export --net vgg",
        ),
        ("alex-int8", "with: lpips-export --net alex --precision int8 --calibration DIR"),
        (
            "alex-v0.0",
            "pip install the wheel lpips-model-alex-v0-0, or export it with: lpips-export --net alex --lpips-v",
        ),
        ("resnet", "resnet: no such model; give the path of an .onnx or .engine file"),
        ("alex-", "alex-: no such model; give the path of an .onnx or .engine file"),
        ("", ".: is a folder, a model is needed; give the path of an .onnx or .engine file"),
        ("folder", "folder: is a folder, a model is needed; "),
        ("folder/x/y", "folder/x/y: no such model; "),
        ("file/x", "file/x: cannot be opened: Not a directory; "),
        ("x" * 300, ": cannot be opened: File name too long; "),
        ("a\0b", ": cannot be opened: embedded null byte; "),
        ("/dev/null", "/dev/null: is a pipe, socket or device, a model is needed; "),
    ],
)
def test_a_model_that_cannot_be_found(name: str | None, said: str) -> None:
    Path("folder").mkdir()
    Path("file").touch()
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(name)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.exit_code == 2


def test_a_bad_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("gone.onnx", "."):
        monkeypatch.setenv("LPIPS_MODEL", value)
        with pytest.raises(ModelNotFoundError, match=r"\(from \$LPIPS_MODEL\): "):
            find_model()


# Manifests


def manifest(content: bytes) -> Path:
    path = touch("model.onnx")
    manifest_path(path).write_bytes(content)
    return path


def test_a_model_without_a_manifest_is_read() -> None:
    assert read_model(touch("model.onnx")) == (b"model", hashlib.sha256(b"model").hexdigest())


def test_a_manifest_that_matches_is_accepted() -> None:
    sha256 = hashlib.sha256(b"model").hexdigest()
    assert read_model(manifest(json.dumps({"sha256": sha256, "more": 1}).encode())) == (b"model", sha256)


@pytest.mark.parametrize("sha256", [hashlib.sha256(b"other").hexdigest(), "", None, 7, ["x"]])
def test_a_manifest_of_another_file_is_an_error(sha256: object) -> None:
    with pytest.raises(DamagedModelError, match=r"^model.onnx: sha256 9372c470eeadd5ec… is not the .*export .* again$"):
        read_model(manifest(json.dumps({"sha256": sha256}).encode()))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'"sha256"', b"null", b"{}", b"\xff\xfe", b"\x80model", b"[" * 100_000],
    ids=["empty", "open", "list", "text", "null", "no key", "utf-16", "bytes", "deep"],
)
def test_a_manifest_that_is_none_is_an_error(content: bytes) -> None:
    with pytest.raises(DamagedModelError) as caught:
        read_model(manifest(content))
    assert str(caught.value) == (
        "model.onnx.json: is no manifest (JSON with the sha256 of model.onnx); export the model again"
    )
    assert caught.value.exit_code == 3


def test_a_folder_in_the_place_of_a_manifest_is_an_error() -> None:
    path = touch("model.onnx")
    manifest_path(path).mkdir()
    with pytest.raises(DamagedModelError, match=r"^model.onnx.json: cannot be read: Is a directory; "):
        read_model(path)


def test_a_model_that_vanished_is_an_error() -> None:
    with pytest.raises(ModelNotFoundError, match=r"^gone.onnx: cannot be read: No such file"):
        read_model(Path("gone.onnx"))


def test_a_file_larger_than_any_model_is_not_read() -> None:
    path = Path("huge.onnx")
    with open(path, "wb") as file:
        os.truncate(file.fileno(), 2**40)
    with pytest.raises(ForeignModelError, match=r"^huge.onnx: is no model of lpips-export"):
        read_model(path)
