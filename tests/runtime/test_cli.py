"""lpips-score as a user meets it: whole outputs, exit codes, and what is left when it is stopped."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
from PIL import Image as PILImage

from lpips_runtime import Scorer, __version__, progress
from lpips_runtime.cli import main
from lpips_runtime.results import FORMATS, format_distance

Models = Callable[[str], Path]
Run = Callable[..., tuple[int, str, str]]

COMMAND = [sys.executable, "-c", "import sys; from lpips_runtime.cli import main; sys.exit(main())"]
GRAY16 = "16-bit gray is rounded to 8 bits"
full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110


@pytest.fixture(scope="session")
def plain_model(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random AlexNet, but under the name of torchvision's, so that nothing is said of it."""
    return onnx_files.plain(models("alex"), tmp_path_factory.mktemp("plain") / "plain.onnx")


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squared differences, for tests with many pairs."""
    path = tmp_path_factory.mktemp("quick") / "quick.onnx"
    path.write_bytes(onnx_files.squared_difference())
    return path


def save(name: str, seed: int, size: tuple[int, int] = (40, 36)) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(pixels).save(name)
    return name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_model: Path) -> Path:
    """An empty current folder but for a.png, b.png and c.png; the model comes from the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPIPS_MODEL", str(plain_model))
    for seed, name in enumerate("abc"):
        save(f"{name}.png", seed)
    return tmp_path


