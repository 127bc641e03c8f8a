"""Small data sets in the layouts of the real ones: what is read, and what becomes of what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from judged_files import answer, image

from benchmarks.judged import LAYOUTS, judged
from lpips_runtime.errors import PairingError


@pytest.fixture
def bapps(tmp_path: Path) -> Path:
    for number, share in enumerate((0.2, 1.0, 0.0)):
        for part in ("ref", "p0", "p1"):
            image(tmp_path / f"2afc/val/cnn/{part}/{number:06}.png")
        answer(tmp_path / f"2afc/val/cnn/judge/{number:06}.npy", [share])
    for part in ("p0", "p1"):
        image(tmp_path / f"jnd/val/traditional/{part}/000000.png")
    answer(tmp_path / "jnd/val/traditional/same/000000.npy", [[1 / 3]])
    return tmp_path


def test_bapps_gives_two_pairs_of_a_triplet_and_one_of_a_jnd_pair(bapps: Path) -> None:
    triplets, same = judged(bapps, None)
    assert (triplets.name, triplets.kind, triplets.width, triplets.side) == ("2afc cnn", "2afc", 2, 64)
    assert triplets.said.tolist() == pytest.approx([0.2, 1.0, 0.0])
    folder = bapps / "2afc/val/cnn"
    assert triplets.pairs[2:4] == [
        (folder / "ref/000001.png", folder / "p0/000001.png"),
        (folder / "ref/000001.png", folder / "p1/000001.png"),
    ]
    assert (same.name, same.kind, same.width) == ("jnd traditional", "jnd", 1)
    assert same.said.tolist() == pytest.approx([1 / 3])
    folder = bapps / "jnd/val/traditional"
    assert same.pairs == [(folder / "p0/000000.png", folder / "p1/000000.png")]


def test_triplet_without_its_answer_or_an_image_is_a_fault_and_the_rest_remain(bapps: Path) -> None:
    folder = bapps / "2afc/val/cnn"
    (folder / "judge/000000.npy").unlink()
    (folder / "p1/000002.png").unlink()
    triplets, _ = judged(bapps, "bapps")
    assert triplets.faults == [f"{folder}: 000000 is not in judge", f"{folder}: 000002 is not in p1"]
    assert triplets.said.tolist() == [1.0]
    assert len(triplets.pairs) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [(1.5, "one number from 0 to 1"), ([0.1, 0.2], "one number from 0 to 1"), (np.nan, "one number from 0 to 1")],
)
def test_answer_that_is_no_share_is_a_fault(bapps: Path, content: object, says: str) -> None:
    path = bapps / "2afc/val/cnn/judge/000001.npy"
    answer(path, content)
    (fault,) = judged(bapps, None)[0].faults
    assert fault.startswith(f"{path}: ")
    assert says in fault


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not numpy", b"PK\x03\x04"])
def test_answer_that_is_no_npy_file_is_a_fault(bapps: Path, content: bytes) -> None:
    path = bapps / "2afc/val/cnn/judge/000001.npy"
    path.write_bytes(content)
    (fault,) = judged(bapps, None)[0].faults
    assert fault.startswith(f"{path}: cannot be read as a .npy file: ")


def test_answer_that_is_a_pickle_is_never_loaded(bapps: Path) -> None:
    path = bapps / "2afc/val/cnn/judge/000001.npy"
    np.save(path, np.array({"a": 1}, dtype=object), allow_pickle=True)
    (fault,) = judged(bapps, None)[0].faults
    assert "cannot be read as a .npy file" in fault


def test_set_without_any_answer_is_an_error(bapps: Path) -> None:
    for path in (bapps / "jnd/val/traditional/same").iterdir():
        path.unlink()
    with pytest.raises(PairingError, match=r"same: no \.npy file"):
        judged(bapps, None)


def test_two_images_of_one_name_are_an_error(bapps: Path) -> None:
    image(bapps / "2afc/val/cnn/p0/000001.jpg")
    with pytest.raises(PairingError, match=r"000001\.jpg and 000001\.png are both 000001"):
        judged(bapps, None)


@pytest.fixture
def tid2013(tmp_path: Path) -> Path:
    # As in the original: one reference in lower case, and the table's names in another case than the files'.
    image(tmp_path / "reference_images/I01.BMP")
    image(tmp_path / "reference_images/i25.bmp")
    image(tmp_path / "distorted_images/i01_01_1.bmp")
    image(tmp_path / "distorted_images/i25_24_5.bmp")
    (tmp_path / "mos_with_names.txt").write_text("5.51429 I01_01_1.bmp\n2.5 i25_24_5.bmp\n")
    return tmp_path


def test_tid2013_pairs_by_the_number_of_the_reference(tid2013: Path) -> None:
    (found,) = judged(tid2013, None)
    assert (found.name, found.kind, found.width, found.side) == ("TID2013", "opinion", 1, None)
    assert found.pairs == [
        (tid2013 / "reference_images/I01.BMP", tid2013 / "distorted_images/i01_01_1.bmp"),
        (tid2013 / "reference_images/i25.bmp", tid2013 / "distorted_images/i25_24_5.bmp"),
    ]
    assert found.said.tolist() == [5.51429, 2.5]
    assert found.reference.tolist() == [0, 1]


def test_tid2013_image_that_is_missing_is_a_fault(tid2013: Path) -> None:
    (tid2013 / "distorted_images/i25_24_5.bmp").unlink()
    (found,) = judged(tid2013, None)
    assert found.faults == [f"{tid2013 / 'mos_with_names.txt'}, line 2: i25_24_5.bmp: no image of it"]


@pytest.mark.parametrize("line", ["i01_01_1.bmp", "high i01_01_1.bmp", "nan i01_01_1.bmp", "1 2 i01_01_1.bmp"])
def test_tid2013_table_that_is_none_is_an_error(tid2013: Path, line: str) -> None:
    (tid2013 / "mos_with_names.txt").write_text(f"5 i01_01_1.bmp\n{line}\n")
    with pytest.raises(PairingError, match="line 2: "):
        judged(tid2013, None)


def test_kadid10k_has_references_and_distorted_in_one_folder(tmp_path: Path) -> None:
    image(tmp_path / "images/I01.png")
    image(tmp_path / "images/I01_01_01.png")
    (tmp_path / "dmos.csv").write_text(
        "dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,0.496\nI01_01_02.png,I01.png,4.3,0.5\n"
    )
    (found,) = judged(tmp_path, None)
    assert (found.name, found.kind) == ("KADID-10k", "opinion")
    assert found.pairs == [(tmp_path / "images/I01.png", tmp_path / "images/I01_01_01.png")]
    assert found.said.tolist() == [4.57]
    assert found.faults == [f"{tmp_path / 'dmos.csv'}, line 3: I01_01_02.png: no image of it"]


def test_table_of_ones_own_has_paths_beside_it(tmp_path: Path) -> None:
    table = tmp_path / "study.csv"
    table.write_text("mos,note,reference,distorted\n4.5,fine,a.png,sub/b.png\n")
    (found,) = judged(table, None)
    assert (found.name, found.kind) == ("study", "opinion")
    assert found.pairs == [(tmp_path / "a.png", tmp_path / "sub/b.png")]
    assert found.said.tolist() == [4.5]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no column reference, distorted, mos"),
        ("reference,distorted\na,b\n", "no column mos"),
        ("reference,distorted,mos\na.png,b.png,good\n", "line 2: 'good' is no mean opinion"),
        ("reference,distorted,mos\na.png,,3\n", "line 2: a field of"),
        ("reference,distorted,mos\na.png,b.png\n", "line 2: a field of"),
        ('reference,distorted,mos\n"a.png,b.png,3\n', "cannot be read as CSV"),
        ("reference,distorted,mos\n", "no row of study can be used"),
    ],
)
def test_table_that_is_wrong_is_an_error(tmp_path: Path, content: str, says: str) -> None:
    table = tmp_path / "study.csv"
    table.write_text(content)
    with pytest.raises(PairingError, match=says):
        judged(table, None)


@pytest.mark.parametrize("layout", ["bapps", "tid2013", "kadid10k"])
def test_who_has_no_data_is_told_where_to_get_it(tmp_path: Path, layout: str) -> None:
    with pytest.raises(PairingError, match="get it from http") as error:
        judged(tmp_path, layout)
    assert LAYOUTS[layout].source in str(error.value)


def test_folder_of_no_layout_is_an_error_that_says_what_they_hold(tmp_path: Path) -> None:
    known = r"no data set known here; BAPPS \(.*1\.3 GB\)\) holds 2afc or jnd; TID2013 .* holds mos_with"
    with pytest.raises(PairingError, match=known):
        judged(tmp_path, None)
    with pytest.raises(PairingError, match="no such folder"):
        judged(tmp_path / "missing", None)
