"""Results and their written forms: exact numbers, whole rows, nothing lost."""

import csv
import io
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpips_runtime.images import Note
from lpips_runtime.results import FORMATS, Result, Summary, format_distance, written_name

PROVENANCE = {"model": {"net": "alex", "version": "0.1"}, "runtime": {"provider": "cpu", "threads": 2}}
GOOD = Result("a.png", "b.png", 0.72190344, layers=(0.5, 0.2219034433364868))
EQUAL = Result("a.png", "a.png", 0.0, layers=(0.0, 0.0))
BAD = Result("a.png", "c.png", None, error="c.png: not an image")
# Every trouble in one file name: tab, line ends of all sorts, quotes, comma, no UTF-8, an escape sequence.
NASTY = 'x\t"y",\n\r\x85\u2028z\udce9\x1b[31m\\n é'

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_characters="\0"), min_size=1)


def write(form: str, *results: Result, complete: bool = True, **options: Any) -> str:
    stream, summary = io.StringIO(newline=""), Summary()
    writer = FORMATS[form](stream, provenance=PROVENANCE, **options)
    for result in results:
        writer.write(result)
        summary.add(result)
    writer.finish(summary, complete)
    return stream.getvalue()


# Numbers


@pytest.mark.parametrize(
    ("distance", "text"),
    [(0.0, "0.0"), (0.7219034433364868, "0.72190344"), (0.1, "0.1"), (1e-7, "1e-07"), (4, "4.0")],
)
def test_distances_are_written_short(distance: float, text: str) -> None:
    assert format_distance(distance) == text


@given(FLOATS)
def test_distances_come_back_to_the_bit(distance: float) -> None:
    assert np.float32(float(format_distance(distance))) == np.float32(distance)
    assert np.float32(json.loads(json.dumps(float(format_distance(distance))))) == np.float32(distance)


@pytest.mark.parametrize("distance", [math.nan, math.inf, -math.inf])
def test_only_finite_numbers_are_distances(distance: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        format_distance(distance)
    with pytest.raises(ValueError, match="a distance is a finite number"):
        Result("a", "b", distance)


def test_a_result_has_either_a_distance_or_an_error() -> None:
    with pytest.raises(ValueError, match="a distance or an error"):
        Result("a", "b", None)
    with pytest.raises(ValueError, match="a distance or an error"):
        Result("a", "b", 0.5, error="but why")


def test_what_is_handed_on_does_not_count() -> None:
    heavy = Result("a", "b", 0.5, detail=object(), pixels=np.zeros((2, 2, 3), np.uint8))
    assert heavy == Result("a", "b", 0.5)
    assert "detail" not in repr(heavy)
    assert "pixels" not in repr(heavy)


# Summary


def test_summary_of_nothing() -> None:
    summary = Summary()
    assert summary.worst is None
    assert summary.as_dict() == {
        "count": 0, "failed": 0, "mean": None, "median": None, "min": None, "max": None
    }  # fmt: skip


def test_summary_counts_failures_among_all() -> None:
    summary = Summary()
    for result in (GOOD, BAD, EQUAL, BAD):
        summary.add(result)
    assert (summary.count, summary.failed) == (4, 2)
    assert summary.worst == GOOD
    assert list(summary.as_dict()) == ["count", "failed", "mean", "median", "min", "max"]
    assert summary.as_dict()["max"] == 0.72190344  # not 0.7219034433364868
    assert (summary.min, summary.max) == (0.0, 0.7219034433364868)


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=30))
def test_summary_figures(distances: list[float]) -> None:
    summary = Summary()
    for number, distance in enumerate(distances):
        summary.add(Result("a", str(number), distance))
    exact = np.array(distances, np.float64)
    assert (summary.min, summary.max) == (min(distances), max(distances))
    assert summary.mean == pytest.approx(math.fsum(distances) / len(distances), rel=1e-12)
    assert summary.median == np.median(exact)
    assert summary.worst is not None
    assert summary.worst.distorted == str(distances.index(max(distances)))


def test_summary_counts_what_was_scored_in_tiles() -> None:
    summary = Summary()
    for kinds in (["tiled", "icc"], ["icc"], ["tiled"]):
        summary.add(replace(GOOD, notes=tuple(Note(kind, "said") for kind in kinds)))
    assert (summary.as_dict()["count"], summary.as_dict()["tiled"]) == (3, 2)


def test_summary_lets_images_go() -> None:
    summary = Summary()
    summary.add(Result("a", "b", 0.5, detail=object(), pixels=np.zeros((2, 2, 3), np.uint8)))
    assert summary.worst is not None
    assert summary.worst.detail is None
    assert summary.worst.pixels is None


# Whole outputs


def test_text_of_one_pair_is_the_bare_number() -> None:
    assert write("text", GOOD, single=True) == "0.72190344\n"
    assert write("text", GOOD, single=True, layers=True) == "0.72190344\t0.5\t0.22190344\n"
    assert write("text", BAD, single=True) == ""


def test_text_of_several() -> None:
    assert write("text", GOOD, BAD, EQUAL) == "0.72190344\ta.png\tb.png\n0.0\ta.png\ta.png\n"
    assert write("text", GOOD, layers=True) == "0.72190344\ta.png\tb.png\t0.5\t0.22190344\n"


