"""The built-in set and data sets from end to end: what is printed, what is counted, and where it ends."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from judged_files import answer, image
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.accuracy import published
from benchmarks.judged import judged
from benchmarks.photographs import GRADED, cut_photographs, graded
from benchmarks.streaming import distances
from lpips_runtime import Scorer

Exported = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def alex(exported: Exported) -> Path:
    return exported(net="alex", split=True)[0]


@pytest.fixture
def of_the_paper(monkeypatch: pytest.MonkeyPatch, alex: Path) -> None:
    """The random weights of `alex` are taken for those that the published values are of."""
    with Scorer(alex, provider="cpu") as scorer:
        monkeypatch.setattr("benchmarks.accuracy.BACKBONE_SHA256", {"alex": scorer.info.backbone_sha256})


@pytest.fixture
def triplets(tmp_path: Path) -> Path:
    """Three of BAPPS in the real one's form: enlarged to 256; p0 is nearer by far."""
    for number in range(3):
        small = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        for part, noise in (("ref", 0), ("p0", 4), ("p1", 60)):
            pixels = small + np.random.default_rng(9).normal(0, noise, small.shape)
            path = tmp_path / f"2afc/val/cnn/{part}/{number:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.resize((256, 256), Image.Resampling.NEAREST).save(path)
        answer(tmp_path / f"2afc/val/cnn/judge/{number:06}.npy", 0.2)
    return tmp_path


def rows(text: str, name: str) -> list[list[str]]:
    """Cells of the table rows that begin so."""
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith(f"| {name} ")
    ]


@pytest.mark.usefixtures("of_the_paper")
def test_2afc_of_triplets_is_what_people_said(triplets: Path, alex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accuracy", str(alex), "--data", str(triplets), "--bootstraps", "20"]) == 0
    ((_, measure, model, score, count, published),) = rows(capsys.readouterr().out, "2afc cnn")
    assert (measure, model, score, count) == ("2AFC, %", alex.name, "80.0 (80.0 to 80.0)", "3")
    assert published == "83.4"


def test_enlarged_patches_are_scored_at_64_pixels(triplets: Path, alex: Path) -> None:
    (found,) = judged(triplets, None)
    with Scorer(alex, provider="cpu") as scorer:
        scored = distances(scorer, found, print)
        sides = [Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR) for path in found.pairs[3]]
        assert scored[1, 1] == pytest.approx(scorer.score(*map(np.asarray, sides)), rel=1e-6)


