"""lpips-score as its users call it: whole outputs and exit codes."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_files
import pytest
from PIL import Image as PILImage
from score_command import GRAY16, Models, Run, save, summary

from lpips_runtime import Scorer, progress
from lpips_runtime.results import FORMATS, format_distance

# One pair, several, folders, tables


def test_one_pair_prints_the_bare_number(run: Run, distance: Callable[[str, str], str]) -> None:
    assert run("a.png", "b.png") == (0, f"{distance('a.png', 'b.png')}\n", "")
    assert run("a.png", "a.png") == (0, "0.0\n", "")


def test_one_reference_against_many(run: Run, distance: Callable[[str, str], str]) -> None:
    d, e = distance("a.png", "b.png"), distance("a.png", "c.png")
    assert run("a.png", "b.png", "./c.png", "a.png") == (
        0,
        f"{d}\ta.png\tb.png\n{e}\ta.png\t./c.png\n0.0\ta.png\ta.png\n",
        summary(d, e, "0.0"),
    )


def test_options_may_stand_between_names_and_names_after_a_dash(run: Run, distance: Callable[[str, str], str]) -> None:
    d = distance("a.png", "b.png")
    Path("a.png").rename("-a.png")
    assert run("--", "-a.png", "b.png") == (0, f"{d}\n", "")
    assert run("b.png", "--", "-a.png") == (0, f"{d}\n", "")
    assert run("./-a.png", "--threads", "1", "b.png") == (0, f"{d}\n", "")
    assert run("./-a.png", "b.png", "--format", "csv", "c.png")[1].count("\n") == 3


def test_folders_are_matched_and_missing_partners_reported(run: Run, distance: Callable[[str, str], str]) -> None:
    for name, seed in (("refs/a.png", 0), ("refs/sub/b.png", 1), ("refs/c.png", 2), ("refs/notes.txt.png", 3)):
        save(name, seed)
    for name, seed in (("dist/a.png", 4), ("dist/sub/b.bmp", 5), ("dist/d.png", 6), ("dist/notes.txt.png", 3)):
        save(name, seed)
    Path("dist/read.me").touch()
    d, e = distance("refs/a.png", "dist/a.png"), distance("refs/sub/b.png", "dist/sub/b.bmp")
    assert run("refs", "dist") == (
        3,
        f"{d}\trefs/a.png\tdist/a.png\n"
        "0.0\trefs/notes.txt.png\tdist/notes.txt.png\n"
        f"{e}\trefs/sub/b.png\tdist/sub/b.bmp\n",
        "note: dist: 1 file left out, no image by the suffix, e.g. read.me\n"
        "error: refs/c.png, dist/c.png: refs/c.png has no partner in dist: neither c.png nor an image c.* "
        "that is not paired already\n"
        "error: refs/d.png, dist/d.png: dist/d.png has no partner in refs: neither d.png nor an image d.* "
        "that is not paired already\n" + summary(d, "0.0", e, failed=2),
    )


def test_a_table_of_pairs(run: Run, distance: Callable[[str, str], str]) -> None:
    save("sub/x.png", 7)
    Path("sub/pairs.csv").write_text("distorted,reference\nx.png,../a.png\n../b.png,x.png\nx.png\ngone.png,x.png\n")
    d, e = distance("a.png", "sub/x.png"), distance("sub/x.png", "b.png")
    code, out, err = run("--pairs", "sub/pairs.csv")
    assert (code, out) == (3, f"{d}\t../a.png\tx.png\n{e}\tx.png\t../b.png\n")
    assert err == (
        "error: , x.png: sub/pairs.csv, line 4: 1 field, where the header has 2\n"
        "error: x.png, gone.png: sub/gone.png: no such file; check the path\n" + summary(d, e, failed=2)
    )


def test_a_table_from_standard_input(
    run: Run, distance: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = io.TextIOWrapper(io.BytesIO(b"reference,distorted\na.png,b.png\n"))
    monkeypatch.setattr(sys, "stdin", table)
    d = distance("a.png", "b.png")
    assert run("--pairs", "-") == (0, f"{d}\ta.png\tb.png\n", summary(d))


def test_a_table_that_breaks_half_way_keeps_its_rows(run: Run, distance: Callable[[str, str], str]) -> None:
    Path("pairs.csv").write_bytes(b"reference,distorted\na.png,b.png\na.png,\xff.png\na.png,c.png\n")
    d = distance("a.png", "b.png")
    code, out, err = run("--pairs", "pairs.csv", "--format", "json", "--fail-above", "0")
    assert code == 3
    assert err == (
        summary(d)
        + f"above 0: 1 of 1 pairs, the worst {d} for a.png, b.png\n"
        + "error: pairs.csv, line 3: not UTF-8: invalid start byte; save it as UTF-8\n"
    )
    told = json.loads(out)
    assert [row["distance"] for row in told["results"]] == [float(d)]
    assert told["summary"]["complete"] is False


def test_all_pairs_of_a_folder(run: Run, distance: Callable[[str, str], str]) -> None:
    save("all/x.png", 0)
    save("all/y.png", 1)
    save("all/sub/z.png", 2)
    pairs = [("all/sub/z.png", "all/x.png"), ("all/sub/z.png", "all/y.png"), ("all/x.png", "all/y.png")]
    numbers = [distance(*pair) for pair in pairs]
    rows = "".join(f"{number}\t{a}\t{b}\n" for number, (a, b) in zip(numbers, pairs, strict=True))
    assert run("--all-pairs", "all") == (0, rows, summary(*numbers))


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_the_bar_knows_how_many_all_pairs_are(
    run: Run, quick_model: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    for k in range(count):
        save(f"all/{k}.png", k)
    totals = []
    monkeypatch.setattr(
        "lpips_runtime.scoring.ProgressBar", lambda total, done: totals.append(total) or progress.ProgressBar(done)
    )
    code, out, _ = run("-m", quick_model, "--all-pairs", "all")
    assert (code, totals) == (0, [count * (count - 1) // 2])
    assert out.count("\n") == totals[0]


# Forms


def test_csv(run: Run, distance: Callable[[str, str], str]) -> None:
    d = distance("a.png", "b.png")
    assert run("a.png", "b.png", "gone,.png", "--format", "csv") == (
        3,
        "reference,distorted,distance,error\n"
        f"a.png,b.png,{d},\n"
        'a.png,"gone,.png",,"gone,.png: no such file; check the path"\n',
        "error: a.png, gone,.png: gone,.png: no such file; check the path\n" + summary(d, failed=1),
    )


def test_jsonl(run: Run, distance: Callable[[str, str], str]) -> None:
    d = distance("a.png", "b.png")
    assert run("a.png", "b.png", "gone.png", "--format", "jsonl") == (
        3,
        f'{{"reference": "a.png", "distorted": "b.png", "distance": {d}, "error": null}}\n'
        '{"reference": "a.png", "distorted": "gone.png", "distance": null, '
        '"error": "gone.png: no such file; check the path"}\n',
        "error: a.png, gone.png: gone.png: no such file; check the path\n" + summary(d, failed=1),
    )


def test_json(run: Run, distance: Callable[[str, str], str], plain_model: Path) -> None:
    d = float(distance("a.png", "b.png"))
    code, out, err = run("a.png", "b.png", "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        **Scorer(plain_model).provenance,
        "summary": {"count": 1, "failed": 0, "mean": d, "median": d, "min": d, "max": d},
        "results": [{"reference": "a.png", "distorted": "b.png", "distance": d, "error": None}],
    }


@pytest.mark.parametrize("form", FORMATS)
def test_layers_add_up_in_every_form(run: Run, distance: Callable[[str, str], str], form: str) -> None:
    code, out, err = run("a.png", "b.png", "--layers", "--format", form)
    assert (code, err) == (0, "")
    found = {
        "text": lambda: out.split("\t")[1:],
        "csv": lambda: next(csv.DictReader(io.StringIO(out)))["layers"].split(" "),
        "jsonl": lambda: json.loads(out)["layers"],
        "json": lambda: json.loads(out)["results"][0]["layers"],
    }[form]()
    assert len(found) == 5
    assert sum(map(float, found)) == pytest.approx(float(distance("a.png", "b.png")), rel=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_gets_what_stdout_would(run: Run, form: str) -> None:
    code, out, err = run("a.png", "b.png", "gone.png", "--format", form)
    assert run("a.png", "b.png", "gone.png", "--format", form, "-o", "out") == (code, "", err)
    assert Path("out").read_text() == out


def test_names_that_would_break_a_line_do_not(run: Run, distance: Callable[[str, str], str]) -> None:
    d = distance("a.png", "b.png")
    Path("b.png").rename("b\n\x1b[31m.png")
    code, out, err = run("a.png", "b\n\x1b[31m.png", "c\r.png")
    assert (code, out) == (3, f"{d}\ta.png\tb\\n\\x1b[31m.png\n")
    assert err == r"error: a.png, c\r.png: c\r.png: no such file; check the path" + "\n" + summary(d, failed=1)


# The model


def test_info_as_text_and_json(run: Run, plain_model: Path) -> None:
    code, out, err = run("--info", "--format", "json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    with Scorer(plain_model) as scorer:
        assert told["runtime"] == scorer.provenance["runtime"]
        assert told["model"].items() >= scorer.provenance["model"].items()
        assert told["model"]["path"] == str(plain_model)
        assert (told["model"]["min_size"], told["model"]["kind"]) == (31, "pair")
    lines = [f"{part}.{key}: {value}\n" for part, values in told.items() for key, value in values.items()]
    assert run("--info") == (0, "".join(lines), "")
    assert run("--info", "-o", "info.txt") == (0, "", "")
    assert Path("info.txt").read_text() == "".join(lines)


def test_info_of_a_hostile_model_keeps_to_its_lines(run: Run, quick_model: Path) -> None:
    onnx_files.relabelled(quick_model, Path("m.onnx"), license="none\nmodel.net: vgg\x1b[2J")
    code, out, err = run("--info", "-m", "m.onnx")
    assert (code, err) == (0, "")
    assert "model.license: none\\nmodel.net: vgg\\x1b[2J\n" in out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "0.0"}, "LPIPS v0.0"),
        ({"lin": "baseline"}, "unweighted baseline (no lin weights)"),
        ({"lin": "custom"}, "custom lin weights"),
        ({"backbone_sha256": "1" * 64}, "custom backbone weights"),
        ({"version": "0.0", "lin": "custom"}, "LPIPS v0.0, custom lin weights"),
    ],
)
def test_a_model_that_is_not_plain_is_noted(
    run: Run, plain_model: Path, distance: Callable[[str, str], str], changes: dict[str, str], said: str
) -> None:
    onnx_files.relabelled(plain_model, Path("m.onnx"), **changes)
    assert run("a.png", "b.png", "-m", "m.onnx") == (
        0,
        f"{distance('a.png', 'b.png')}\n",
        f"note: m.onnx is not plain LPIPS v0.1: {said}\n",
    )


def test_a_real_peculiar_model(run: Run, models: Models) -> None:
    code, out, err = run("a.png", "b.png", "-m", models("squeeze_baseline"))
    with Scorer(models("squeeze_baseline")) as scorer:
        assert (code, out) == (0, f"{format_distance(float(scorer.score('a.png', 'b.png')))}\n")
    assert err == (
        "note: squeeze_baseline.onnx is not plain LPIPS v0.1: LPIPS v0.0, unweighted baseline (no lin weights), "
        "custom backbone weights\n"
    )


def test_half_precision_on_the_cpu_is_noted_once(run: Run, plain_model: Path) -> None:
    onnx_files.relabelled(plain_model, Path("half.onnx"), precision="fp16")
    code, _, err = run("a.png", "b.png", "c.png", "-m", "half.onnx", "--provider", "cpu")
    assert code == 0
    note, _, _ = err.partition("\n")
    assert note == "note: half.onnx: half precision is slower than float32 on CPUs; use the fp32 model there"
    assert err.count("note:") == 1
    assert "half precision" not in run("--info", "-m", "half.onnx", "--provider", "cpu")[2]
    assert "half precision" not in run("a.png", "b.png", "--provider", "cpu")[2]


def test_a_graph_arranged_for_openvino_is_noted_elsewhere(run: Run, plain_model: Path) -> None:
    onnx_files.relabelled(plain_model, Path("arranged.onnx"), target="openvino")
    _, _, err = run("a.png", "b.png", "-m", "arranged.onnx", "--provider", "cpu")
    note = "is arranged for OpenVINO; use the model without openvino in its name there"
    assert err == f"note: arranged.onnx: {note}\n"


def test_a_missing_model_says_how_to_get_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LPIPS_MODEL")
    assert run("a.png", "b.png") == (
        2,
        "",
        "error: artifacts/lpips_alex_fp32.onnx: no such model; pip install the wheel lpips-model-alex, "
        "export it with lpips-export, or name a model with -m or $LPIPS_MODEL\n",
    )
    assert run("a.png", "b.png", "-m", "vgg") == (
        2,
        "",
        "error: artifacts/lpips_vgg_fp32.onnx: no such model; pip install the wheel lpips-model-vgg, "
        "or export it with: lpips-export --net vgg\n",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "error: m.onnx: not an ONNX model, or a damaged one ("),
        (b"no model", "error: m.onnx: not an ONNX model, or a damaged one (Failed to load model because protobuf"),
        (onnx_files.foreign(), "error: m.onnx: an ONNX model, but not one of lpips-export (no lpips.* metadata)\n"),
    ],
)
def test_a_file_that_is_no_model(run: Run, content: bytes, said: str) -> None:
    Path("m.onnx").write_bytes(content)
    code, out, err = run("a.png", "b.png", "-m", "m.onnx")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert re.sub(r"/\S*/m\.onnx", "m.onnx", err).startswith(said)


def test_a_graph_of_a_split_export_is_a_wrong_call(run: Run, models: Models) -> None:
    code, out, err = run("a.png", "b.png", "-m", models("alex_features"))
    assert (code, out) == (2, "")
    assert err.endswith("is the 'features' graph of a split export, the 'pair' graph is needed here\n")


def test_a_provider_that_is_not_installed(run: Run) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    code, out, err = run("a.png", "b.png", "--provider", "cuda:1")
    assert (code, out) == (3, "")
    assert err.startswith("error: provider 'cuda' is not in the installed ONNX Runtime ")


# Notes and backgrounds


def test_notes_on_images_are_counted_once_for_each_kind(run: Run) -> None:
    PILImage.fromarray(np.full((40, 36), 40_000, np.uint16)).save("gray.png")
    PILImage.open("b.png").save("icc.png", icc_profile=b"profile")
    code, _, err = run("a.png", "b.png", "gray.png", "icc.png", "gray.png", "gray.png")
    assert code == 0
    assert err.splitlines()[:2] == [
        f"note: a.png, gray.png and 2 other pairs: {GRAY16}",
        "note: a.png, icc.png: the ICC colour profile is ignored, values are taken as sRGB",
    ]
    assert err.count("\n") == 3
    assert run("gray.png", "gray.png") == (0, "0.0\n", f"note: gray.png, gray.png: {GRAY16}\n")
    assert run("gray.png", "a.png", "b.png")[2].startswith(f"note: gray.png, a.png and 1 other pair: {GRAY16}\n")


def test_a_background_makes_transparent_images_comparable(run: Run) -> None:
    PILImage.new("RGBA", (40, 40), (0, 0, 0, 0)).save("clear.png")
    PILImage.new("RGB", (40, 40), (255, 128, 0)).save("orange.png")
    code, out, err = run("orange.png", "clear.png")
    assert (code, out) == (3, "")
    assert err == (
        "error: orange.png, clear.png: clear.png: 1,600 of 1,600 pixels are transparent, and LPIPS is defined on "
        "opaque ones; give a background colour (--background white)\n"
    )
    assert run("orange.png", "clear.png", "--background", "#ff8000") == (0, "0.0\n", "")


# The answer


def test_fail_above(run: Run, distance: Callable[[str, str], str]) -> None:
    d, e = distance("a.png", "b.png"), distance("a.png", "c.png")
    low, high = sorted((d, e), key=float)
    worst = "b.png" if high == d else "c.png"
    assert run("a.png", "b.png", "--fail-above", "9") == (0, f"{d}\n", "")
    assert run("a.png", "b.png", "--fail-above", d) == (0, f"{d}\n", "")
    assert run("a.png", "b.png", "--fail-above", "0.001") == (1, f"{d}\n", f"above 0.001: {d}\n")
    rows = f"{d}\ta.png\tb.png\n{e}\ta.png\tc.png\n"
    assert run("a.png", "b.png", "c.png", "--fail-above", low) == (
        1,
        rows,
        summary(d, e) + f"above {low}: 1 of 2 pairs, the worst {high} for a.png, {worst}\n",
    )
    assert run("a.png", "b.png", "c.png", "gone.png", "--fail-above", "0") == (
        3,
        rows,
        "error: a.png, gone.png: gone.png: no such file; check the path\n"
        + summary(d, e, failed=1)
        + f"above 0: 2 of 3 pairs, the worst {high} for a.png, {worst}\n",
    )
    assert run("a.png", "gone.png", "--fail-above", "0")[0] == 3
    assert run("a.png", "a.png", "--fail-above", "0")[0] == 0


def test_a_limit_means_the_decimal_that_is_printed(run: Run, quick_model: Path) -> None:
    """The float32 next to 0.1 is larger than the float64: compared as they are, 0.1 would be above 0.1."""
    black = np.zeros((40, 36, 3), np.uint8)
    with Scorer(quick_model) as scorer:
        scores = [scorer.score(black, black + np.uint8(value)) for value in range(1, 64)]
    printed = [format_distance(float(score)) for score in scores]
    value = next(k for k, score in enumerate(scores) if float(score) > float(printed[k]))
    PILImage.fromarray(black).save("black.png")
    PILImage.fromarray(black + np.uint8(value + 1)).save("gray.png")
    call = ("-m", quick_model, "black.png", "gray.png", "--fail-above", printed[value])
    assert run(*call) == (0, f"{printed[value]}\n", "")
