"""ONNX Runtime's C headers for the builds and tests of runtime/cpp: prints the folder to give a compiler with -I.

    python -m tools.onnxruntime_headers

$ONNXRUNTIME_ROOT, an unpacked official release, wins. Else they are taken once from an npm package that carries them
(MIT, like ONNX Runtime itself) into the user's cache. Only headers and licence are kept of its 150 MB.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from platformdirs import user_cache_dir

__all__ = ["HeadersError", "find_headers", "main"]

_PACKAGE = "com.github.asus4.onnxruntime"
_VERSION = "0.4.9"
_API = 29
_SHA512 = "BkzxduSZ9IkeDP6Q8lz2TFU2ie7hSSvS7ZIfzMooExoq0CNzJnuuGaUJ7IsojBgqO4ouD1jXah8OYyJbCN29Fg=="
_INSIDE = PurePosixPath("package/Plugins/iOS~/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers")
_WANTED = "onnxruntime_c_api.h"

# Seconds for npm to fetch the package.
_TIMEOUT = 600

_INSTEAD = "or set ONNXRUNTIME_ROOT to an unpacked official release of ONNX Runtime"


class HeadersError(Exception):
    """The headers cannot be had. The message names the next step."""


def find_headers() -> Path:
    """The folder that holds onnxruntime_c_api.h. Raises HeadersError."""
    root = os.environ.get("ONNXRUNTIME_ROOT")
    if root:
        folder = Path(root, "include")
        if not (folder / _WANTED).is_file():
            raise HeadersError(f"ONNXRUNTIME_ROOT={root}: holds no include/{_WANTED}; name an unpacked release")
        return folder.absolute()  # a build runs elsewhere
    cache = Path(os.environ.get("LPIPS_CACHE_DIR") or user_cache_dir("lpips-export", appauthor=False))
    folder = cache / f"onnxruntime-headers-{_API}" / "include"
    if not (folder / _WANTED).is_file():
        _fetch(folder.parent)
    return folder.absolute()


def _fetch(target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise HeadersError(f"npm is not installed (Debian: apt-get install npm); install it, {_INSTEAD}")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that what is complete can be moved there in one step.
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        archive = _packed(npm, work)
        if _sha512(archive) != _SHA512:
            raise HeadersError(
                f"{_PACKAGE} {_VERSION} is not the package that it was (its sha512 is another); use no file of it, "
                f"{_INSTEAD}"
            )
        made = work / "made"
        (made / "include").mkdir(parents=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.parent == _INSIDE or member.name == "package/LICENSE":
                    content = tar.extractfile(member)
                    assert content is not None
                    place = made / path.name if path.name == "LICENSE" else made / "include" / path.name
                    place.write_bytes(content.read())
        try:
            made.rename(target)
        except OSError:
            if not (target / "include" / _WANTED).is_file():  # not another process that was faster
                raise


def _packed(npm: str, work: Path) -> Path:
    """The package's archive, fetched by npm, which reads the user's settings of registry and proxy."""
    command = [npm, "pack", f"{_PACKAGE}@{_VERSION}", "--pack-destination", str(work), "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False, cwd=work)
    except subprocess.TimeoutExpired:
        raise HeadersError(f"npm did not fetch {_PACKAGE} in {_TIMEOUT} seconds; try again, {_INSTEAD}") from None
    archives = list(work.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        said = " ".join(done.stderr.split())[:300] or f"exit code {done.returncode}"
        raise HeadersError(f"npm cannot fetch {_PACKAGE} {_VERSION}: {said}; check the network, {_INSTEAD}")
    return archives[0]


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()


def main() -> int:
    """Print the folder; 3 and a line on stderr where it cannot be had."""
    try:
        print(find_headers())
    except (HeadersError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