def test_csv() -> None:
    assert write("csv", GOOD, BAD) == (
        "reference,distorted,distance,error\na.png,b.png,0.72190344,\na.png,c.png,,c.png: not an image\n"
    )
    assert write("csv", GOOD, BAD, layers=True) == (
        "reference,distorted,distance,error,layers\n"
        "a.png,b.png,0.72190344,,0.5 0.22190344\n"
        "a.png,c.png,,c.png: not an image,\n"
    )
    assert write("csv") == "reference,distorted,distance,error\n"
    assert write("csv", GOOD, resumed=True) == "a.png,b.png,0.72190344,\n"


def test_jsonl() -> None:
    assert write("jsonl", GOOD, BAD) == (
        '{"reference": "a.png", "distorted": "b.png", "distance": 0.72190344, "error": null}\n'
        '{"reference": "a.png", "distorted": "c.png", "distance": null, "error": "c.png: not an image"}\n'
    )
    first, second = map(json.loads, write("jsonl", GOOD, BAD, layers=True).splitlines())
    assert first["layers"] == [0.5, 0.22190344]
    assert second["layers"] is None


def test_json() -> None:
    assert write("json", GOOD, BAD) == (
        """\
{
  "model": {
    "net": "alex",
    "version": "0.1"
  },
  "runtime": {
    "provider": "cpu",
    "threads": 2
  },
  "summary": {
    "count": 2,
    "failed": 1,
    "mean": 0.72190344,
    "median": 0.72190344,
    "min": 0.72190344,
    "max": 0.72190344
  },
  "results": [
    {"reference": "a.png", "distorted": "b.png", "distance": 0.72190344, "error": null},
    {"reference": "a.png", "distorted": "c.png", "distance": null, "error": "c.png: not an image"}
  ]
}
"""
    )


def test_json_says_when_it_is_incomplete() -> None:
    assert "complete" not in json.loads(write("json", GOOD))["summary"]
    assert json.loads(write("json", GOOD, complete=False))["summary"]["complete"] is False


def test_json_of_nothing_has_null_figures() -> None:
    made = json.loads(write("json"))
    assert made["results"] == []
    assert made["summary"]["mean"] is None


@given(FLOATS, st.lists(FLOATS, max_size=5))
def test_every_form_keeps_every_bit(distance: float, shares: list[float]) -> None:
    result = Result("a", "b", distance, layers=tuple(shares))
    expected = np.array([distance, *shares], np.float32)
    for form in ("json", "jsonl"):
        made = json.loads(write(form, result, layers=True))
        row = made["results"][0] if form == "json" else made
        np.testing.assert_array_equal(np.array([row["distance"], *row["layers"]]).astype(np.float32), expected)
    text, _, _, *rest = write("text", result, layers=True).rstrip("\n").split("\t")
    np.testing.assert_array_equal(np.array([text, *rest], np.float64).astype(np.float32), expected)
    *_, text, _, rest = list(csv.reader([*write("csv", result, layers=True).splitlines()]))[1]
    np.testing.assert_array_equal(np.array([text, *rest.split()], np.float64).astype(np.float32), expected)


# Names


def test_nasty_names_whole() -> None:
    result = Result(NASTY, "b", 0.5)
    assert write("text", result) == '0.5\tx\\t"y",\\n\\r\\x85\\u2028z\\udce9\\x1b[31m\\n é\tb\n'
    assert written_name(NASTY) == NASTY.replace("\udce9", "\\udce9")
    (row,) = list(csv.reader(io.StringIO(write("csv", result), newline="")))[1:]
    assert row == [written_name(NASTY), "b", "0.5", ""]
    assert write("jsonl", result) == (
        '{"reference": "x\\t\\"y\\",\\n\\r\\u0085\\u2028z\\\\udce9\\u001b[31m\\\\n é", '
        '"distorted": "b", "distance": 0.5, "error": null}\n'
    )


@given(reference=TEXTS, distorted=TEXTS, error=TEXTS)
def test_no_name_breaks_a_row(reference: str, distorted: str, error: str) -> None:
    good, bad = Result(reference, distorted, 0.5), Result(reference, distorted, None, error)
    (text,) = write("text", good, bad).splitlines()
    assert len(text.split("\t")) == 3

    first, second = map(json.loads, write("jsonl", good, bad).splitlines())
    assert json.loads(write("json", good, bad))["results"] == [first, second]
    table = list(csv.DictReader(io.StringIO(write("csv", good, bad), newline="")))
    for row in (first, second, *table):
        assert row["reference"] == written_name(reference)
        assert row["distorted"] == written_name(distorted)
    assert second["error"] == table[1]["error"] == written_name(error)

    for form in FORMATS:
        write(form, good, bad).encode("utf-8")


def test_provenance_may_hold_a_path_that_is_no_utf8() -> None:
    stream = io.StringIO()
    FORMATS["json"](stream, provenance={"model": {"path": "m\udce9"}, "runtime": {}}).finish(Summary())
    assert json.loads(stream.getvalue().encode("utf-8"))["model"]["path"] == "m\\udce9"
