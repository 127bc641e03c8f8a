"""What this project is compared with gives the distances of the reference, called as its users call it."""

from collections.abc import Callable
from pathlib import Path

import needed
import numpy as np
import pytest

from benchmarks import peers
from benchmarks.job import AbsentError, Job, images
from benchmarks.speed import SAME
from benchmarks.subjects import SUBJECTS
from benchmarks.turns import take_turns

JobOf = Callable[..., Job]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of a run: the plain export is made once for all tests."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def job_of(
    real_weights: Callable[[str], Path], folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> JobOf:
    """A net -> two small pairs, on its real weights. Subjects in processes of their own find the benchmarks too."""
    monkeypatch.chdir(request.config.rootpath)

    def make(net: str) -> Job:
        monkeypatch.setenv("LPIPS_WEIGHTS_DIR", str(real_weights(net).parent))
        return Job(net, "", 48, 2, 1, str(folder))

    return make


def distances(name: str, job: Job) -> np.ndarray:
    found = SUBJECTS[name].make(job)(*images(job))
    assert found.shape == (job.batch,)
    return found


@pytest.mark.parametrize(("name", "module", "net"), [("torchmetrics", "torchmetrics", "alex"), ("piq", "piq", "vgg")])
def test_packages_of_pytorch_give_the_distances_of_the_reference(
    name: str, module: str, net: str, job_of: JobOf
) -> None:
    job = job_of(net)
    expected = distances("eager", job)
    assert (expected > 0.01).all()
    needed.module("lpips_export.vision")  # torchvision, in the way that works beside a torch for CPUs
    needed.module(module)
    np.testing.assert_allclose(distances(name, job), expected, rtol=SAME)


def test_one_pair_gives_one_distance(job_of: JobOf) -> None:
    needed.module("lpips_export.vision")
    needed.module("torchmetrics")
    job = job_of("alex")
    score = SUBJECTS["torchmetrics"].make(job)
    a, b = images(job)
    both = score(a, b)
    # Nothing of an earlier call is in a later one.
    assert score(a[1:], b[1:]) == pytest.approx(both[1:], rel=1e-5)
    assert score(a[:1], b[:1]).shape == (1,)


def test_net_that_a_package_has_not_is_absent_in_words(job_of: JobOf) -> None:
    with pytest.raises(AbsentError, match=r"^piq has VGG16 alone$"):
        SUBJECTS["piq"].make(job_of("alex"))
    found = take_turns({"piq": ("piq", job_of("alex"))}, 1)["piq"]
    assert found.absent == "piq has VGG16 alone"


def test_plain_export_gives_the_distances_of_the_reference_and_is_made_once(
    job_of: JobOf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of("alex")
    np.testing.assert_allclose(distances("plain", job), distances("eager", job), rtol=SAME)
    assert [path.name for path in folder.iterdir()] == ["plain_alex.onnx"]
    monkeypatch.setattr(peers, "lpips_metric", None)  # exporting once more would call it
    assert (distances("plain", job) > 0.01).all()


def test_openvino_itself_gives_the_distances_of_the_reference(job_of: JobOf) -> None:
    pytest.importorskip("openvino", reason="openvino has no wheel for every machine")
    job = job_of("alex")
    peers.plain_export(job)
    # In processes of their own: the plugin of ONNX Runtime brings another OpenVINO, under the same names.
    found = take_turns({name: (name, job) for name in ("openvino-direct", "openvino-direct-fast")}, 1)
    assert [each.absent for each in found.values()] == ["", ""]
    expected = distances("eager", job)
    np.testing.assert_allclose(found["openvino-direct"].distances, expected, rtol=SAME)
    np.testing.assert_allclose(found["openvino-direct-fast"].distances, expected, rtol=0.1)


def test_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def save(self, path: Path) -> None:
            path.write_bytes(b"half a graph")
            raise OSError("no space left on device")

    monkeypatch.setattr(peers, "lpips_metric", lambda _: None)
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: Full())
    with pytest.raises(OSError, match="no space"):
        peers.plain_export(Job("alex", "", 48, 1, 1, str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_on_a_gpu_that_is_not_there_they_are_absent_in_words(job_of: JobOf) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for name in ("torchmetrics-cuda", "eager-cuda"):
        with pytest.raises(AbsentError, match="finds no CUDA device"):
            SUBJECTS[name].make(job_of("alex"))
    with pytest.raises(AbsentError, match="has no CUDAExecutionProvider"):
        SUBJECTS["plain-cuda"].make(job_of("alex"))
