"""What is to be scored: every file and every row comes out once, as a pair or as an error that names it."""

import inspect
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpips_runtime import pairs
from lpips_runtime.errors import PairingError
from lpips_runtime.images import EXTENSIONS
from lpips_runtime.pairs import SUFFIXES, Pair, all_pairs, csv_pairs, file_pairs, folder_pairs


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def names(found: Iterator[Pair] | list[Pair]) -> list[tuple[str, str]]:
    return [(pair.reference, pair.distorted) for pair in found]


def silence(text: str) -> None:
    raise AssertionError(f"unexpected note: {text}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_suffixes_are_those_that_can_be_read() -> None:
    assert set(SUFFIXES) == EXTENSIONS


# One against many


def test_one_reference_against_many_in_the_order_given() -> None:
    found = list(file_pairs("./a.png", [Path("z.png"), "b.png", "z.png"]))
    assert names(found) == [("./a.png", "z.png"), ("./a.png", "b.png"), ("./a.png", "z.png")]
    assert found[1] == Pair("./a.png", "b.png", Path("a.png"), Path("b.png"))


# Folders


def test_folders_match_by_relative_path(here: Path) -> None:
    fill(here / "refs", "b.png", "sub/a.png", "a.PNG")
    fill(here / "dist", "b.png", "sub/a.png", "a.PNG")
    found = folder_pairs("refs/", "./dist", silence)
    assert names(found) == [
        ("refs/a.PNG", "./dist/a.PNG"),
        ("refs/b.png", "./dist/b.png"),
        ("refs/sub/a.png", "./dist/sub/a.png"),
    ]
    assert found[2].reference_path == Path("refs/sub/a.png")
    assert all(pair.error is None for pair in found)


def test_folders_match_by_stem_what_is_left(here: Path) -> None:
    fill(here / "refs", "a.png", "sub/b.png", "c.d.png")
    fill(here / "dist", "a.jpg", "sub/b.webp", "c.d.jpg")
    assert names(folder_pairs("refs", "dist", silence)) == [
        ("refs/a.png", "dist/a.jpg"),
        ("refs/c.d.png", "dist/c.d.jpg"),
        ("refs/sub/b.png", "dist/sub/b.webp"),
    ]


def test_an_exact_match_is_not_taken_by_a_stem(here: Path) -> None:
    fill(here / "refs", "a.png")
    fill(here / "dist", "a.png", "a.jpg")
    paired, left = folder_pairs("refs", "dist", silence)[::-1]
    assert (paired.reference, paired.distorted, paired.error) == ("refs/a.png", "dist/a.png", None)
    assert left.error == (
        "dist/a.jpg has no partner in refs: neither a.jpg nor an image a.* that is not paired already"
    )


def test_same_stem_in_another_folder_is_no_partner(here: Path) -> None:
    fill(here / "refs", "one/a.png")
    fill(here / "dist", "two/a.png")
    assert all(pair.error is not None for pair in folder_pairs("refs", "dist", silence))


@pytest.mark.parametrize(
    ("refs", "dist", "shown"),
    [
        (["a.png"], ["a.jpg", "a.webp"], ("refs/a.png", "dist/a.*")),
        (["a.jpg", "a.webp"], ["a.png"], ("refs/a.*", "dist/a.png")),
        (["a.jpg", "a.webp"], ["a.bmp", "a.png"], ("refs/a.*", "dist/a.*")),
    ],
)
def test_an_ambiguous_stem_is_one_error_that_names_all(
    here: Path, refs: list[str], dist: list[str], shown: tuple[str, str]
) -> None:
    fill(here / "refs", *refs)
    fill(here / "dist", *dist)
    (pair,) = folder_pairs("refs", "dist", silence)
    assert (pair.reference, pair.distorted) == shown
    assert pair.error is not None
    assert f"{', '.join(refs)} in refs could pair with {', '.join(dist)} in dist" in pair.error


def test_a_missing_partner_on_either_side_is_an_error_in_its_place(here: Path) -> None:
    fill(here / "refs", "a.png", "c.png", "d.png")
    fill(here / "dist", "b.png", "c.png")
    found = folder_pairs("refs", "dist", silence)
    assert names(found) == [(f"refs/{name}.png", f"dist/{name}.png") for name in "abcd"]
    assert [pair.error is None for pair in found] == [False, False, True, False]
    assert found[0].error is not None
    assert found[0].error.startswith("refs/a.png has no partner in dist")
    assert found[1].error is not None
    assert found[1].error.startswith("dist/b.png has no partner in refs")


def test_a_folder_may_be_compared_with_itself(here: Path) -> None:
    fill(here / "refs", "a.png", "a.jpg")
    assert names(folder_pairs("refs", "refs", silence)) == [
        ("refs/a.jpg", "refs/a.jpg"),
        ("refs/a.png", "refs/a.png"),
    ]


def test_hidden_names_are_ignored_and_other_files_noted(here: Path) -> None:
    fill(here / "refs", "a.png", "notes.txt", "sub/b", ".hidden.png", ".git/c.png", "._a.png")
    fill(here / "dist", "a.png", "z.csv")
    told: list[str] = []
    assert names(folder_pairs("refs", "dist", told.append)) == [("refs/a.png", "dist/a.png")]
    assert told == [
        "refs: 2 files left out, no image by the suffix, e.g. notes.txt",
        "dist: 1 file left out, no image by the suffix, e.g. z.csv",
    ]


def test_links_to_folders_are_noted_and_links_to_files_followed(here: Path) -> None:
    fill(here / "refs", "a.png")
    (here / "refs" / "again").symlink_to(here / "refs", target_is_directory=True)
    (here / "refs" / "b.png").symlink_to(here / "refs" / "a.png")
    (here / "refs" / "gone.png").symlink_to(here / "nowhere.png")
    (here / "refs" / "loop.png").symlink_to("loop.png")
    told: list[str] = []
    found = list(all_pairs("refs", told.append))
    assert {name for pair in names(found) for name in pair} == {
        "refs/a.png",
        "refs/b.png",
        "refs/gone.png",  # the reader of images says what is wrong with it
        "refs/loop.png",
    }
    assert told == ["refs: 1 link to folders not followed, e.g. again"]


def test_names_that_are_no_utf8_come_through(here: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        fill(here / "refs", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (pair,) = folder_pairs("refs", "refs", silence)
    assert pair.reference == f"refs/{name}"
    assert pair.reference_path.exists()


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("missing", "missing: no such folder"),
        ("file.png", "file.png: is a file, where a folder of images is needed"),
        ("empty", r"empty: holds no image; images end in \.png"),
        ("texts", r"texts: holds no image among 2 files, e\.g\. a\.txt; images end in"),
    ],
)
def test_refuses_what_is_no_folder_of_images(here: Path, folder: str, words: str) -> None:
    fill(here, "file.png")
    fill(here / "good", "a.png", "b.png")
    fill(here / "empty")
    fill(here / "texts", "a.txt", "b.txt")
    for call in (
        lambda: folder_pairs(folder, "good", silence),
        lambda: folder_pairs("good", folder, silence),
        lambda: all_pairs(folder, silence),
    ):
        with pytest.raises(PairingError, match=words):
            call()


def test_a_folder_that_cannot_be_listed_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(here / "refs", "a.png", "locked/b.png")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(PairingError, match=r"refs/locked: cannot be listed: Permission denied"):
        folder_pairs("refs", "refs", silence)


def test_a_tree_deeper_than_the_stack_is_walked(here: Path) -> None:
    deep = "d/" * 300
    fill(here / "refs", f"{deep}a.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        (pair,) = folder_pairs("refs", "refs", silence)
    finally:
        sys.setrecursionlimit(limit)
    assert pair.reference == f"refs/{deep}a.png"


NAMES = st.sets(
    st.builds("{}{}".format, st.sampled_from("abcd"), st.sampled_from([".png", ".jpg", ".bmp"])), min_size=1
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(refs=NAMES, dist=NAMES)
def test_every_image_appears_once(refs: set[str], dist: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"refs": sorted(refs), "dist": sorted(dist)}
    monkeypatch.setattr(pairs, "images_in", lambda root, note: listed[root])
    found = folder_pairs("refs", "dist", silence)
    shown = [pair.reference for pair in found]
    good = [pair for pair in found if pair.error is None]
    faults = " ".join(pair.error for pair in found if pair.error is not None)
    for side, images in (("reference", refs), ("distorted", dist)):
        paired = [Path(getattr(pair, side)).name for pair in good]
        assert len(set(paired)) == len(paired)
        assert all(image in paired or image in faults for image in images)
    for pair in good:
        assert Path(pair.reference).stem == Path(pair.distorted).stem
    assert shown == sorted(shown, key=lambda name: name.replace(".*", "."))


# All pairs


def test_all_pairs_of_a_folder(here: Path) -> None:
    fill(here / "refs", "b.png", "a.png", "sub/c.jpg")
    assert names(all_pairs("refs", silence)) == [
        ("refs/a.png", "refs/b.png"),
        ("refs/a.png", "refs/sub/c.jpg"),
        ("refs/b.png", "refs/sub/c.jpg"),
    ]


def test_all_pairs_are_made_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # 5e9 pairs: whoever lists them does not return.
    monkeypatch.setattr(pairs, "images_in", lambda root, note: [f"{i:06}.png" for i in range(100_000)])
    assert next(all_pairs("refs", silence)).distorted == "refs/000001.png"


def test_all_pairs_need_two_images(here: Path) -> None:
    fill(here / "refs", "a.png")
    with pytest.raises(PairingError, match=r"refs: holds one image only, refs/a\.png"):
        all_pairs("refs", silence)


# Tables


def test_table_rows_are_relative_to_its_folder(tmp_path: Path) -> None:
    path = table(tmp_path, "reference,distorted\nr/a.png,d/a.png\n/abs/b.png,../b.png\n")
    found = list(csv_pairs(path))
    assert names(found) == [("r/a.png", "d/a.png"), ("/abs/b.png", "../b.png")]
    assert found[0].reference_path == tmp_path / "r/a.png"
    assert found[1].reference_path == Path("/abs/b.png")
    assert found[1].distorted_path == tmp_path / "../b.png"


@pytest.mark.parametrize(
    "content",
    [
        b"reference,distorted\na.png,b.png\n",
        b"\xef\xbb\xbfreference,distorted\r\na.png,b.png\r\n",
        b"\nmos,distorted,,reference\n\n4.5,b.png,x,a.png\n\n",
        b'"reference","distorted"\n"a.png",b.png',
    ],
    ids=["plain", "bom-crlf", "columns-and-blank-lines", "quoted-no-last-line-end"],
)
def test_table_forms(tmp_path: Path, content: bytes) -> None:
    (pair,) = csv_pairs(table(tmp_path, content))
    assert pair == Pair("a.png", "b.png", tmp_path / "a.png", tmp_path / "b.png")


@given(
    rows=st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)] * 2),
        min_size=1,
        unique=True,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_survives_a_table(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    import csv

    path = tmp_path / "pairs.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("reference", "distorted"), *rows])
    assert names(csv_pairs(path)) == rows


def test_malformed_rows_are_errors_that_name_their_line(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "reference,distorted\n"  # 1
        "a.png,b.png\n"
        "a.png\n"
        "\n"  # 4
        "a.png,\n"
        ",b.png\n"
        "a.png,b.png,c.png\n"  # 7
        '"a\n'
        'b.png",c.png\n'
        "a.png,b.png\n"  # 10
        "b.png,a.png\n"
        "./a.png,.//b.png\n",  # the same by another spelling
    )
    found = list(csv_pairs(path))
    assert [pair.error and pair.error.removeprefix(f"{path}, ") for pair in found] == [
        None,
        "line 3: 1 field, where the header has 2",
        "line 5: the name under distorted is empty",
        "line 6: the name under reference is empty",
        "line 7: 3 fields, where the header has 2",
        None,
        "line 10: repeats line 2",
        None,
        "line 12: repeats line 2",
    ]
    assert names(found)[1:5] == [("a.png", ""), ("a.png", ""), ("", "b.png"), ("a.png", "b.png")]
    assert found[5].reference == "a\nb.png"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must name the columns reference and distorted.*found: nothing"),
        (b"\n\n", "found: nothing"),
        (b"a.png,b.png\n", "found: 'a.png', 'b.png'"),
        (b"reference, distorted\na,b\n", "found: 'reference', ' distorted'"),
        (b"reference;distorted\na;b\n", "found: 'reference;distorted'"),
        (b"reference,distorted,reference\n", "once each"),
        (b"x" * 5000, r"found: 'x{199}\.\.\.$"),
        (b"reference,distorted\n", "holds a header but no pair"),
        (b"reference,distorted\n\n\r\n", "holds a header but no pair"),
        ("reference,distorted\na,b\n".encode("utf-16"), "line 1: not text"),
        (b"\x89PNG\r\n\x1a\n", "line 1: not UTF-8"),
        (b"reference,distorted\ncaf\xe9.png,b.png\n", "line 2: not UTF-8"),
        (b"reference,distorted\na\0.png,b.png\n", "line 2: not text"),
        (b"reference,distorted\ra,b\r", "line 1: not CSV"),
        (b"x" * (1 << 21), "line 1: not text"),
    ],
)
def test_refuses_what_is_no_table(tmp_path: Path, content: bytes, words: str) -> None:
    path = table(tmp_path, content)
    with pytest.raises(PairingError, match=words) as caught:
        csv_pairs(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (b'"c.png,d.png\ne.png,f.png\n', "line 3: not CSV: unexpected end of data"),
        (b'"c"x,d.png\n', "line 3: not CSV"),
        (b'"' + b"c" * 200_000 + b'",d.png\n', "line 3: not CSV: field larger than field limit"),
        (b"caf\xe9.png,d.png\n", "line 3: not UTF-8"),
        (b"c\0.png,d.png\n", "line 3: not text"),
    ],
    ids=["open-quote", "text-after-quote", "endless-name", "latin-1", "nul"],
)
def test_what_breaks_a_table_comes_after_the_rows_before_it(tmp_path: Path, tail: bytes, words: str) -> None:
    found = csv_pairs(table(tmp_path, b"reference,distorted\na.png,b.png\n" + tail))
    assert next(found).reference == "a.png"
    with pytest.raises(PairingError, match=words):
        next(found)


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.csv", "cannot be opened: No such file"), (".", "is a folder, where a CSV file")],
)
def test_refuses_a_table_that_cannot_be_opened(here: Path, name: str, words: str) -> None:
    with pytest.raises(PairingError, match=words):
        csv_pairs(name)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")  # noqa: PTH110
