"""`latency`: the jobs it makes of sizes and batches, and a run of it."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import runs
from benchmarks.__main__ import main
from benchmarks.job import AbsentError, Job, images
from benchmarks.latency import export_plainly, jobs, sized
from benchmarks.peers import plain_path
from benchmarks.schema import read_report
from benchmarks.subjects import SUBJECTS
from lpips_runtime import Scorer
from lpips_runtime.errors import UsageError


@pytest.fixture
def model(
    exported: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    request: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Alone in its folder. Subjects in processes of their own find the benchmarks from the root of the project."""
    monkeypatch.chdir(request.config.rootpath)
    return Path(shutil.copy(exported(net="alex", split=True)[0], tmp_path_factory.mktemp("alone")))


def _options(*sizes: str, batch: tuple[int, ...] = (1, 8)) -> argparse.Namespace:
    return argparse.Namespace(sizes=sizes, batch=batch, threads=1)


def test_size_is_width_and_height() -> None:
    assert sized("1920x1080") == (1920, 1080)


@pytest.mark.parametrize("text", ["", "64", "x", "64x", "0x64", "64x0", "-64x64", "64x64x3", "64X64", "6.5x64", "²x64"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="give width x height in pixels, as 1920x1080"):
        sized(text)


def test_least_work_comes_first_and_large_images_one_at_a_time(model: Path) -> None:
    found = jobs(model, _options("1920x1080", "512x512", "64x96", "513x512", "64x96"), "folder")
    assert [(job.shape, job.batch) for job in found] == [
        ((96, 64), 1),
        ((96, 64), 8),
        ((512, 512), 1),
        ((512, 513), 1),
        ((512, 512), 8),
        ((1080, 1920), 1),
    ]
    assert {(job.net, job.model, job.threads, job.folder) for job in found} == {("alex", str(model), 1, "folder")}


def test_a_size_that_the_net_does_not_take_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match=r"^--sizes 64x30: alex takes no side below 31 pixels$"):
        jobs(model, _options("64x64", "64x30"), "")
    assert jobs(model, _options("31x31"), "")


def test_plain_export_is_made_once_and_only_for_subjects_that_need_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("subprocess.run", lambda call, **_: calls.append(call))
    (job,) = jobs(model, _options("64x64", batch=(1,)), str(tmp_path))
    export_plainly(job, ["ours", "eager"])
    assert calls == []
    export_plainly(job, ["ours", "plain"])
    assert calls[0][-3:] == ["alex", "1", str(tmp_path)]
    plain_path(job).touch()
    export_plainly(job, ["plain"])
    assert len(calls) == 1


def test_run_writes_the_report_and_what_belongs_to_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "limits", lambda _: {"float32": 100.0})
    output = tmp_path / "r.json"
    sizes = ["--sizes", "64x48", "--batch", "1", "2", "--subjects", "ours", "int8"]
    assert main(["latency", str(model), *sizes, "--rounds", "1", "--threads", "1", "-o", str(output)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(tmp_path / name) for name in ("r.json", "r-latency.png", "r.md")]
    assert said.err.splitlines()[1] == "1/2 alex, 1 x 64x48: ours"
    assert "1/2 alex, 1 x 64x48: round 1 of 1" in said.err.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r-latency.png", "r.json", "r.md"]
    one, absent, two, _ = read_report(output)["cells"]
    assert [(cell["width"], cell["height"], cell["batch"], cell["state"]) for cell in (one, two)] == [
        (64, 48, 1, "measured"),
        (64, 48, 2, "measured"),
    ]
    assert (absent["subject"], absent["state"]) == ("int8", "absent")
    assert "no such model" in absent["why"]
    assert (one.get("calls"), one.get("uncounted"), one.get("wrong"), one.get("error")) == (4, 4, False, None)
    (job, _) = jobs(model, _options("64x48", batch=(1, 2)), "")
    with Scorer(model, provider="cpu", threads=1) as scorer:
        assert one.get("distance") == np.asarray(scorer.score(*images(job)))[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--sizes", "large"], "--sizes large: give width x height in pixels, as 1920x1080"),
        (["--sizes", "16x16"], "--sizes 16x16: alex takes no side below 31 pixels"),
        (
            ["--sizes", "1920x1080", "--batch", "8"],
            "--sizes 1920x1080: above 512x512 pairs come one at a time; add --batch 1",
        ),
        (["--batch", "0"], "--batch must be at least 1"),
    ],
)
def test_bad_options_are_refused_in_a_line(
    options: list[str], reason: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["latency", str(model), *options, "-o", str(tmp_path / "r.json")]) == 2
    assert capsys.readouterr() == ("", f"error: {reason}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_row_is_absent_if_its_file_is_another_or_cannot_be_named(
    model: Path, exported: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float32 model under the name of an INT8 one would be a fast and exact INT8."""
    job = Job("alex", str(model), 48, 1, 1)
    shutil.copy(model, model.with_name(model.name.replace("fp32", "int8")))
    with pytest.raises(AbsentError, match=r"^lpips_alex_int8_\S+\.onnx holds alex fp32 float32$"):
        SUBJECTS["int8"].make(job)
    assert SUBJECTS["ours"].make(job)
    renamed = shutil.copy(model, tmp_path / "fp32_mine.onnx")
    with pytest.raises(AbsentError, match=r"fp32_mine\.onnx is not called lpips_alex_fp32\.onnx"):
        SUBJECTS["int8"].make(Job("alex", str(renamed), 48, 1, 1))
    assert SUBJECTS["ours"].make(Job("alex", str(renamed), 48, 1, 1))
