"""`make dist`: which artifacts become wheels, what is in them, and that the runtime finds what they install.

Building needs the package index, for hatchling.
"""

import importlib.metadata
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("build")

from lpips_export.errors import PublishError, ValidationError
from lpips_runtime import Scorer, __version__
from lpips_runtime.errors import DamagedModelError, LpipsError
from lpips_runtime.installed import model_name, package_name
from lpips_runtime.models import find_model, manifest_path
from tools import dist
from tools.model_wheel import model_project, pair_graphs

ROOT = Path(__file__).parent.parent


def copied(graphs: list[Path], folder: Path) -> list[Path]:
    folder.mkdir()
    for graph in graphs:
        for path in (graph, manifest_path(graph)):
            shutil.copyfile(path, folder / path.name)
    return [folder / graph.name for graph in graphs]


@pytest.fixture(scope="module")
def graphs(exported: Callable[..., list[Path]], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pair, features and compare of one export with random weights, in a folder of their own."""
    return copied(exported(net="alex", split=True), tmp_path_factory.mktemp("graphs") / "artifacts")


@pytest.fixture
def artifacts(graphs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The same in a folder artifacts/ of the current one, to be spoilt."""
    monkeypatch.chdir(tmp_path)
    return copied(graphs, Path("artifacts"))


# What is packed


@pytest.fixture(scope="module")
def built(graphs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all wheels were built into, where an older one was."""
    folder = tmp_path_factory.mktemp("dist")
    (folder / "lpips_model_vgg-0.0.1-py3-none-any.whl").touch()
    (folder / "other.whl").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "ARTIFACTS", graphs[0].parent)
        patch.setattr(dist, "DIST", folder)
        assert dist.main() == 0
    return folder


def model_wheel(folder: Path, graph: Path) -> Path:
    return folder / f"{package_name(graph.stem).replace('-', '_')}-{__version__}-py3-none-any.whl"


def test_a_wheel_of_each_package_and_model_replaces_those_before(built: Path, graphs: list[Path]) -> None:
    assert {path.name for path in built.iterdir()} == {
        "other.whl",
        f"lpips_export-{__version__}-py3-none-any.whl",
        f"lpips_runtime-{__version__}-py3-none-any.whl",
        model_wheel(built, graphs[0]).name,
    }


def test_a_model_wheel_holds_the_model_and_what_must_be_passed_on_with_it(built: Path, graphs: list[Path]) -> None:
    wheel = model_wheel(built, graphs[0])
    module = package_name(graphs[0].stem).replace("-", "_")
    about = f"{module}-{__version__}.dist-info"
    files = {f"{module}/{path.name}": path for graph in graphs for path in (graph, manifest_path(graph))}
    files |= {f"{about}/licenses/{name}": ROOT / name for name in ("LICENSE", "NOTICE")}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if not name.endswith(".py")} == {
            *files,
            *(f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")),
        }
        for name, path in files.items():
            assert archive.read(name) == path.read_bytes()


def test_the_runtime_finds_an_installed_wheel(
    built: Path, graphs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(model_wheel(built, graphs[0])) as archive:  # which is how pip installs it
        archive.extractall(tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.setattr("lpips_runtime.installed.GROUP", "lpips_runtime.models")

    about = importlib.metadata.metadata(package_name(graphs[0].stem))
    assert about["Version"] == __version__
    assert about["Requires-Dist"] == f"lpips-runtime~={__version__}"
    assert about["License-Expression"] == "BSD-2-Clause AND LicenseRef-custom-weights"
    found = find_model(model_name(graphs[0].stem))
    assert found.is_relative_to(tmp_path / "site-packages")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert Scorer(found).score(*images) == Scorer(graphs[0]).score(*images)


def test_the_same_artifact_gives_the_same_bytes(
    built: Path, artifacts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in Path("artifacts").iterdir():
        path.chmod(0o600)
    project = model_project(artifacts[0], tmp_path / "elsewhere")
    with dist.builder() as build:
        again = build(project, tmp_path / "again")
    assert again.read_bytes() == model_wheel(built, artifacts[0]).read_bytes()


# What is refused


def change(graph: Path, **fields: object) -> Path:
    """Change fields of a manifest, or take them out with None."""
    path = manifest_path(graph)
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def spec_of(graph: Path) -> dict[str, str]:
    return json.loads(manifest_path(graph).read_text())["spec"]


def without_manifest(graphs: list[Path]) -> Path:
    manifest_path(graphs[0]).unlink()
    return graphs[0]


def damaged(graphs: list[Path]) -> Path:
    data = bytearray(graphs[0].read_bytes())
    data[len(data) // 2] ^= 1
    graphs[0].write_bytes(data)
    return graphs[0]


def renamed(graphs: list[Path]) -> Path:
    target = Path("artifacts/lpips_vgg_fp32.onnx")
    for sibling in graphs[1:]:
        sibling.unlink()
    manifest_path(graphs[0]).rename(manifest_path(target))
    return graphs[0].rename(target)


def foreign(graphs: list[Path]) -> Path:
    path = Path("artifacts/resnet.onnx")
    path.write_bytes(b"model")
    change_to = {"sha256": "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"}
    manifest_path(path).write_text(json.dumps(change_to))
    return path


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (without_manifest, ValidationError, "its manifest .* is missing, so nothing says that it was validated"),
        (lambda graphs: change(graphs[0], validation=None), ValidationError, "says nothing of a validation"),
        (lambda graphs: change(graphs[0], validation={"cases": []}), ValidationError, "says nothing of a validation"),
        (lambda graphs: change(graphs[0], validation=[1]), ValidationError, "says nothing of a validation"),
        (lambda graphs: change(graphs[2], structure=None), ValidationError, "says nothing of a validation"),
        (lambda graphs: change(graphs[0], spec=None), DamagedModelError, "its spec is not that of lpips_alex"),
        (
            lambda graphs: change(graphs[0], spec=spec_of(graphs[0]) | {"backbone_sha256": "0" * 64}),
            DamagedModelError,
            "its spec is not that of lpips_alex",
        ),
        (damaged, DamagedModelError, "sha256 .* is not the "),
        (renamed, DamagedModelError, r"is the model lpips_alex_fp32_custom-\w{8}; give it that name"),
        (foreign, LpipsError, "not an ONNX model"),
        (
            lambda graphs: change(graphs[1], spec=spec_of(graphs[1]) | {"calibration": "x"}) and graphs[1],
            DamagedModelError,
            r"is of another export than lpips_alex_fp32_custom-\w{8}.onnx",
        ),
        (lambda graphs: graphs[0].unlink() or graphs[2], PublishError, "belongs to .* is missing; export it again"),
        (lambda graphs: graphs[1].unlink() or graphs[2], PublishError, "belongs to .*_features.onnx, which is missing"),
        (lambda graphs: graphs[2].unlink() or graphs[1], PublishError, "belongs to .*_compare.onnx, which is missing"),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else None,
)
def test_an_artifact_that_is_not_proven_whole_is_refused(
    artifacts: list[Path],
    tmp_path: Path,
    spoil: Callable[[list[Path]], Path],
    error: type[LpipsError],
    said: str,
) -> None:
    def prepare() -> None:
        for number, graph in enumerate(pair_graphs(Path("artifacts"))):
            model_project(graph, tmp_path / f"project-{number}")

    path = spoil(artifacts)
    with pytest.raises(error, match=said) as caught:
        prepare()
    assert str(path) in str(caught.value)


def test_one_refusal_and_nothing_is_built(
    artifacts: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "builder", lambda: pytest.fail("built"))
    damaged(artifacts)
    assert dist.main() == 3
    message = capsys.readouterr().err
    assert message.startswith(f"error: {artifacts[0]}: ")
    assert message.endswith("; nothing was built\n")
    assert not Path("dist").exists()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lpips_alex_fp32_rtx.engine").touch()
    with pytest.raises(PublishError, match="holds no model; export one with: lpips-export --net alex"):
        pair_graphs(tmp_path)
    with pytest.raises(PublishError, match="holds no model"):
        pair_graphs(tmp_path / "gone")


def test_a_build_that_fails_says_why(
    artifacts: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    text = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (broken / "pyproject.toml").write_text(text)
    (broken / "backend.py").write_text("def build_wheel(*_): raise OSError('no luck')\n")
    monkeypatch.setattr(dist, "PACKAGES", (broken,))
    assert dist.main() == 3
    message = capsys.readouterr().err
    assert "no luck" in message
    assert message.endswith("; nothing was built\n")
