"""lpips-export --precision int8 as its users call it, and what its artifacts are good for."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from export_command import Backbones, Call
from int8_graph import as_float, photo_batch
from onnx import numpy_helper

from lpips_export import calibration
from lpips_export.quantize import FLAVOURS
from lpips_runtime import Scorer
from lpips_runtime.models import manifest_path

INT8 = ["--precision", "int8"]
Made = tuple[list[Path], str, str]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_CROPS", {"calibration": 1, "held out": 1})
    monkeypatch.setattr(calibration, "_SIDE", 64)


@pytest.fixture
def calibrated(own: list, photographs: Path) -> list[object]:
    # A limit that nothing exceeds: these graphs are of random weights, and the search is not what is looked at.
    return [*own, *INT8, "--calibration", photographs, "--calibration-count", 9, "--max-error", 0.9]


_made: dict[str, Made] = {}


@pytest.fixture
def made(call: Call, calibrated: list, quick: None, few: None, tmp_path: Path) -> Made:
    """The three graphs of an export with uint8 images, and what it said; made once."""
    if not _made:
        assert call(*calibrated, "--split", "--input", "uint8") == 0, call.err
        _made["uint8"] = (
            sorted((tmp_path / "out").glob("*.onnx"), key=lambda path: len(path.name)),
            call.out,
            call.err,
        )
    return _made["uint8"]


def test_without_a_folder_of_photographs_there_is_no_int8(call: Call, own: list, tmp_path: Path) -> None:
    assert call(*own, *INT8) == 2
    assert call.out == ""
    assert call.error == (
        "error: INT8 needs a folder of photographs like those you will score, to calibrate on and to be judged by; "
        "give it with --calibration"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--calibration-count", "3"], "--calibration-count is 3, must be at least 8"),
        (["--max-error", "0"], "--max-error is 0, must be a relative error between 0 and 1, as 0.025"),
        (["--max-error", "2"], "--max-error is 2, must be a relative error between 0 and 1, as 0.025"),
        (["--max-error", "nan"], "--max-error is nan, must be a relative error between 0 and 1, as 0.025"),
        (["--max-error", "-0.1"], "--max-error is -0.1, must be a relative error between 0 and 1, as 0.025"),
    ],
)
def test_a_wrong_number_is_named_with_what_is_right(
    call: Call, own: list, photographs: Path, arguments: list[str], complaint: str
) -> None:
    assert call(*own, *INT8, "--calibration", photographs, *arguments) == 2
    assert (call.out, call.error) == ("", f"error: {complaint}")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--target", "gpu"], "'gpu' is not one of 'cpu', 'tensorrt', 'openvino'."),
        (["--max-error", "small"], "Invalid value for '--max-error'"),
        (["--calibration-count", "many"], "Invalid value for '--calibration-count'"),
    ],
)
def test_a_value_of_another_kind_is_a_wrong_call(call: Call, arguments: list[str], complaint: str) -> None:
    assert call(*INT8, *arguments) == 2
    assert complaint in call.err


def test_a_folder_that_will_not_do_is_a_wrong_call_and_leaves_nothing(call: Call, own: list, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    assert call(*own, *INT8, "--calibration", "few") == 2
    assert call.error == ("error: few: holds no image; images end in " + call.error.split("images end in ")[1])
    assert call(*own, *INT8, "--calibration", "none") == 2
    assert call.error == "error: none: no such folder"
    assert not (tmp_path / "out").exists()


def test_one_of_other_photographs_or_limits_is_not_replaced_unasked(
    call: Call, own: list, photographs: Path, made: Made, tmp_path: Path
) -> None:
    (pair, *_), *_ = made
    arguments = [*own[:-1], pair.parent, *INT8, "--input", "uint8", "--calibration", photographs]
    before = pair.read_bytes()
    assert call(*arguments, "--max-error", "0.2", "--calibration-count", "8") == 3
    assert "exists and differs in calibration, max_error; replace it with --overwrite" in call.error
    assert "equalising" not in call.err, "that is said before the work"
    assert pair.read_bytes() == before


def test_what_an_export_says(made: Made) -> None:
    (pair, *_), out, err = made
    assert re.fullmatch(r"lpips_alex_int8_custom-[0-9a-f]{8}_uint8\.onnx", pair.name)
    assert out == f"{pair}\n"
    lines = err.splitlines()
    titles = [re.sub(r": [\d.]+ s$", "", line) for line in lines]
    assert titles[1].startswith("reading ")
    assert titles[3:6] == [
        "equalising channels on 48 crops",
        "scoring the held-out pairs in float32",
        "measuring what each of 5 convolutions costs",
    ]
    assert any(re.fullmatch(r"judging \d of 5 convolutions in INT8, \d of two planes", title) for title in titles[6:])
    assert f"{pair.name}: " in err
    assert "Traceback" not in err
    assert "Warning" not in err


def test_every_graph_of_a_split_export_says_how_it_was_quantised(made: Made) -> None:
    paths, *_ = made
    assert [path.stem.rsplit("_", 1)[1] for path in paths] == ["uint8", "compare", "features"]
    manifests = [json.loads(manifest_path(path).read_text(encoding="utf-8")) for path in paths]
    assert len({json.dumps(manifest["quantisation"]) for manifest in manifests}) == 1
    operators = [{node.op_type for node in onnx.load(path).graph.node} for path in paths]
    assert ["DequantizeLinear" in found for found in operators] == [True, False, True], "a comparison has no backbone"


def test_the_split_graphs_are_the_halves_of_the_pair(made: Made) -> None:
    (pair, compare, features), *_ = made
    images = photo_batch(96)[:2]
    found = run(features, {"image": images})
    halves = {
        f"{side}_{k}": taps[at : at + 1]
        for at, side in enumerate(("reference", "distorted"))
        for k, taps in enumerate(found)
    }
    (distance, *_) = run(compare, halves)
    (expected, *_) = run(pair, {"reference": images[:1], "distorted": images[1:]})
    assert expected[0] > 0.01
    assert distance == pytest.approx(expected, rel=1e-4)


def run(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, inputs)]


def test_scorer_scores_with_it_and_says_what_it_is(made: Made) -> None:
    (pair, *_), *_ = made
    one, other = photo_batch(96)[:2]
    with Scorer(pair) as scorer:
        assert scorer.info.precision == scorer.provenance["model"]["precision"] == "int8"
        assert scorer.info.target == "cpu"
        found = scorer.score(one, other)
        assert scorer.score(one, one) == 0
    assert found > 0.01


def test_uint8_images_give_nearly_what_floats_do(
    call: Call, calibrated: list, quick: None, few: None, made: Made, tmp_path: Path
) -> None:
    (of_bytes, *_), *_ = made
    assert call(*calibrated) == 0
    (of_floats,) = (tmp_path / "out").glob("*.onnx")
    images = photo_batch(96)
    with Scorer(of_bytes) as scorer:
        found = scorer.score(images[:4], images[4:8])
    with Scorer(of_floats) as scorer:
        expected = scorer.score(as_float(images[:4]), as_float(images[4:8]), value_range=(-1, 1))
    assert np.allclose(found, expected, rtol=0.01)


# --- --check


@pytest.mark.usefixtures("quick")
def test_check_proves_each_graph_again_without_the_photographs(
    call: Call, made: Made, random_backbone: Backbones
) -> None:
    paths, *_ = made
    for path in paths:
        assert call("--check", path, "--backbone", random_backbone("alex")) == 0, call.err
        assert call.out.startswith(f"{path}: passed; ")
        said = (
            f"its error on photographs, .* coarse for INT8; what was .* is in {manifest_path(path)}, under quantisation"
        )
        assert re.search(f"^not proven again: {said}$", call.err, re.MULTILINE)
        assert "quantisation" in json.loads(manifest_path(path).read_text(encoding="utf-8"))


@pytest.mark.usefixtures("quick")
def test_check_as_json_says_what_is_not_proven_of_int8(
    call: Call, made: Made, random_backbone: Backbones, tmp_path: Path
) -> None:
    path = Path(shutil.copy(made[0][0], tmp_path))
    assert call("--check", path, "--backbone", random_backbone("alex"), "--json") == 0
    said = json.loads(call.out)["not_proven"]
    assert said.startswith("its error on photographs, ")
    assert said.endswith(f"is in {path.name}.json, which is missing")


def another_scale(model: onnx.ModelProto) -> None:
    """Of what the second convolution reads: a tenth of it is left."""
    tensor = next(t for t in model.graph.initializer if t.name.endswith("pool2d_scale"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / np.float32(10), tensor.name))


def zero_weights(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4 and t.name.endswith("quantized"))
    tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("spoil", [another_scale, zero_weights], ids=lambda spoil: spoil.__name__)
def test_check_finds_a_graph_that_was_tampered_with(
    call: Call,
    made: Made,
    random_backbone: Backbones,
    tmp_path: Path,
    spoil: Callable[[onnx.ModelProto], None],
) -> None:
    (pair, *_), *_ = made
    path = tmp_path / pair.name
    model = onnx.load(pair)
    spoil(model)
    shutil.copy(manifest_path(pair), manifest_path(path))
    path.write_bytes(model.SerializeToString())
    assert call("--check", path, "--backbone", random_backbone("alex")) == 1
    assert (call.out, path.name in call.error) == ("", True)


def test_the_flavours_are_those_that_the_command_offers() -> None:
    from typing import get_args

    from lpips_export import cli, spec

    assert get_args(cli.Target) == (*FLAVOURS, "openvino") == spec.CHOICES["target"]
