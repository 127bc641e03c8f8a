"""Models that were installed as packages: real dist-info folders on sys.path, as pip leaves them."""

import json
import sys
from pathlib import Path

import pytest

from lpips_runtime import installed
from lpips_runtime.cli import main
from lpips_runtime.errors import DamagedModelError, ModelNotFoundError
from lpips_runtime.installed import installed_models, model_name, package_name, package_of
from lpips_runtime.models import find_model, manifest_path, read_model, stem_of


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are imported from; the current one holds nothing."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    return site


def install(site: Path, stem: str = "lpips_alex_fp32", *, entry_points: bytes | None = None) -> Path:
    """Unpack a model package there; where its model lies."""
    package = package_name(stem)
    module = package.replace("-", "_")
    about = site / f"{module}-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {package}\nVersion: 0.1.0\n")
    said = f"[{installed.GROUP}]\n{stem} = {module}\n".encode() if entry_points is None else entry_points
    (about / "entry_points.txt").write_bytes(said)
    (site / module).mkdir()
    (site / module / "__init__.py").write_text("raise RuntimeError('the code of a model package was run')\n")
    path = site / module / f"{stem}.onnx"
    path.write_bytes(b"model")
    manifest_path(path).write_text(json.dumps({"sha256": "9372c470eeadd5ec" + "0" * 48}))
    return path


@pytest.mark.parametrize(
    ("stem", "name", "package"),
    [
        ("lpips_alex_fp32", "alex", "lpips-model-alex"),
        ("lpips_vgg_fp16", "vgg-fp16", "lpips-model-vgg-fp16"),
        ("lpips_squeeze_int8_tensorrt", "squeeze-int8-tensorrt", "lpips-model-squeeze-int8-tensorrt"),
        ("lpips_alex_fp32_v0.0_uint8", "alex-v0.0-uint8", "lpips-model-alex-v0-0-uint8"),
        (
            "lpips_vgg_fp32_baseline_custom-0123abcd",
            "vgg-baseline-custom-0123abcd",
            "lpips-model-vgg-baseline-custom-0123abcd",
        ),
    ],
)
def test_file_name_name_and_package_stand_for_each_other(stem: str, name: str, package: str, site: Path) -> None:
    assert (model_name(stem), stem_of(name), package_name(stem)) == (name, stem, package)
    path = install(site, stem)
    assert find_model(name) == path
    assert package_of(path) == package


def test_an_installed_model_is_the_default(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install(site)
    assert find_model() == path
    monkeypatch.setenv("LPIPS_MODEL", "alex")
    assert find_model() == path


def test_what_was_exported_here_goes_first_and_nothing_is_searched(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site)
    exported = Path("artifacts/lpips_alex_fp32.onnx")
    exported.parent.mkdir()
    exported.touch()
    monkeypatch.setattr("importlib.metadata.distributions", lambda: pytest.fail("looked at the installed packages"))
    assert find_model() == find_model("alex") == find_model(exported) == exported
    with pytest.raises(ModelNotFoundError):
        find_model("gone.onnx")


def test_no_code_of_a_package_is_run(site: Path) -> None:
    install(site)
    find_model("alex")
    assert "lpips_model_alex" not in sys.modules


def test_other_installed_models_are_named_not_taken(site: Path) -> None:
    install(site, "lpips_vgg_fp32")
    install(site, "lpips_squeeze_int8")
    with pytest.raises(ModelNotFoundError) as caught:
        find_model()
    assert str(caught.value) == (
        "artifacts/lpips_alex_fp32.onnx: no such model; installed: squeeze-int8, vgg; pip install the wheel "
        "lpips-model-alex, export it with lpips-export, or name a model with -m or $LPIPS_MODEL"
    )


def test_of_two_the_first_on_the_path_is_taken(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site)
    first = tmp_path / "user-site"
    first.mkdir()
    path = install(first)
    monkeypatch.syspath_prepend(first)
    assert find_model("alex") == path


def test_a_package_without_its_file_is_named(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = install(site)
    path.unlink()
    with pytest.raises(DamagedModelError) as caught:
        find_model("alex")
    assert str(caught.value) == (
        f"{path}: is missing, though lpips-model-alex is installed; install lpips-model-alex again"
    )
    assert main(["a.png", "b.png"]) == 3
    assert capfd.readouterr() == ("", f"error: {caught.value}\n")


def test_a_package_whose_file_was_changed_is_named(site: Path) -> None:
    path = install(site)
    with pytest.raises(DamagedModelError, match=r"site-packages/lpips_model_alex/.*: install lpips-model-alex again$"):
        read_model(find_model("alex"))
    manifest_path(path).write_text("{")
    with pytest.raises(DamagedModelError, match=r"is no manifest .*; install lpips-model-alex again$"):
        read_model(path)


def test_a_package_whose_entry_points_cannot_be_read_is_named(site: Path) -> None:
    install(site, entry_points=f"[{installed.GROUP}]\nno entry point\n".encode())
    with pytest.raises(DamagedModelError) as caught:
        find_model("alex")
    assert str(caught.value) == (
        f"{site}: entry_points.txt of lpips-model-alex is damaged; install lpips-model-alex again"
    )


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[console_scripts]\nno entry point\n", b"[x]\n" + b"\0" * 9])
def test_damaged_packages_of_others_are_no_matter(site: Path, content: bytes) -> None:
    install(site, "lpips_vgg_fp32", entry_points=content)
    path = install(site)
    assert installed_models() == {"lpips_alex_fp32": path}
