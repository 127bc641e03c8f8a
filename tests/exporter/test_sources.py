"""One source at a time, and the cache; how load_backbone goes through them is tested in test_weights.py."""

import gc
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lpips_export import sources
from lpips_export.backbones import BACKBONES, Backbone
from lpips_export.errors import WeightsError
from lpips_export.sources import SOURCES, AbsentError, cache_folder, write_cache

SQUEEZE = BACKBONES["squeeze"]
SOURCE = {source.name: source for source in SOURCES}
STATE = {"features.0.weight": torch.arange(12.0).reshape(3, 4), "features.0.bias": torch.ones(3)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LPIPS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def log() -> list[str]:
    return []


def test_the_order_is_the_documented_one():
    assert list(SOURCE) == ["directory", "hub-cache", "cache", "torchvision", "package-index"]


@pytest.mark.parametrize("name", ["hub-cache", "cache"])
def test_a_cache_without_the_file_says_which_is_missing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, log: list[str], name: str
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = {
        "hub-cache": tmp_path / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth",
        "cache": cache / "squeezenet1_1_features.safetensors",
    }[name]
    with pytest.raises(AbsentError) as caught:
        SOURCE[name].find(SQUEEZE, log.append)
    assert str(caught.value) == f"{path} does not exist"
    assert log == []


# --- torchvision's download

CONTENT = BytesIO()
torch.save(STATE, CONTENT)


def whole(handler: BaseHTTPRequestHandler, content: bytes, released: threading.Event) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def truncated(handler: BaseHTTPRequestHandler, content: bytes, released: threading.Event) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])


def silent(handler: BaseHTTPRequestHandler, content: bytes, released: threading.Event) -> None:
    released.wait(60)


def stalled(handler: BaseHTTPRequestHandler, content: bytes, released: threading.Event) -> None:
    truncated(handler, content, released)
    handler.wfile.flush()
    released.wait(60)


def absent(handler: BaseHTTPRequestHandler, content: bytes, released: threading.Event) -> None:
    handler.send_error(404)


def no_http(handler: BaseHTTPRequestHandler, content: bytes, released: threading.Event) -> None:
    handler.wfile.write(b"220 ready\r\n")


def no_length(handler: BaseHTTPRequestHandler, content: bytes, released: threading.Event) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\n")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """serve(answer, prefix) -> SqueezeNet's row with an address at which `answer` speaks."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    released = threading.Event()
    servers = []

    def start(answer: Callable, prefix: str | None = None) -> Backbone:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self, CONTENT.getvalue(), released)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        prefix = prefix or hashlib.sha256(CONTENT.getvalue()).hexdigest()[:8]
        return replace(SQUEEZE, url=f"http://127.0.0.1:{server.server_port}/models/squeezenet1_1-{prefix}.pth")

    yield start
    released.set()
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_download_gives_the_state_and_leaves_no_file(
    serve: Callable, temporary: Path, log: list[str], capfd: pytest.CaptureFixture[str]
):
    backbone = serve(whole)
    found = SOURCE["torchvision"].find(backbone, log.append)
    assert found.origin == backbone.url
    assert found.states.keys() == {"squeeze"}
    assert found.states["squeeze"].keys() == STATE.keys()
    assert all(torch.equal(found.states["squeeze"][key], STATE[key]) for key in STATE)
    assert log == [f"squeeze backbone: downloading {backbone.url}"]
    assert capfd.readouterr() == ("", "")  # no bar where stderr is no terminal
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (truncated, 'invalid hash value (expected "'),
        (silent, "timed out"),
        (stalled, "timed out"),
        (absent, "HTTP Error 404: Not Found"),
        (no_http, "220 ready"),
        (no_length, "invalid literal for int()"),
    ],
)
def test_a_server_that_misbehaves_is_an_error_soon(
    serve: Callable,
    temporary: Path,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable,
    reason: str,
):
    monkeypatch.setattr(sources, "_TIMEOUT", 0.3)
    backbone = serve(answer)
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        SOURCE["torchvision"].find(backbone, log.append)
    assert time.monotonic() - start < 10  # `silent` and `stalled` hold the line for a minute
    message = str(caught.value)
    assert message.startswith(f"{backbone.url}: ")
    assert reason in message
    assert "\n" not in message
    assert list(temporary.iterdir()) == []
    del caught
    gc.collect()  # a connection left open would warn now, and pytest make an error of it


