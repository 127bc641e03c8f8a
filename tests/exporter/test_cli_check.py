"""lpips-export --check: what is proven again, and what the answer is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_command import Backbones, Call, Exported
from onnx import numpy_helper

from lpips_export.backbones import BACKBONES
from lpips_export.structure import RULES
from lpips_export.tracing import serialized
from lpips_runtime.models import manifest_path


@pytest.mark.usefixtures("quick")
def test_check_proves_an_artifact_again_and_prints_which(
    call: Call, artifact: Path, random_backbone: Backbones
) -> None:
    assert call("--check", "alex", "--backbone", random_backbone("alex")) == 0
    number = r"[\d.]+e-\d\d"
    assert re.fullmatch(
        f"artifacts/{artifact.name}: passed; {len(RULES)} rules of structure, 5 cases against lpips 0.1.4, "
        f"worst error distance {number}, layers {number}, map {number}\n",
        call.out,
    )
    assert "not proven" not in call.err, "that is of INT8"


@pytest.mark.usefixtures("quick")
def test_check_as_json_without_a_manifest_says_what_was_not_checked(
    call: Call, artifact: Path, random_backbone: Backbones
) -> None:
    content = json.loads(manifest_path(artifact).read_text(encoding="utf-8"))
    manifest_path(artifact).unlink()
    assert call("--check", artifact, "--backbone", random_backbone("alex"), "--json") == 0
    result = json.loads(call.out)
    assert list(result) == ["path", "passed", "structure", "validation"]
    assert (result["path"], result["passed"]) == (str(artifact), True)
    assert result["structure"] == content["structure"]
    assert result["validation"]["cases"][:3] == content["validation"]["cases"][:3]
    assert f"{artifact}: no manifest beside it, so its sha256 is not checked\n" in call.err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("number", [1, 2], ids=["features", "compare"])
def test_check_takes_the_graphs_of_a_split_export_too(
    call: Call, exported: Exported, random_backbone: Backbones, number: int
) -> None:
    path = exported(net="alex", split=True)[number]
    assert call("--check", path, "--backbone", random_backbone("alex")) == 0
    assert call.out.startswith(f"{path}: passed; ")


def larger_lin(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("lin0"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))


def another_eps(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if "eps" in t.name)
    tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), 1e-8), tensor.name))


def unknown_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Rleu"


def too_few_inputs(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in ("Add", "Div", "Pow", "Mul"):
            del node.input[1:]


def unknown_tensor_type(model: onnx.ModelProto) -> None:
    next(t for t in model.graph.initializer if "eps" in t.name).data_type = 99


def missing_key(model: onnx.ModelProto) -> None:
    del model.metadata_props[0]


# Each has an answer, and it is no.
TAMPERED: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "numbers": (larger_lin, r"case 'smallest side': distance is .*, the reference says .*; off by .*, limit .*"),
    "eps": (another_eps, r"the graph is not built as it must be: depth_0 divides by sqrt.*"),
    "operator": (unknown_operator, r"the graph .*Rleu.*"),
    "inputs": (too_few_inputs, r"the graph .*"),
    "tensor type": (unknown_tensor_type, r"the graph .*"),
    "metadata": (missing_key, r"metadata key lpips\.\w+ is missing; export the model again"),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("what", TAMPERED)
def test_check_fails_what_was_tampered_with(call: Call, artifact: Path, random_backbone: Backbones, what: str) -> None:
    change, message = TAMPERED[what]
    model = onnx.load(artifact)
    change(model)
    artifact.write_bytes(serialized(model))
    manifest_path(artifact).unlink()
    assert call("--check", artifact, "--backbone", random_backbone("alex")) == 1
    assert call.out == ""
    assert re.fullmatch(f"error: {re.escape(str(artifact))}: {message}", call.error)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def spoil_manifest(path: Path) -> None:
    manifest_path(path).write_text("{")


@pytest.mark.parametrize("spoil", [cut_short, spoil_manifest])
def test_check_fails_what_does_not_match_its_manifest(
    call: Call, artifact: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(artifact)
    assert call("--check", artifact) == 1
    assert call.out == ""
    assert call.error.startswith(f"error: {artifact}")
    assert call.error.endswith("export the model again")


def foreign_model() -> bytes:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])])
    return onnx.helper.make_model(graph).SerializeToString()


def newer_model() -> bytes:
    model = onnx.load_model_from_string(foreign_model())
    model.metadata_props.add(key="lpips.format", value="2")
    return model.SerializeToString()


# The question cannot be put to these.
FOREIGN = {
    "empty": (b"", "not one of lpips-export"),
    "text": (b"no model at all\n", "not an ONNX model"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(64), "not an ONNX model"),
    "another model": (foreign_model(), "not one of lpips-export"),
    "newer contract": (newer_model(), "upgrade lpips-runtime or export the model again"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_check_cannot_judge_what_is_no_artifact_of_ours(call: Call, tmp_path: Path, what: str) -> None:
    content, message = FOREIGN[what]
    (tmp_path / "x.onnx").write_bytes(content)
    assert call("--check", "x.onnx") == 3
    assert call.out == ""
    assert call.error.startswith("error: x.onnx: ")
    assert message in call.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx"], "missing.onnx: no such model; give the path of an .onnx or .engine file of lpips-export"),
        (["squeeze"], "artifacts/lpips_squeeze_fp32.onnx: no such model; pip install the wheel lpips-model-squeeze, "
         "or export it with: lpips-export --net squeeze"),
        (["artifacts"], "artifacts: is a folder, a model is needed; give the path of an .onnx or .engine file of "
         "lpips-export"),
        (["alex"], "artifacts/lpips_alex_fp32.onnx: was made from custom weights; give the file it was made from with "
         "--backbone"),
        (["alex", "--lin", "none"], "--lin none with --check: the artifact itself says whether it is the baseline; "
         "leave it out"),
        (["alex", "--net", "alex"], "--net with --check: the artifact itself says what it is; leave the option out"),
        (["alex", "--split"], "--split with --check: the artifact itself says what it is; leave the option out"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("artifact")
def test_check_called_wrongly_is_told_what_is_right(call: Call, arguments: list[str], message: str) -> None:
    assert call("--check", *arguments) == 2
    assert (call.out, call.error) == ("", f"error: {message}")


def test_check_refuses_weights_that_the_artifact_was_not_made_from(
    call: Call, artifact: Path, real_weights: Callable[[str], Path]
) -> None:
    assert call("--check", artifact, "--backbone", real_weights("alex")) == 3
    assert call.error.startswith(f"error: {artifact}: was made from weights ")
    assert call.error.endswith(
        f"found were {BACKBONES['alex'].sha256[:16]}…; give the file it was made from with --backbone"
    )


def test_check_of_a_baseline_refuses_lin_weights(call: Call, exported: Exported, random_backbone: Backbones) -> None:
    (path,) = exported(net="squeeze", version="0.0", lin="none", quick=True)
    assert call("--check", path, "--lin", "mine.pth", "--backbone", random_backbone("squeeze")) == 2
    assert call.error == f"error: {path}: is the unweighted baseline, there is no weight to compare; leave --lin out"


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_check_whose_answer_cannot_be_written_says_so(
    call: Call, artifact: Path, random_backbone: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
        patch.setattr(sys, "stdout", full)
        assert call("--check", artifact, "--backbone", random_backbone("alex")) == 3
    assert call.error == (f"error: stdout cannot be written: No space left on device; {artifact}: passed all the same")


def test_a_reader_that_has_seen_enough_is_no_failure_to_report(artifact: Path, random_backbone: Backbones) -> None:
    command = Path(sys.executable).with_name("lpips-export")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [str(command), "--check", str(artifact), "--backbone", str(random_backbone("alex"))],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 1
    assert "error" not in done.stderr