@pytest.fixture
def run(here: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: arguments -> exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code: Any = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def distance(here: Path, plain_model: Path) -> Callable[[str, str], str]:
    """The number that the library gives for two files, as it is printed."""
    return lambda a, b: format_distance(float(Scorer(plain_model).score(a, b)))


def summary(*distances: str, failed: int = 0) -> str:
    values = np.array(distances, np.float32).astype(float)
    scored = f"{len(values)} pair{'s' * (len(values) != 1)}"
    more = f", {failed} failed" if failed else ""
    return f"mean {values.mean():.6g}, median {np.median(values):.6g} over {scored}{more}\n"


def command(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "check": False, "timeout": 120}
    return subprocess.run([*COMMAND, *map(str, arguments)], **(defaults | options))


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
    code, out, err = run("--pairs", "pairs.csv", "--format", "json")
    assert (code, err) == (2, "error: pairs.csv, line 3: not UTF-8: invalid start byte; save it as UTF-8\n")
    told = json.loads(out)
    assert [row["distance"] for row in told["results"]] == [float(distance("a.png", "b.png"))]
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
    monkeypatch.setattr("lpips_runtime.cli.ProgressBar", lambda total: totals.append(total) or progress.ProgressBar(0))
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
        ({"backbone_sha256": "0" * 64}, "custom backbone weights"),
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


def test_a_missing_model_says_how_to_get_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LPIPS_MODEL")
    assert run("a.png", "b.png") == (
        2,
        "",
        "error: artifacts/lpips_alex_fp32.onnx: no such model; export it with lpips-export, "
        "or name a model with -m or $LPIPS_MODEL\n",
    )
    assert run("a.png", "b.png", "-m", "vgg") == (
        2,
        "",
        "error: artifacts/lpips_vgg_fp32.onnx: no such model; export it with: lpips-export --net vgg\n",
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


# Wrong calls


def test_help_and_version(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: lpips-score [-h]")
    assert "exit codes: 0 fine; 1 a distance is above --fail-above; 2 the call was wrong; 3 a file" in out
    assert run("--version") == (0, f"lpips-score {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "give REF DIST, --pairs FILE.csv or --all-pairs DIR, and nothing was given; see lpips-score --help"),
        ("a.png", "a.png: nothing to compare it with; give REF DIST [DIST ...]"),
        (
            "a.png b.png --pairs p.csv",
            "give REF DIST, --pairs FILE.csv or --all-pairs DIR, not REF DIST and --pairs together; "
            "see lpips-score --help",
        ),
        (
            "--all-pairs d --pairs p.csv",
            "give REF DIST, --pairs FILE.csv or --all-pairs DIR, not --pairs and --all-pairs together; "
            "see lpips-score --help",
        ),
        ("--info a.png", "--info scores nothing; leave out REF DIST"),
        ("--info --all-pairs d", "--info scores nothing; leave out --all-pairs"),
        ("--info --format csv", "--info prints text or json"),
        ("a.png d", "give two folders, or a reference image and one or more distorted images; d is a folder"),
        ("d a.png", "give two folders, or a reference image and one or more distorted images; d is a folder"),
        ("d d d", "give two folders, or a reference image and one or more distorted images; d is a folder"),
        ("d e", "e: holds no image; images end in .png, "),
        ("--all-pairs e", "e: holds no image; images end in .png, "),
        ("--all-pairs a.png", "a.png: is a file, where a folder of images is needed"),
        ("--all-pairs gone", "gone: no such folder"),
        ("--all-pairs d", "d: holds one image only, d/x.png; all pairs need at least two"),
        ("--pairs gone.csv", "gone.csv: cannot be opened: No such file or directory"),
        ("--pairs a.png", "a.png, line 1: not"),
        ("--pairs d", "d: is a folder, where a CSV file of pairs is needed"),
        ("--pairs empty.csv", "empty.csv: the first line must name the columns reference and distorted"),
        ("a.png b.png --provider gpu", "provider 'gpu' is unknown; choose from auto, cpu, cuda"),
        ("a.png b.png --provider cuda:x", "provider 'cuda:x': the device after the colon is a number, as in cuda:1"),
        ("a.png b.png --background bleu", "'bleu' is not a colour; give a name such as white, or #rrggbb"),
        ("a.png b.png --background #ffffff80", "the colour '#ffffff80' has an alpha value; "),
        ("a.png b.png -m gone.onnx", "gone.onnx: no such model; give the path of an .onnx file of lpips-export"),
        ("a.png b.png -m d", "d: is a folder, a model is needed; give the path of an .onnx file of lpips-export"),
        ("a.png b.png -o b.png", "-o b.png: is one of the inputs, and would be overwritten"),
        ("a.png b.png -o link.txt", "-o link.txt: is one of the inputs, and would be overwritten"),
        ("a.png b.png -o x.PNG", "-o x.PNG: is named like an image; results are text, --heatmap draws"),
        ("--pairs empty.csv -o ./empty.csv", "-o ./empty.csv: is one of the inputs, and would be overwritten"),
        ("a.png b.png -o m.onnx -m m.onnx", "-o m.onnx: is one of the inputs, and would be overwritten"),
        ("a.png b.png --heatmap a.png", "--heatmap a.png: is one of the inputs, and would be overwritten"),
        ("a.png b.png --heatmap h.gif", "--heatmap h.gif: one pair is drawn to a file, and no picture format goes by"),
        ("a.png b.png --heatmap h", "--heatmap h: one pair is drawn to a file, and no picture format goes by"),
        ("a.png b.png --heatmap f.png", "--heatmap f.png: is a folder; one pair is drawn to a file, name it"),
        ("a.png b.png c.png --heatmap empty.csv", "--heatmap empty.csv: is a file; several pairs are drawn into a"),
    ],
)
def test_wrong_calls(run: Run, quick_model: Path, arguments: str, said: str) -> None:
    save("d/x.png", 0)
    for folder in ("e", "f.png"):
        Path(folder).mkdir()
    Path("empty.csv").touch()
    Path("link.txt").symlink_to("a.png")
    Path("m.onnx").write_bytes(quick_model.read_bytes())
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, out, err = run(*arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {said}")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--threads -1", "argument --threads: '-1' is no number of threads; give 1 to 1024"),
        ("--threads 0", "argument --threads: '0' is no number of threads; give 1 to 1024"),
        ("--threads 2.5", "argument --threads: '2.5' is no number of threads; give 1 to 1024"),
        ("--threads 99999", "argument --threads: '99999' is no number of threads; give 1 to 1024"),
        ("--fail-above nan", "argument --fail-above: 'nan' is no distance; give a number of 0 or more"),
        ("--fail-above -1", "argument --fail-above: '-1' is no distance; give a number of 0 or more"),
        ("--fail-above x", "argument --fail-above: 'x' is no distance; give a number of 0 or more"),
        ("--format xml", "argument --format: invalid choice: 'xml' (choose from"),
        ("--form csv", "unrecognized arguments: --form"),
        ("--nope", "unrecognized arguments: --nope"),
        ("-o", "argument -o/--output: expected one argument"),
    ],
)
def test_options_that_cannot_be_meant(run: Run, arguments: str, said: str) -> None:
    code, out, err = run("a.png", "b.png", *arguments.split())
    assert (code, out) == (2, "")
    assert err.startswith("usage: lpips-score ")
    assert err.splitlines()[-1].startswith(f"lpips-score: error: {said}")