def test_other_sockets_have_their_timeout_back_after_a_download(
    serve: Callable, log: list[str], monkeypatch: pytest.MonkeyPatch
):
    during = []
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda *_, **__: during.append(socket.getdefaulttimeout()) or 1 / 0
    )
    before = socket.getdefaulttimeout()
    with pytest.raises(ZeroDivisionError):
        SOURCE["torchvision"].find(SQUEEZE, log.append)
    assert during == [20.0]
    assert socket.getdefaulttimeout() == before


def test_a_download_of_another_hash_than_its_name_says_is_refused(serve: Callable, log: list[str]):
    with pytest.raises(WeightsError) as caught:
        SOURCE["torchvision"].find(serve(whole, prefix="0badf00d"), log.append)
    found = hashlib.sha256(CONTENT.getvalue()).hexdigest()
    assert str(caught.value).endswith(f'invalid hash value (expected "0badf00d", got "{found}")')


# --- what is kept


def test_what_is_kept_is_read_again(cache: Path, log: list[str]):
    write_cache(SQUEEZE, STATE, "there", log.append)
    path = cache / "squeezenet1_1_features.safetensors"
    assert list(cache.iterdir()) == [path]
    found = SOURCE["cache"].find(SQUEEZE, log.append)
    assert found.origin == str(path)
    assert all(torch.equal(found.states["squeeze"][key], STATE[key]) for key in STATE)
    assert log == []


def test_what_is_kept_replaces_what_was_there(cache: Path, log: list[str]):
    cache.mkdir()
    path = cache / "squeezenet1_1_features.safetensors"
    path.write_bytes(b"damaged")
    write_cache(SQUEEZE, STATE, "there", log.append)
    assert load_file(path).keys() == STATE.keys()
    assert list(cache.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_others_may_read_a_shared_cache_as_the_umask_says(cache: Path, log: list[str]):
    before = os.umask(0o022)
    try:
        write_cache(SQUEEZE, STATE, "there", log.append)
    finally:
        os.umask(before)
    assert (cache / "squeezenet1_1_features.safetensors").stat().st_mode & 0o777 == 0o644


def a_file_for_the_folder(cache: Path) -> None:
    cache.write_text("a file")


def a_folder_for_the_file(cache: Path) -> None:
    (cache / "squeezenet1_1_features.safetensors" / "full").mkdir(parents=True)


@pytest.mark.parametrize("obstacle", [a_file_for_the_folder, a_folder_for_the_file])
def test_a_cache_that_cannot_be_written_is_a_line_in_the_log(
    cache: Path, log: list[str], obstacle: Callable[[Path], None]
):
    obstacle(cache)
    before = sorted(cache.rglob("*"))
    write_cache(SQUEEZE, STATE, "there", log.append)
    path = cache / "squeezenet1_1_features.safetensors"
    assert len(log) == 1
    assert log[0].startswith(f"squeeze backbone: not kept for the next time, {path}: ")
    assert sorted(cache.rglob("*")) == before


def test_a_write_that_breaks_off_leaves_what_was_there(cache: Path, log: list[str], monkeypatch: pytest.MonkeyPatch):
    write_cache(SQUEEZE, STATE, "there", log.append)

    def full_disk(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    write_cache(SQUEEZE, {"features.0.bias": torch.zeros(3)}, "there", log.append)
    assert log[0].endswith("[Errno 28] No space left on device")
    assert [path.name for path in cache.iterdir()] == ["squeezenet1_1_features.safetensors"]
    assert load_file(cache / "squeezenet1_1_features.safetensors").keys() == STATE.keys()


def test_the_user_cache_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("LPIPS_CACHE_DIR", "")
    monkeypatch.setattr(sources, "user_cache_dir", lambda *arguments, **options: str(tmp_path / "user"))
    assert cache_folder() == tmp_path / "user"
