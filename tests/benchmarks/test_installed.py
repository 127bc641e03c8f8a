"""What distributions take on disk: each file once, and no figure where something is missing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.installed import installed_bytes
from benchmarks.subjects import SUBJECTS, Job, disk_bytes

Install = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def install(site: Path) -> Install:
    """name, files and their sizes, requirements -> a distribution as an installer leaves it, its own records empty."""

    def make(
        name: str, files: dict[str, int], *requires: str, extras: tuple[str, ...] = (), editable: bool = False
    ) -> None:
        records = site / f"{name.replace('-', '_')}-1.0.dist-info"
        records.mkdir()
        for path, size in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(b"x" * size)
        lines = [f"Name: {name}", "Version: 1.0"]
        lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {text}" for text in requires]
        (records / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
        (records / "RECORD").write_text("".join(f"{path},,\n" for path in files))
        if editable:
            about = {"url": site.as_uri(), "dir_info": {"editable": True}}
            (records / "direct_url.json").write_text(json.dumps(about))

    return make


def test_all_that_is_required_is_counted_once(install: Install) -> None:
    install("top-part", {"top_part/a.py": 1000}, "left-part", "right-part")
    install("left-part", {"left_part/a.py": 200, "shared_by_two/a.py": 7}, "base-part>=0.5")
    install("right-part", {"right_part/a.py": 30, "shared_by_two/a.py": 7}, "base-part (>=0.1)")
    # Which require one another in a circle, and a script that is recorded from the folder of packages.
    install("base-part", {"base_part/a.py": 4, "../script": 50000}, "top-part")
    assert installed_bytes(["top-part"]) == 51241
    assert installed_bytes(["Top_Part", "base-part", "top-part"]) == 51241


def test_markers_and_extras_decide_what_is_required(install: Install) -> None:
    install("top-part", {"top_part/a.py": 1}, "gone-part; python_version < '3'", "mid-part[fast]")
    install(
        "mid-part",
        {"mid_part/a.py": 20},
        "fast-part; extra == 'fast'",
        "slow-part; extra == 'slow'",
        extras=("fast", "slow"),
    )
    install("fast-part", {"fast_part/a.py": 300})
    install("slow-part", {"slow_part/a.py": 4000})
    assert installed_bytes(["top-part"]) == 321
    assert installed_bytes(["mid-part"]) == 20
    assert installed_bytes(["mid-part[slow]"]) == 4020


def test_one_that_is_missing_leaves_no_figure(install: Install) -> None:
    install("top-part", {"top_part/a.py": 1}, "mid-part")
    install("mid-part", {"mid_part/a.py": 20}, "gone-part")
    assert installed_bytes(["top-part"]) is None
    assert installed_bytes(["gone-part"]) is None
    assert installed_bytes([]) == 0


def test_files_that_are_recorded_and_gone_are_not_counted(install: Install, site: Path) -> None:
    install("top-part", {"top_part/a.py": 1, "top_part/b.py": 20})
    (site / "top_part/b.py").unlink()
    assert installed_bytes(["top-part"]) == 1


def test_one_whose_files_nobody_recorded_leaves_no_figure(install: Install, site: Path) -> None:
    install("top-part", {"top_part/a.py": 1})
    (site / "top_part-1.0.dist-info/RECORD").unlink()
    assert installed_bytes(["top-part"]) is None


def test_of_an_editable_one_the_folder_of_the_package_counts(install: Install, site: Path) -> None:
    install("edited-part", {"edited.pth": 9}, editable=True)
    (site / "edited_part/inner").mkdir(parents=True)
    (site / "edited_part/__init__.py").write_bytes(b"x" * 100)
    (site / "edited_part/inner/a.py").write_bytes(b"x" * 3)
    assert installed_bytes(["edited-part"]) == 103


def test_what_a_subject_takes_is_its_distributions_and_its_model(tmp_path: Path) -> None:
    model = tmp_path / "lpips_alex_fp32.onnx"
    job = Job("alex", str(model), 64, 1, 1, str(tmp_path))
    assert disk_bytes("ours", job) is None
    model.write_bytes(b"x" * 500)
    (tmp_path / "plain_alex.onnx").write_bytes(b"x" * 70)
    runtime, onnxruntime = installed_bytes(["lpips-runtime[cpu]"]), installed_bytes(["onnxruntime"])
    assert runtime is not None
    assert onnxruntime is not None
    assert onnxruntime < runtime
    assert disk_bytes("ours", job) == runtime + 500
    assert disk_bytes("plain", job) == onnxruntime + 70
    assert disk_bytes("fp16", job) is None


def test_every_subject_says_what_it_needs() -> None:
    assert [name for name, subject in SUBJECTS.items() if not subject.needs] == ["native"]
