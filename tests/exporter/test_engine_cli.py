"""lpips-export --engine as its users call it: outputs, exit codes, an interrupted build."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from export_command import Call, Exported

from lpips_export import trt_library
from lpips_runtime.models import manifest_path

SMALL = ("--engine", "--max", "1x64x64")


# --- the call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min", "8x64"], "--min: '8x64' is no shape; write pairs x height x width, as in 1x256x256"),
        (["--opt", "ax64x64"], "--opt: 'ax64x64' is no shape; write pairs x height x width, as in 1x256x256"),
        (
            ["--min", "2x64x64", "--max", "1x64x64"],
            "--min 2x64x64 is above --max 1x64x64 in pairs (2 > 1); lower the one or raise the other",
        ),
        (["--workspace", "2"], "--workspace: '2' is no size; write a number and its unit, as in 1400MB or 2GB"),
        (["--opt", "0x64x64"], "--opt 0x64x64: a batch holds at least one pair; give 1x... or more"),
    ],
)
def test_a_wrong_engine_is_told_before_torch_is_loaded(call: Call, arguments: list[str], message: str) -> None:
    assert call("--engine", *arguments) == 2
    assert (call.out, call.err) == ("", f"error: {message}\n")


@pytest.mark.parametrize(
    "option",
    [
        *(["--min", "1x64x64"], ["--opt", "1x64x64"], ["--max", "1x64x64"], ["--workspace", "2GB"]),
        *(["--timing-cache", "x"], ["--version-compatible"], ["--hardware-compatible"]),
    ],
)
def test_an_option_of_engines_without_one_is_a_wrong_call(call: Call, option: list[str]) -> None:
    assert call(*option) == 2
    assert call.err == f"error: {option[0]} without --engine: it says how to build one; add --engine or leave it out\n"


def test_no_engine_is_built_beside_a_check(call: Call) -> None:
    assert call("--check", "alex", "--engine") == 2
    assert call.err == "error: --engine with --check: the artifact itself says what it is; leave the option out\n"


@pytest.mark.usefixtures("rtx")
def test_a_side_below_the_smallest_is_told_before_the_work(call: Call, own: list) -> None:
    assert call(*own, "--engine", "--opt", "1x256x30") == 2
    assert call.error == "error: --opt 1x256x30: alex takes no side below 31 pixels; give at least 1x256x31"
    assert "tracing" not in call.err


def test_an_engine_is_not_checked(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "lpips_alex_fp32_rtx.engine"
    path.write_bytes(b"plan")
    assert call("--check", path) == 3
    assert call.error == f"error: {path}: is an engine, which shows its numbers only where it runs; check its graph"


def test_a_missing_tensorrt_is_told_before_the_work(
    call: Call, own: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trt_library, "_FLAVOURS", {})
    assert call(*own, *SMALL) == 3
    assert call.error.startswith("error: no TensorRT: none is installed; install one of the extras: ")
    assert "backbone" not in call.err
    assert not (tmp_path / "out").exists()


# --- what it prints and leaves


@pytest.mark.usefixtures("quick", "rtx")
def test_the_engine_is_the_last_line_and_is_said_not_to_have_been_executed(
    call: Call, own: list, tmp_path: Path
) -> None:
    assert call(*own, *SMALL) == 0
    (engine,) = (tmp_path / "out").glob("*.engine")
    graph = engine.with_name(engine.name.replace("_rtx.engine", ".onnx"))
    assert call.out == f"{graph}\n{engine}\n"
    assert re.search(rf"^building {engine.name}: [\d.]+ s$", call.err, re.MULTILINE)
    assert re.search(
        rf"^{engine.name}: [\d.]+ MB, tensorrt-rtx [\d.]+, 1x31x31 to 1x64x64; built, not executed$",
        call.err,
        re.MULTILINE,
    )
    assert "TensorRT info" not in call.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [graph.name, f"{graph.name}.json", engine.name, f"{engine.name}.json"]
    )


@pytest.mark.usefixtures("quick", "rtx")
def test_json_has_the_engine_too_and_debug_shows_tensorrts_log(call: Call, own: list) -> None:
    assert call(*own, *SMALL, "--json", "--debug") == 0
    result = json.loads(call.out)
    assert list(result) == ["path", "seconds", "files", "engine"]
    engine = result["engine"]
    manifest = json.loads(manifest_path(Path(engine["path"])).read_text(encoding="utf-8"))
    assert engine == {key: manifest[key] for key in engine if key != "path"} | {"path": engine["path"]}
    assert engine["executed"] is False
    assert engine["profiles"] == [{"min": [1, 31, 31], "opt": [1, 64, 64], "max": [1, 64, 64]}]
    assert len(result["files"]) == 1
    assert "TensorRT info: " in call.err


@pytest.mark.usefixtures("quick", "rtx")
def test_a_build_that_fails_leaves_the_proven_graph_and_says_where(call: Call, own: list, tmp_path: Path) -> None:
    assert call(*own, "--engine", "--workspace", "100MB") == 3
    (graph,) = (tmp_path / "out").glob("*.onnx")
    assert call.out == ""
    assert re.fullmatch(
        r"error: TensorRT-RTX did not build the engine: .*OutOfMemory.*; lower --max, free device memory, or raise "
        rf"--workspace if you gave it; the graph is published all the same: {re.escape(str(graph))}",
        call.error,
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [graph.name, f"{graph.name}.json"]


@pytest.mark.usefixtures("rtx")
def test_somebody_elses_engine_is_found_in_the_way_before_the_work(
    call: Call, own: list, exported: Exported, tmp_path: Path
) -> None:
    there = tmp_path / "out" / exported(net="alex", split=True)[0].name.replace(".onnx", "_rtx.engine")
    there.parent.mkdir()
    there.write_bytes(b"somebody's")
    assert call(*own, *SMALL) == 3
    assert call.error.startswith(f"error: {there}: exists without a readable manifest")
    assert "tracing" not in call.err
    assert there.read_bytes() == b"somebody's"


# --- an interrupted build

# Prints when TensorRT begins, so that the signal comes in the middle of it.
INTERRUPTIBLE = """
import itertools, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from lpips_export import cli, trt, trt_library, validate
del trt_library._FLAVOURS["tensorrt"]
cases = validate.validation_cases
validate.validation_cases = lambda *of: itertools.islice(cases(*of), 3)
monitor = trt._monitor
def announced(*arguments):
    print("begins", file=sys.stderr, flush=True)
    return monitor(*arguments)
trt._monitor = announced
cli.main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="processes are not interrupted by signals there")
@pytest.mark.usefixtures("rtx")
def test_an_interrupted_build_ends_soon_and_leaves_the_graph_alone(own: list, tmp_path: Path) -> None:
    # Each profile takes about a fifth of a second: to the end it would be most of a minute.
    profiles = [text for k in range(200) for text in ("--max", f"{k + 1}x128x128")]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *map(str, own), "--engine", *profiles],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line == "begins\n":
                break
        # TensorRT is at work by then: what it does first takes milliseconds.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (out, err) == ("", "interrupted\n")
    (graph,) = (tmp_path / "out").glob("*.onnx")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [graph.name, f"{graph.name}.json"]