def test_an_endless_file_is_refused_at_once() -> None:
    with pytest.raises(PairingError, match="/dev/zero, line 1: not text"):
        csv_pairs("/dev/zero")


def test_a_failing_disk_is_an_error_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            if not line:
                raise OSError(5, "Input/output error")
            return line

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Failing(b"reference,distorted\na.png,b.png\n")))
    found = csv_pairs("-")
    assert next(found).reference == "a.png"
    with pytest.raises(PairingError, match="standard input, line 3: cannot be read: Input/output error"):
        next(found)


def test_standard_input_is_relative_to_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO("reference,distorted\né.png,b.png\na.png\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content, encoding="latin-1"))
    good, bad = csv_pairs("-")
    assert good == Pair("é.png", "b.png", Path("é.png"), Path("b.png"))
    assert bad.error == "standard input, line 3: 1 field, where the header has 2"
    assert not content.closed


def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(PairingError, match="standard input: is closed"):
        csv_pairs("-")


def test_rows_are_read_as_they_are_asked_for() -> None:
    reading, writing = os.pipe()
    try:
        with open(writing, "wb") as sender:
            sender.write(b"reference,distorted\na.png,b.png\n")
            sender.flush()
            # Would wait for ever if more than the first row were read.
            found = csv_pairs(f"/dev/fd/{reading}")
            assert next(found).reference == "a.png"
            sender.write(b"c.png,d.png\n")
            sender.flush()
            assert next(found).reference == "c.png"
        assert next(found, None) is None
    finally:
        os.close(reading)


def test_a_dropped_table_is_closed(tmp_path: Path) -> None:
    # Warnings are errors: a file left open would be a ResourceWarning.
    found = csv_pairs(table(tmp_path, "reference,distorted\na,b\nc,d\n"))
    next(found)
    del found
