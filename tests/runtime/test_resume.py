"""lpips-score --resume: a job that was stopped goes on, and no row is lost, doubled or torn."""

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from score_command import COMMAND, Run, full_after

from lpips_runtime.checksums import Checksums
from lpips_runtime.results import FORMATS, Result
from lpips_runtime.resume import RESUMABLE

FORMS = sorted(RESUMABLE)


@pytest.mark.parametrize("layers", [[], ["--layers"]])
@pytest.mark.parametrize("form", FORMS)
def test_it_goes_on_after_every_byte_where_a_file_may_end(score: Run, form: str, layers: list[str]) -> None:
    code, _, told = score("-o", "whole", "--format", form, *layers)
    assert code == 3
    for kind in ("json", "crc32"):
        shutil.copy(f"whole.job.{kind}", f"part.job.{kind}")
    whole = Path("whole").read_bytes()
    ends = {*range(3), *range(30, 50), *range(len(whole) - 10, len(whole) + 1), *random.sample(range(len(whole)), 15)}
    for end in sorted(ends):
        Path("part").write_bytes(whole[:end])
        code, out, err = score("-o", "part", "--format", form, *layers, "--resume")
        assert (code, out) == (3, "")
        assert Path("part").read_bytes() == whole, end
        assert err.splitlines()[-1] == told.splitlines()[-1]  # of all rows
        assert Path("part.job.json").read_bytes() == Path("whole.job.json").read_bytes()
        assert Path("part.job.crc32").read_bytes() == Path("whole.job.crc32").read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_zeros_that_a_loss_of_power_left_are_cut_off(score: Run, form: str) -> None:
    score("-o", "out", "--format", form)
    whole = Path("out").read_bytes()
    for end in (whole.index(b"\n") + 1, len(whole) // 2, len(whole)):
        Path("out").write_bytes(whole[:end] + bytes(500))
        score("-o", "out", "--format", form, "--resume")
        assert Path("out").read_bytes() == whole


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [0, 1, 2, 4, 17, 10**6])
def test_rows_whose_checksums_a_kill_has_cost_pass_and_get_new_ones(score: Run, form: str, cut: int) -> None:
    score("-o", "out", "--format", form)
    whole, sums = Path("out").read_bytes(), Path("out.job.crc32").read_bytes()
    zeros = cut // 4 * 4
    lost, blank = (sums[: max(0, len(sums) - end)] for end in (cut, zeros))
    for left in (lost, blank + bytes(zeros)):  # as a loss of power may leave it
        Path("out").write_bytes(whole[:-9])
        Path("out.job.crc32").write_bytes(left)
        assert score("-o", "out", "--format", form, "--resume")[0] == 3
        assert (Path("out").read_bytes(), Path("out.job.crc32").read_bytes()) == (whole, sums)
    Path("out.job.crc32").unlink()
    assert score("-o", "out", "--format", form, "--resume")[0] == 3
    assert (Path("out").read_bytes(), Path("out.job.crc32").read_bytes()) == (whole, sums)


def test_a_file_of_a_header_alone_is_begun(score: Run) -> None:
    score("-o", "out", "--format", "csv")
    whole = Path("out").read_bytes()
    Path("out").write_bytes(whole[: whole.index(b"\n") + 1])
    _, _, err = score("-o", "out", "--format", "csv", "--resume")
    assert err.splitlines()[0] == "the file holds no pair yet; this run begins with the first"
    assert Path("out").read_bytes() == whole


def test_a_full_disk_says_how_to_go_on_and_counts_all_rows(run: Run, quick_model: Path) -> None:
    rows = "".join(f"a.png,{'./' * 500}{'../' * k}b.png\n" for k in range(12))
    Path("long.csv").write_text(f"reference,distorted\n{rows}")
    call = ("-m", quick_model, "--pairs", "long.csv", "--format", "csv", "-o")
    run(*call, "whole")
    for limit, safe in ((5000, 4), (8000, 7)):
        with full_after(limit):
            code, out, err = run(*call, "out", "--resume")
        assert (code, out) == (3, "")
        assert err.splitlines()[-1] == (
            f"error: out: cannot be written: File too large; rows safely written: {safe}; "
            "the same command with --resume goes on after them"
        )
    assert "going on after 7 pairs" in run(*call, "out", "--resume")[2]
    assert Path("out").read_bytes() == Path("whole").read_bytes()


