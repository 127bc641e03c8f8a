"""lpips-score --resume refuses what is not of its job, and leaves it as it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from score_command import Run


def edited(old: str, new: str) -> Callable[[], object]:
    return lambda: Path("out").write_text(Path("out").read_text().replace(old, new, 1))


FOREIGN: dict[str, tuple[Callable[[], object], list[str], str]] = {
    "another model": (lambda: None, ["-m", "other.onnx"], "it was made with another model (sha256): "),
    "other columns": (lambda: None, ["--layers"], "it was made with another --layers: False, this job has True"),
    "another form": (lambda: None, ["--format", "jsonl"], "it was made with another --format: csv, this job has jsonl"),
    "another background": (lambda: None, ["--background", "white"], "another --background: None, this job has white"),
    "other pairs": (lambda: None, ["--pairs", "others.csv"], "row 2 is not one of a.png, c.png, which this job has"),
    "fewer pairs": (lambda: None, ["--pairs", "fewer.csv"], "it goes on after row 1, where this job ends"),
    "no record": (lambda: Path("out.job.json").unlink(), [], "beside it lies no out.job.json, which says what made it"),
    "a broken record": (lambda: Path("out.job.json").write_text("{"), [], "which says what made it, cannot be read"),
    "a record of another kind": (lambda: Path("out.job.json").write_text("[]"), [], "made with another --format: None"),
    "another header": (
        edited("reference", "left"),
        [],
        "its first line does not name the columns that this job writes",
    ),
    "an edited number": (edited("a.png,b.png,", "a.png,b.png,0"), [], "row 2 is not one of a.png, b.png"),
    "a number that is none": (edited("a.png,b.png,", "a.png,b.png,nan"), [], "row 2 is not one of a.png, b.png"),
    "a text": (lambda: Path("out").write_text("Dear diary,\n" * 9), [], "its first line does not name the columns"),
    "bytes": (lambda: Path("out").write_bytes(bytes(range(256)) * 9), [], "its first line does not name the columns"),
    "a torn row of another pair": (
        lambda: Path("out").write_text("reference,distorted,distance,error\nx.png,y.pn"),
        [],
        "row 1 is not one of a.png, a.png",
    ),
    "another number": (edited("a.png,a.png,0.0,", "a.png,a.png,0.5,"), [], "row 1 is not what was written there"),
    "another error": (edited("gone.png: no", "gone.png: No"), [], "row 6 is not what was written there"),
    "a quote outside a name": (edited("b.png,gone.png,,", 'b.png,gone.png,,"'), [], "row 12 is not one of b.png, gone"),
    "an open quote": (edited("a.png,b.png", 'a.png,"b.png'), [], "row 2 is not one of a.png, b.png"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_another_job_is_refused_and_stays_as_it_is(
    score: Run, models: Callable[[str], Path], case: str
) -> None:
    change, more, said = FOREIGN[case]
    score("-o", "out", "--format", "csv")
    shutil.copy(models("alex"), "other.onnx")
    Path("others.csv").write_text("reference,distorted\na.png,a.png\na.png,c.png\n")
    Path("fewer.csv").write_text("reference,distorted\na.png,a.png\n")
    change()
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    code, out, err = score("-o", "out", "--format", "csv", *more, "--resume")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: out: is not of this job: ")
    assert said in err
    assert err.endswith("; name another file, or leave out --resume to write it anew\n")
    assert {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


@pytest.mark.parametrize("kind", ["json", "crc32"])
def test_what_is_of_no_job_is_not_replaced_beside_an_empty_file(score: Run, kind: str) -> None:
    Path("out").touch()
    Path(f"out.job.{kind}").write_text("something else")
    code, out, err = score("-o", "out", "--format", "csv", "--resume")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: out: out.job.{kind} beside it would be replaced, and ")
    assert (Path("out").read_bytes(), Path(f"out.job.{kind}").read_text()) == (b"", "something else")


@pytest.mark.parametrize("layers", [[], ["--layers"]])
def test_a_quote_does_not_make_one_torn_row_of_all_that_follow(run: Run, quick_model: Path, layers: list[str]) -> None:
    again = f"../{Path.cwd().name}/"
    Path("pairs.csv").write_text("reference,distorted\n" + "".join(f"a.png,{again * k}b.png\n" for k in range(20)))
    call = ("-m", quick_model, "--pairs", "pairs.csv", "--format", "csv", "-o", "out", *layers)
    assert run(*call)[0] == 0
    lines = Path("out").read_text().splitlines(keepends=True)
    before, comma, after = lines[9].rpartition(",")
    lines[9] = f'{before}{comma}"{after}'
    Path("out").write_text("".join(lines))
    code, _, err = run(*call, "--resume")
    assert (code, Path("out").read_text()) == (2, "".join(lines))
    assert err.startswith("error: out: is not of this job: row 9 is not one of a.png, ../")