# Heatmaps


def test_a_heatmap_of_one_pair(run: Run, distance: Callable[[str, str], str]) -> None:
    for name in ("h.png", "h.JPG", "new.webp"):
        assert run("a.png", "b.png", "--heatmap", name) == (0, f"{distance('a.png', 'b.png')}\n", "")
        with PILImage.open(name) as picture:
            assert picture.mode == "RGB"
            assert picture.width > 300
    code, out, err = run("a.png", "b.png", "--heatmap", "gone/h.png")
    assert (code, out) == (3, f"{distance('a.png', 'b.png')}\n")
    assert err == "error: gone/h.png: cannot be written: its folder does not exist; create it first\n"


def drawn(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_heatmaps_of_folders_keep_their_names(run: Run, quick_model: Path) -> None:
    for name in ("a.png", "sub/a.png", "sub/deep/b.png", "bad.png"):
        save(f"refs/{name}", 0)
        save(f"dist/{name}", 1)
    Path("dist/bad.png").write_bytes(b"")
    assert run("-m", quick_model, "refs", "dist", "--heatmap", "some/where")[0] == 3
    assert drawn("some/where") == ["a.png", "sub/a.png", "sub/deep/b.png"]
    assert run("-m", quick_model, "refs", "./dist/", "--heatmap", "some/where")[0] == 3
    assert drawn("some/where") == ["a.png", "sub/a.png", "sub/deep/b.png"]


def test_heatmaps_never_collide(run: Run, quick_model: Path) -> None:
    for name in ("x/a.png", "y/a.png", "z/a.bmp"):
        save(f"all/{name}", len(name))
    assert run("-m", quick_model, "--all-pairs", "all", "--heatmap", "maps")[0] == 0
    assert drawn("maps") == ["y/a.png", "z/a-2.png", "z/a.png"]
    Path("pairs.csv").write_text(
        "reference,distorted\nall/x/a.png,all/y/a.png\na.png,all/y/a.png\nb.png,a.png\nb.png,./a.png\n"
        f"b.png,{Path('a.png').absolute()}\nb.png,all/../a.png\n"
    )
    assert run("-m", quick_model, "--pairs", "pairs.csv", "--heatmap", "others")[0] == 0
    assert drawn("others") == ["all/y/a-2.png", "all/y/a.png", "b__a-2.png", "b__a-3.png", "b__a-4.png", "b__a.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        "refs dist --heatmap dist",
        "refs dist --heatmap refs",
        "refs dist --heatmap .",
        "refs dist --heatmap link",
        "--all-pairs dist --heatmap dist/../dist",
        "--pairs pairs.csv --heatmap .",
        "a.png b.png c.png --heatmap .",
    ],
)
def test_heatmaps_are_not_drawn_over_images(run: Run, quick_model: Path, arguments: str) -> None:
    for name in ("refs/a.png", "refs/b.png", "dist/a.png", "dist/b.png"):
        save(name, len(name))
    Path("link").symlink_to("dist")
    Path("pairs.csv").write_text("reference,distorted\nrefs/a.png,dist/a.png\n")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, out, err = run("-m", quick_model, *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith(" lies in it, and might be overwritten; name a folder apart\n")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_heatmaps_whose_folder_cannot_be_made(run: Run, quick_model: Path) -> None:
    Path("file").touch()
    assert run("-m", quick_model, "a.png", "b.png", "c.png", "--heatmap", "file/maps") == (
        3,
        "",
        "error: file/maps: cannot be a folder of heatmaps: Not a directory\n",
    )


# Outputs that fail


@full_disk
@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk(run: Run, form: str) -> None:
    said = "cannot be written: No space left on device; rows safely written: 0\n"
    assert run("a.png", "b.png", "--format", form, "-o", "/dev/full") == (3, "", f"error: /dev/full: {said}")
    with open("/dev/full", "w") as full:
        ended = command("a.png", "b.png", "--format", form, stdout=full)
    assert (ended.returncode, ended.stderr) == (3, f"error: standard output: {said}")


@full_disk
def test_a_full_disk_for_info(here: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = command("--info", stdout=full)
    assert (ended.returncode, ended.stderr) == (
        3,
        "error: standard output: cannot be written: No space left on device\n",
    )


@full_disk
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stderr_costs_no_result(here: Path, unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        ended = command("a.png", "gone.png", "b.png", stderr=full, env=environment)
    assert (ended.returncode, ended.stdout.count("\n")) == (3, 1)


@pytest.mark.parametrize("closed", ["2>&-", "<&-"])
def test_closed_streams_cost_no_result(here: Path, distance: Callable[[str, str], str], closed: str) -> None:
    shell = ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "a.png", "b.png"]
    ended = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{distance('a.png', 'b.png')}\n", "")
    # What would be said of the failed pair must not end up among the results instead.
    ended = subprocess.run([*shell, "gone.png"], stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout.count("\n")) == (3, 1)


def test_a_closed_stdout_is_an_error(here: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "a.png", "b.png"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (
        3,
        "error: standard output: is closed; name a file for the results\n",
    )


@pytest.mark.parametrize("form", ["text", "csv", "jsonl"])
def test_a_reader_that_goes_away_ends_the_run_quietly(here: Path, quick_model: Path, form: str) -> None:
    distorted = ["b.png"] * 2000
    with subprocess.Popen(
        [*COMMAND, "-m", str(quick_model), "--format", form, "a.png", *distorted],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() != ""
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(60) == 128 + 13


# Stopping


# So many results come out while the table's reader waits for row 11: the stream is four pairs ahead.
FED, DONE = 10, 6


@pytest.fixture
def waiting(here: Path, quick_model: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command on a table that never ends, and returns once the pair DONE, which fails, was reported."""
    running = []

    def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*COMMAND, "-m", str(quick_model), "--pairs", "-", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        running.append(process)
        assert process.stdin is not None
        assert process.stderr is not None
        names = [f"./{'/' * k}{'gone' if k == DONE else 'b'}.png" for k in range(1, FED + 1)]
        process.stdin.write("reference,distorted\n" + "".join(f"a.png,{name}\n" for name in names))
        process.stdin.flush()
        assert process.stderr.readline().startswith("error: a.png, ")
        time.sleep(0.1)  # until it waits for row 11
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("to_file", [False, True])
def test_a_run_that_is_stopped_keeps_its_rows(
    waiting: Callable[..., "subprocess.Popen[str]"], form: str, number: int, code: int, to_file: bool
) -> None:
    Path("out").write_text("old")
    process = waiting("--format", form, *(["-o", "out"] * to_file))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, f"interrupted after {DONE} pairs\n")
    if to_file:
        assert out == ""
        out = Path("out").read_text()
    if form == "json":
        told = json.loads(out)
        assert told["summary"].items() >= {"count": DONE, "failed": 1, "complete": False}.items()
        assert len(told["results"]) == DONE
    else:
        assert len(out.splitlines()) == {"text": DONE - 1, "csv": DONE + 1, "jsonl": DONE}[form]
        assert out.endswith("\n")
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "b.png", "c.png", "out"]


def test_a_second_ctrl_c_ends_it_too(waiting: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = waiting()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)


def test_the_command_leaves_signals_as_they_were_and_runs_in_any_thread(run: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run("a.png", "a.png")[0] == 0
    assert signal.getsignal(signal.SIGTERM) is before
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["a.png", "a.png"])))
    thread.start()
    thread.join()
    assert codes == [0]


# Errors that nobody foresaw


@pytest.mark.parametrize("debug", [False, True])
def test_an_unforeseen_error_shows_a_traceback_only_on_request(
    run: Run, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(Scorer, "run", broken)
    code, out, err = run("a.png", "b.png", *["--debug"] * debug)
    assert (code, out) == (3, "")
    said = "error: unexpected ZeroDivisionError: first line\n"
    if debug:
        assert err.startswith("Traceback (most recent call last):\n")
        assert err.endswith(said)
    else:
        assert err == said + "please report it with the output of --debug\n"


def test_debug_keeps_the_exit_code_of_a_foreseen_error(run: Run) -> None:
    code, out, err = run("a.png", "b.png", "-m", "gone.onnx", "--debug")
    assert (code, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-1].startswith("error: gone.onnx: no such model; ")


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "x" * 5000])
def test_a_name_that_is_too_long_is_a_failed_pair(run: Run, name: str) -> None:
    for more in ([], ["-o", "out"], ["--heatmap", "h.png"]):
        code, out, err = run("a.png", name, *more)
        assert (code, out, err) == (3, "", f"error: a.png, {name}: {name}: cannot be read (File name too long)\n")


# The bar


def test_no_bar_on_a_pipe(waiting: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = waiting()
    time.sleep(0.6)
    out, err = process.communicate("a.png,c.png\n" * 3, timeout=60)
    assert process.returncode == 3
    assert "\r" not in out + err
    assert "\x1b" not in out + err


def on_terminal(arguments: Sequence[str], both: bool) -> tuple[bytes, bytes]:
    """Feed a table slowly to the command with stderr, or stdout too, on a terminal -> what came there, and stdout."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "70", "LINES": "24"}
    with subprocess.Popen(
        [*COMMAND, "--pairs", "-", *arguments],
        stdin=subprocess.PIPE,
        stdout=theirs if both else subprocess.PIPE,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(b"reference,distorted\n")
        for k in range(20):
            process.stdin.write(f"a.png,{'./' * k}b.png\n".encode())
            process.stdin.flush()
            time.sleep(0.06)
        process.stdin.close()
        out = b"" if process.stdout is None else process.stdout.read()
        seen = b""
        while True:
            try:
                got = os.read(ours, 10_000)
            except OSError:  # Linux says so once the other end is closed
                break
            if not got:
                break
            seen += got
        os.close(ours)
        process.wait(60)
    return seen, out


def test_a_bar_on_a_terminal_that_vanishes(here: Path, quick_model: Path) -> None:
    seen, out = on_terminal(["-m", str(quick_model)], both=False)
    assert out.count(b"\n") == 20
    assert re.search(rb"\r\x1b\[K\d+ pairs, \d+\.\d/s", seen)
    assert re.fullmatch(rb"mean [\d.]+, median [\d.]+ over 20 pairs\r\n", seen.rpartition(b"\r\x1b[K")[2])


def test_rows_and_bar_share_a_terminal(here: Path, quick_model: Path) -> None:
    seen, _ = on_terminal(["-m", str(quick_model)], both=True)
    assert b" pairs, " in seen
    lines = [line.rpartition(b"\r\x1b[K")[2] for line in seen.split(b"\r\n")]
    assert lines.pop() == b""
    assert lines.pop().startswith(b"mean ")
    rows = [re.fullmatch(rb"[\d.]+\ta\.png\t((?:\./)*)b\.png", line) for line in lines]
    assert [row and len(row[1]) for row in rows] == [2 * k for k in range(20)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_what_the_bar_says(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = progress.ProgressBar(40)
    for _ in range(4):
        clock[0] += 0.1
        bar.advance()
    assert screen.getvalue() == ""
    for _ in range(6):
        clock[0] += 0.1
        bar.advance()
    assert screen.getvalue().rpartition("\r\x1b[K")[2] == "██████·················· 10/40, 10.0/s, 0:03 left"
    bar.clear()
    assert screen.getvalue().endswith("left\r\x1b[K")
    bar.advance()
    assert "11/40" in screen.getvalue().rpartition("\r\x1b[K")[2]


def test_the_bar_stays_on_one_line_of_a_narrow_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = progress.ProgressBar(10**6)
    clock[0] += 3600
    bar.advance()
    assert screen.getvalue() == "\r\x1b[K" + "·" * 24 + " 1/10"