@pytest.mark.parametrize("name", ["out.job.crc32", "out.job.json"])
def test_only_a_run_with_resume_needs_what_lies_beside_the_file(
    score: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As where a file may be written, but no other beside it."""
    score("-o", "whole", "--format", "csv")

    def refused(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    if name == "out.job.crc32":
        monkeypatch.setattr(Checksums, "begin", lambda sums: refused(sums.path))
    else:
        monkeypatch.setattr("lpips_runtime.resume.replacing", refused)
    said = f"out: {name} cannot be written beside it (Permission denied)"
    code, _, err = score("-o", "out", "--format", "csv", "--resume")
    assert (code, err) == (3, f"error: {said}\n")
    code, _, err = score("-o", "out", "--format", "csv")
    assert code == 3  # two pairs fail
    assert err.startswith(f"note: {said}, so that --resume cannot go on with it\n")
    assert Path("out").read_bytes() == Path("whole").read_bytes()
    assert not Path("out.job.json").exists()
    code, _, err = score("-o", "gone/out", "--format", "csv")
    assert (code, err) == (3, "error: gone/out: cannot be written: its folder does not exist; create it first\n")


def test_an_older_record_that_cannot_be_removed_is_an_error(score: Run) -> None:
    Path("out.job.json").mkdir()
    code, _, err = score("-o", "out", "--format", "csv")
    assert code == 3
    assert err.startswith("error: out: cannot be written: an older out.job.json beside it cannot be removed (")


def test_without_a_file_it_begins(score: Run) -> None:
    assert score("-o", "one", "--format", "csv", "--resume")[0] == 3
    assert score("-o", "other", "--format", "csv")[0] == 3
    assert Path("one").read_bytes() == Path("other").read_bytes()


def test_what_is_said_and_that_it_covers_all_rows(score: Run) -> None:
    score("-o", "out", "--format", "csv")
    whole = Path("out").read_bytes()
    rows = whole.splitlines(keepends=True)
    Path("out").write_bytes(b"".join(rows[:8]))  # with a line end in a name, six pairs
    code, out, err = score("-o", "out", "--format", "csv", "--resume", "--fail-above", "1e9")
    assert (code, out) == (3, "")
    assert err.splitlines()[0] == "going on after 6 pairs, 1 of which failed and stay so"
    assert err.splitlines()[-1].endswith(" over 10 pairs on cpu, 2 failed")
    Path("out").write_bytes(b"".join(rows[:8]))
    code, out, err = score("-o", "out", "--format", "csv", "--resume", "--fail-above", "0")
    assert "above 0: 8 of 12 pairs, the worst" in err
    code, out, err = score("-o", "out", "--format", "csv", "--resume", "--fail-above", "0")  # nothing is left to do
    assert err.splitlines()[0] == "going on after 12 pairs, 2 of which failed and stay so"
    assert "above 0: 8 of 12 pairs, the worst" in err
    assert Path("out").read_bytes() == whole


def test_no_image_of_an_earlier_row_is_opened(score: Run) -> None:
    score("-o", "out", "--format", "jsonl")
    whole = Path("out").read_bytes()
    Path("out").write_bytes(whole[:-5])
    for name in ("a.png", "c.png"):
        Path(name).unlink()
    score("-o", "out", "--format", "jsonl", "--resume")
    assert Path("out").read_bytes() == whole


def test_the_record_says_what_made_the_rows(score: Run, quick_model: Path) -> None:
    score("-o", "out", "--format", "jsonl", "--background", "white")
    record = json.loads(Path("out.job.json").read_text())
    assert record.items() >= {"format": "jsonl", "layers": False, "background": "white"}.items()
    assert record["model"]["file"] == quick_model.name
    assert record["runtime"]["provider"] == "cpu"


# Calls


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "--resume goes on with a file: give -o FILE and --format csv or jsonl"),
        (["-o", "out"], "--resume goes on with a file: give -o FILE and --format csv or jsonl"),
        (["--format", "csv"], "--resume goes on with a file: give -o FILE and --format csv or jsonl"),
        (["-o", "out", "--format", "json"], "--resume goes on with a file: give -o FILE and --format csv or jsonl"),
        (["-o", ".", "--format", "csv"], "--resume: . is a device, a pipe or a folder; results are kept in a file"),
        (
            ["-o", "out", "--format", "csv", "--heatmap", "maps"],
            "--resume goes on with numbers, not with pictures; leave out --heatmap",
        ),
    ],
)
def test_what_cannot_be_resumed(score: Run, more: list[str], said: str) -> None:
    assert score("--resume", *more) == (2, "", f"error: {said}\n")


def test_a_run_without_resume_begins_anew_and_forgets_the_old_record(score: Run) -> None:
    score("-o", "out", "--format", "jsonl", "--layers")
    Path("out").write_text("old rows")
    score("-o", "out", "--format", "csv")
    assert Path("out").read_text().startswith("reference,distorted,distance,error\na.png,a.png,0.0,\n")
    assert json.loads(Path("out.job.json").read_text())["format"] == "csv"


@pytest.mark.parametrize("left", [b"", bytes(300)])
def test_empty_files_that_a_loss_of_power_left_are_replaced(score: Run, left: bytes) -> None:
    for kind in ("json", "crc32"):
        Path(f"out.job.{kind}").write_bytes(left)
    for more in ([], ["--resume"]):
        score("-o", "out", "--format", "csv", *more)
        assert json.loads(Path("out.job.json").read_text())["format"] == "csv"


def test_checksums_are_removed_before_the_record_that_says_they_are_ours(
    score: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    score("-o", "out", "--format", "csv")
    removed = []
    original = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        original(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    score("-o", "out", "--format", "csv")
    assert [name for name in removed if ".job." in name] == ["out.job.crc32", "out.job.json"]


@pytest.mark.parametrize(
    "more", [["--format", "text", "-o", "out"], ["--format", "json", "-o", "out"], ["--format", "csv"]]
)
def test_a_run_that_cannot_be_resumed_leaves_no_record(score: Run, more: list[str]) -> None:
    score(*more)
    assert not Path("out.job.json").exists()


# Processes that are killed


@pytest.fixture
def long_table(tmp_path: Path) -> Path:
    """Some thousand pairs of two sizes, mixed, of which every hundredth fails."""
    chance = np.random.default_rng(0)
    for k in range(60):
        side = 16 + 4 * (k % 2)
        PILImage.fromarray(chance.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / f"{k} é,.png")
    rows = [(f"{a} é,.png", "gone.png" if a * 60 + b > 3500 else f"{b} é,.png") for a in range(60) for b in range(60)]
    with open(tmp_path / "long.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("reference", "distorted"), *dict.fromkeys(rows)])
    return tmp_path / "long.csv"


@pytest.mark.parametrize("form", FORMS)
def test_a_job_that_is_killed_again_and_again_ends_with_the_same_bytes(
    long_table: Path, quick_model: Path, tmp_path: Path, form: str
) -> None:
    call = [
        *COMMAND,
        "-m",
        str(quick_model),
        "--pairs",
        str(long_table),
        "--format",
        form,
        "--layers",
        "--threads",
        "1",
    ]
    subprocess.run([*call, "-o", tmp_path / "whole"], stderr=subprocess.DEVNULL, check=False, timeout=120)
    whole, out = (tmp_path / "whole").read_bytes(), tmp_path / "out"
    killed, chance = 0, random.Random(form)
    for part in (0.0, 0.2, 0.4, 0.6, 0.8):
        until = len(whole) * (part + chance.uniform(0, 0.15))
        process = subprocess.Popen([*call, "-o", out, "--resume"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and out.stat().st_size >= until:
                process.kill()
                break
        assert process.wait(60) in (-signal.SIGKILL, 3)
        killed += process.returncode == -signal.SIGKILL
        assert whole.startswith(out.read_bytes())
    ended = subprocess.run([*call, "-o", out, "--resume"], stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert (ended.returncode, out.read_bytes() == whole) == (3, True)
    assert killed >= 3
    assert "going on after " in ended.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs fcntl")
def test_two_processes_do_not_write_one_file(long_table: Path, quick_model: Path, tmp_path: Path) -> None:
    call = [*COMMAND, "-m", str(quick_model), "--pairs", "-", "--format", "csv", "-o", str(tmp_path / "out")]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        assert first.stdin is not None
        assert first.stderr is not None
        first.stdin.write("reference,distorted\ngone.png,gone.png\n")
        first.stdin.flush()
        assert first.stderr.readline().startswith("error: gone.png")
        before = (tmp_path / "out").read_bytes()
        table = "reference,distorted\ngone.png,gone.png\n"
        for more in ([], ["--resume"]):
            second = subprocess.run(
                [*call, *more], input=table, capture_output=True, text=True, check=False, timeout=60
            )
            assert (second.returncode, second.stderr) == (
                3,
                f"error: {tmp_path / 'out'}: another process is writing it; wait until that ends, or end it\n",
            )
        assert (tmp_path / "out").read_bytes() == before


def test_ctrl_c_says_how_to_go_on(long_table: Path, quick_model: Path, tmp_path: Path) -> None:
    call = [*COMMAND, "-m", str(quick_model), "--pairs", "-", "--format", "csv", "-o", str(tmp_path / "out")]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("reference,distorted\ngone.png,gone.png\n")
        process.stdin.flush()
        assert process.stderr.readline().startswith("error: gone.png")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted after 1 pair; the same command with --resume goes on after them\n"
        assert process.wait(60) == 130


# Rows


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layers", [False, True])
def test_rows_are_read_as_they_were_written(form: str, layers: bool) -> None:
    chance = np.random.default_rng(0)
    names = ["a", 'b"', "c,\n", "\ud8ff\udc80", " ", "\u2028", "\\udc80", "'"]
    for k, distance in enumerate(map(float, (chance.random(200) * 10.0 ** chance.integers(-9, 2, 200)).astype("f4"))):
        shares = tuple(map(float, (chance.random(5) * distance).astype("f4")))
        row = Result(names[k % 8], names[k // 8 % 8], distance, layers=shares)
        text = io.StringIO()
        FORMATS[form](text, layers=layers, resumed=True).write(row)
        found, error, parts = RESUMABLE[form].values(text.getvalue(), layers)
        assert (np.float32(found or 0), error) == (np.float32(distance), None)
        assert parts is None if not layers else tuple(map(np.float32, parts or ())) == tuple(map(np.float32, shares))
