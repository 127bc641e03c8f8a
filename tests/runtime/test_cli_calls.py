"""lpips-score: calls that cannot be meant, and where heatmaps go."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as PILImage
from score_command import Run, save

from lpips_runtime import __version__

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
        (
            "a.png b.png -m gone.onnx",
            "gone.onnx: no such model; give the path of an .onnx or .engine file of lpips-export",
        ),
        (
            "a.png b.png -m d",
            "d: is a folder, a model is needed; give the path of an .onnx or .engine file of lpips-export",
        ),
        ("a.png b.png -o b.png", "-o b.png: is one of the inputs, and would be overwritten"),
        ("a.png b.png -o link.txt", "-o link.txt: is one of the inputs, and would be overwritten"),
        ("a.png b.png -o x.PNG", "-o x.PNG: is named like an image; results are text, --heatmap draws"),
        ("--pairs empty.csv -o ./empty.csv", "-o ./empty.csv: is one of the inputs, and would be overwritten"),
        ("a.png b.png -o m.onnx -m m.onnx", "-o m.onnx: is one of the inputs, and would be overwritten"),
        ("a.png b.png -o m.onnx.json -m m.onnx", "-o m.onnx.json: is one of the inputs, and would be overwritten"),
        *(
            (
                f"--pairs q.job.{kind} --format csv -o q{more}",
                f"-o q: q.job.{kind} is written beside it, is one of the inputs, and would be overwritten; name",
            )
            for kind in ("json", "crc32")
            for more in ("", " --resume")
        ),
        *(
            (
                f"a.png b.png --format jsonl -o {name}{more}",
                f"{name}: {name}.job.{kind} beside it would be replaced, and {said}; move that away, or name another",
            )
            for name, kind, said in (
                ("q", "json", "is no record of a job"),
                ("settings", "json", "is no record of a job"),
                ("sums", "crc32", "lies there without a sums.job.json that says so"),
            )
            for more in ("", " --resume")
        ),
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
    Path("m.onnx.json").write_text("{}")
    for name in ("q.job.json", "q.job.crc32", "sums.job.crc32"):
        Path(name).write_text("reference,distorted\na.png,b.png\n")
    Path("settings.job.json").write_text('{"format": "jsonl", "layers": true}')
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
        ("--\x1b[31m", "unrecognized arguments: --\\x1b[31m"),
    ],
)
def test_options_that_cannot_be_meant(run: Run, arguments: str, said: str) -> None:
    code, out, err = run("a.png", "b.png", *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {said}")
    assert err.endswith("; see lpips-score --help\n")


def test_names_in_errors_are_no_commands_to_the_terminal(run: Run) -> None:
    said = r"a\n\x1b[31mX.csv: cannot be opened: No such file or directory"
    assert run("--pairs", "a\n\x1b[31mX.csv") == (2, "", f"error: {said}\n")


def test_json_says_how_many_pairs_were_scored_in_tiles(run: Run) -> None:
    save("large.png", 0, (900, 1000))
    save("other.png", 1, (900, 1000))
    for limit, tiled in (("250MB", {"tiled": 1}), ("2GB", {})):
        code, out, _ = run("large.png", "other.png", "--max-memory", limit, "--format", "json")
        summary = json.loads(out)["summary"]
        assert (code, {key: summary[key] for key in summary if key == "tiled"}) == (0, tiled)


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
        "reference,distorted\nall/x/a.png,all/y/a.png\na.png,all/y/a.png\nb.png,a.png\nb.png,all/x/../../a.png\n"
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