def test_truncated_image_is_told_and_counted(triplets: Path, alex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = triplets / "2afc/val/cnn/p1/000001.png"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    assert main(["accuracy", str(alex), "--data", str(triplets), "--bootstraps", "5"]) == 3
    out, err = capsys.readouterr()
    assert rows(out, "2afc cnn")[0][4] == "2"
    assert str(damaged) in err
    assert "1 rows could not be used" in err


def test_missing_answer_is_told_and_counted(triplets: Path, alex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (triplets / "2afc/val/cnn/judge/000002.npy").unlink()
    assert main(["accuracy", str(alex), "--data", str(triplets), "--bootstraps", "5"]) == 3
    out, err = capsys.readouterr()
    assert rows(out, "2afc cnn")[0][4] == "2"
    assert "000002 is not in judge" in err


def test_opinions_are_correlated(tmp_path: Path, alex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = np.asarray(Image.open(image(tmp_path / "a.png")))
    lines = ["reference,distorted,mos"]
    for opinion, noise in ((5, 2), (4, 10), (2, 40), (1, 90)):
        pixels = reference + np.random.default_rng(1).normal(0, noise, reference.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{noise}.png")
        lines.append(f"a.png,{noise}.png,{opinion}")
    (tmp_path / "study.csv").write_text("\n".join(lines))
    assert main(["accuracy", str(alex), "--data", str(tmp_path / "study.csv"), "--bootstraps", "5"]) == 0
    spearman, pearson = rows(capsys.readouterr().out, "study")
    assert spearman[3].startswith("1.0000")
    assert 0.5 < float(pearson[3].split()[0]) < 1


def test_report_has_every_figure_and_what_made_it(triplets: Path, alex: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    (triplets / "2afc/val/cnn/judge/000002.npy").unlink()
    call = ["accuracy", str(alex), str(alex), "--data", str(triplets), "--bootstraps", "5", "--json", str(report)]
    assert main(call) == 3
    found = json.loads(report.read_text())
    assert found["unused"] == 1
    assert [each["model"]["file"] for each in found["models"]] == [alex.name] * 2
    assert found["scores"][0] == {
        "set": "2afc cnn",
        "measure": "2AFC, %",
        "model": alex.name,
        "value": pytest.approx(0.8),
        "interval": [pytest.approx(0.8)] * 2,
        "rows": 2,
        "published": "",  # the backbone is none that anything was published of
    }
    assert found["beside_first"][alex.name]["error"] == 0


@pytest.mark.usefixtures("of_the_paper")
def test_mean_over_sets_has_a_published_value_beside_it_only_for_the_sets_of_the_paper(
    alex: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["traditional", "cnn", "superres", "deblur", "color", "frameinterp"]
    for name in names:
        for part in ("ref", "p0", "p1"):
            image(tmp_path / f"2afc/val/{name}/{part}/0.png", seed=len(part))
        answer(tmp_path / f"2afc/val/{name}/judge/0.npy", 0.2)
    call = ["accuracy", str(alex), "--data", str(tmp_path), "--bootstraps", "1"]
    assert main(call) == 0
    # The two are one image: the distance cannot decide.
    ((_, _, _, score, _, published),) = rows(capsys.readouterr().out, "mean of 6 sets")
    assert (score, published) == ("50.0", "69.8")
    (tmp_path / "2afc/val/color").rename(tmp_path / "2afc/val/colour")
    assert main(call) == 0
    assert rows(capsys.readouterr().out, "mean of 6 sets")[0][5] == ""


@pytest.mark.usefixtures("of_the_paper")
def test_published_values_are_of_the_weights_that_they_were_published_for(alex: Path, exported: Exported) -> None:
    for model, value in ((alex, "73.9"), (exported(net="alex", lin="none", quick=True)[0], "")):
        with Scorer(model, provider="cpu") as scorer:
            assert published(scorer.info, "2afc traditional", "2AFC, %") == value


def test_layout_without_data_says_where_to_get_it(alex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["accuracy", str(alex), "--layout", "kadid10k"])
    assert stop.value.code == 2
    assert "get KADID-10k from http://database.mmsp-kn.de" in capsys.readouterr().err


def test_temporary_copies_do_not_pile_up(triplets: Path, alex: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = judged(triplets, None)
    left: list[int] = []
    unlink = Path.unlink

    def counted(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        left.append(int(path.name.split("_")[0]))

    monkeypatch.setattr(Path, "unlink", counted)
    with Scorer(alex, provider="cpu") as scorer:
        distances(scorer, found, print)
    assert sorted(set(left)) == [-1, 0, 1, 2, 3, 4]


def test_built_in_set_ranks_as_the_strengths_do(
    exported: Exported, real_weights: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = exported(net="alex", backbone=real_weights("alex"), quick=True)[0]
    half = exported(net="alex", precision="fp16", backbone=real_weights("alex"), quick=True)[0]
    assert main(["accuracy", str(model), str(half), "--bootstraps", "20"]) == 0
    out = capsys.readouterr().out
    for kind in GRADED:
        for _, measure, _, score, count, _ in rows(out, kind):
            low = float(re.split(r"[ (]+", score)[1])
            assert low > {"order kept": 0.99, "Spearman": 0.6}[measure], (kind, measure, score)
            assert count == "18"
    ((_, pairs, error, _, spearman, _, _),) = rows(out, half.name)
    assert pairs == str(18 * 5 * 5)
    assert float(error.rstrip("%")) < 0.1
    assert float(spearman) > 0.9999


def test_graded_pictures_are_written_once_and_differ(tmp_path: Path) -> None:
    pictures = [picture.crop((0, 0, 64, 64)) for picture in cut_photographs()][-2:]
    sets = graded(pictures, tmp_path)
    assert [each.name for each in sets] == list(GRADED)
    for each in sets:
        assert each.said.shape == (2, 5)
        assert each.width == 5
        assert each.reference.tolist() == [0] * 5 + [1] * 5
    files = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 2 + 2 * 5 * 5
