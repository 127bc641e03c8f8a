"""tools/onnxruntime_headers.py: where the headers come from, and what it says where they cannot be had."""

import io
import sys
import tarfile
from pathlib import Path

import pytest

from tools import onnxruntime_headers
from tools.onnxruntime_headers import HeadersError, find_headers

HEADER = "onnxruntime_c_api.h"

# Answers `npm pack` with the archive beside it, and writes down that it was called.
_NPM = """#!{python}
import pathlib, shutil, sys
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write("called\\n")
if not (here / "package.tgz").exists():
    sys.exit("npm error: no\\nnetwork")
shutil.copy(here / "package.tgz", sys.argv[sys.argv.index("--pack-destination") + 1])
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no npm."""
    monkeypatch.delenv("ONNXRUNTIME_ROOT", raising=False)
    monkeypatch.setenv("LPIPS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.fixture
def npm(here: Path) -> Path:
    """The folder of an npm, which has no package."""
    program = here / "bin/npm"
    program.write_text(_NPM.format(python=sys.executable))
    program.chmod(0o755)
    return program.parent


@pytest.fixture
def package(npm: Path) -> Path:
    """The package that npm has."""
    path = npm / "package.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in (f"{onnxruntime_headers._INSIDE}/{HEADER}", "package/LICENSE", "package/large.bin"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"text"))
    return path


def test_a_release_is_named_by_a_variable(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("ONNXRUNTIME_ROOT", "release")
    with pytest.raises(HeadersError, match=f"ONNXRUNTIME_ROOT=release: holds no include/{HEADER}"):
        find_headers()
    (here / "release/include").mkdir(parents=True)
    (here / "release/include" / HEADER).touch()
    assert find_headers() == here / "release/include"


def test_without_npm_it_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HeadersError, match=r"npm is not installed .* or set ONNXRUNTIME_ROOT"):
        find_headers()
    assert onnxruntime_headers.main() == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "error: ")


def test_npm_that_fails_is_quoted_in_one_line(npm: Path) -> None:
    with pytest.raises(HeadersError, match="npm error: no network; check the network, or set ONNXRUNTIME_ROOT"):
        find_headers()


def test_a_package_of_another_hash_leaves_nothing(package: Path, here: Path) -> None:
    with pytest.raises(HeadersError, match="is not the package that it was"):
        find_headers()
    assert list((here / "cache").iterdir()) == []


def test_a_second_call_finds_what_the_first_has_fetched(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_headers, "_SHA512", onnxruntime_headers._sha512(package))
    folder = find_headers()
    assert [path.name for path in folder.iterdir()] == [HEADER]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["LICENSE", "include"]
    assert find_headers() == folder
    assert (package.parent / "calls").read_text() == "called\n"
