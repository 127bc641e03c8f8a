"""Which provider opens a graph, what is said of it, and with which options."""

import json
import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx_files import plain, relabelled
from PIL import Image as PILImage
from score_command import Models, Run, save

from lpips_runtime import Scorer, opening
from lpips_runtime.cpu import default_threads
from lpips_runtime.errors import ForeignModelError, ProviderError, UsageError
from lpips_runtime.fast_math import SMALLEST
from lpips_runtime.features import Split
from lpips_runtime.opening import _RELU, probe, waiting
from lpips_runtime.ort import onnxruntime
from lpips_runtime.providers import PROVIDERS, Device, Provider
from lpips_runtime.session import Session

CPU = PROVIDERS["cpu"]

# The CPU provider as if it were another one: what runs is real.
GPU = replace(CPU, name="cuda", devices=lambda: [Device(0, "A GPU", "TF32"), Device(1, "An old GPU")])
NO_GPU = replace(GPU, devices=list, no_device="it needs an NVIDIA GPU")
OPENVINO = replace(CPU, name="openvino", auto="fast-math", devices=lambda: [Device(0, "A CPU", "bfloat16")])


@pytest.fixture
def plain_model(tmp_path: Path, quick_model: Path) -> Path:
    """What `run` scores with: no net is needed here."""
    return plain(quick_model, tmp_path / "plain.onnx")


@pytest.fixture
def installed() -> Iterator[Callable[..., None]]:
    """Make these providers, and the CPU's, the only ones."""
    before = dict(PROVIDERS)

    def install(*rows: Provider) -> None:
        PROVIDERS.clear()
        PROVIDERS.update({row.name: row for row in (*rows, CPU)})

    yield install
    PROVIDERS.clear()  # a table has an order, too
    PROVIDERS.update(before)


def test_auto_takes_the_first_that_works(installed: Callable[..., None], quick_model: Path) -> None:
    installed(GPU, OPENVINO)
    runtime = Scorer(quick_model).provenance["runtime"]
    assert runtime["provider"] == "cuda"
    assert runtime["device_name"] == "A GPU"
    assert runtime["fast_math"] is False
    installed(OPENVINO)
    assert Scorer(quick_model).provenance["runtime"]["provider"] == "cpu"


def test_auto_says_what_it_skips_and_why(
    installed: Callable[..., None], quick_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    installed(NO_GPU)
    runtime = Scorer(quick_model).provenance["runtime"]
    assert runtime["provider"] == "cpu"
    assert runtime["skipped"] == ["provider 'cuda' finds no device here: it needs an NVIDIA GPU"]
    assert caplog.messages == ["provider 'cuda' finds no device here: it needs an NVIDIA GPU; going on with cpu"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_provider_that_was_asked_for_is_no_other(installed: Callable[..., None], quick_model: Path) -> None:
    installed(NO_GPU)
    with pytest.raises(ProviderError, match="provider 'cuda' finds no device here"):
        Scorer(quick_model, provider="cuda")


def test_a_provider_that_onnx_runtime_leaves_out_is_told_with_the_library_it_lacks(
    installed: Callable[..., None], quick_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(GPU, ort_name="CUDAExecutionProvider", lacks=lambda: "Failed to load libcudnn.so.9", install="do so")
    installed(row)
    monkeypatch.setattr("lpips_runtime.providers.is_installed", lambda _: True)
    create = opening._create
    monkeypatch.setattr(opening, "_create", lambda data, _, *more: create(data, CPU, *more))
    with pytest.raises(ProviderError, match=r"fell back to CPUExecutionProvider; Failed to load libcudnn\.so"):
        Session(quick_model, provider="cuda")
    with pytest.raises(ProviderError, match=r"passes it over; Failed to load libcudnn\.so\.9; do so$"):
        probe(row, Device(0, "A GPU"))


def test_a_file_that_is_no_model_is_the_files_fault_under_auto(installed: Callable[..., None], tmp_path: Path) -> None:
    installed(GPU)
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(ForeignModelError, match="not an ONNX model"):
        Session(tmp_path / "no.onnx")


def test_the_command_notes_what_it_skips_and_what_computes(installed: Callable[..., None], run: Run) -> None:
    installed(NO_GPU)
    assert run("a.png", "b.png")[2] == (
        "note: provider 'cuda' finds no device here: it needs an NVIDIA GPU; going on with cpu\n"
    )
    installed(GPU)
    assert run("a.png", "b.png")[2] == "note: computed by cuda (A GPU)\n"
    code, out, err = run("a.png", "b.png", "--provider", "cuda:2")
    assert (code, out) == (2, "")
    assert err == "error: provider 'cuda:2': there is no device 2, only 0 (A GPU), 1 (An old GPU)\n"


def test_plain_float32_on_the_cpu_needs_no_word(run: Run) -> None:
    assert run("a.png", "b.png", "--provider", "cpu")[2] == ""


# Fast-math


def test_fast_math_is_said_in_the_note_and_in_the_result(installed: Callable[..., None], run: Run) -> None:
    installed(OPENVINO)
    code, out, err = run("a.png", "b.png", "--fast-math", "--format", "json")
    runtime = json.loads(out)["runtime"]
    assert (code, runtime["provider"], runtime["fast_math"], runtime["types"]) == (0, "openvino", True, "bfloat16")
    assert "note: computed by openvino (A CPU) in bfloat16, by fast-math\n" in err


def test_fast_math_that_changes_nothing_says_so(installed: Callable[..., None], run: Run) -> None:
    installed(replace(OPENVINO, devices=lambda: [Device(0, "An old CPU")]))
    code, out, err = run("a.png", "b.png", "--fast-math", "--format", "json")
    runtime = json.loads(out)["runtime"]
    assert (code, runtime["provider"], runtime["fast_math"], "types" in runtime) == (0, "cpu", False, False)
    assert err.splitlines()[:2] == [
        "note: provider 'openvino' has no faster types here; going on with cpu",
        "note: fast-math changes nothing: provider 'cpu' has no faster types here (see --list-providers)",
    ]


def test_small_distances_of_fast_math_are_noted_once(installed: Callable[..., None], run: Run, here: Path) -> None:
    installed(GPU)
    save("near.png", 0)
    pixels = np.array(PILImage.open("near.png"))
    pixels[0, 0, 0] ^= 1
    PILImage.fromarray(pixels).save("near.png")
    said = "a distance below 0.002 is not to be trusted in fast-math"
    code, out, err = run("a.png", "near.png", "near.png", "b.png", "a.png", "--fast-math")
    distances = [float(line.partition("\t")[0]) for line in out.splitlines()]
    assert code == 0
    assert 0 < distances[0] < SMALLEST < distances[2]
    assert distances[3] == 0  # the same image: exact in any type
    assert f"note: a.png, near.png and 1 other pair: {said}" in err
    assert err.count(said) == 1
    assert said not in run("a.png", "near.png")[2]
    assert said not in run("a.png", "near.png", "--fast-math", "--provider", "cuda:1")[2]


def test_small_distances_of_fast_math_are_noted_of_the_pairs_they_are_of_and_logged_once(
    installed: Callable[..., None], quick_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    installed(GPU)
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    b = a.copy()
    b[0, 0, 0, 0] ^= 1
    b[1] = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with Scorer(quick_model, fast_math=True) as scorer:
        detail = scorer.detail(a, b)
        assert [note.kind for note in detail.notes] == ["fast-math"]
        assert [len(detail.pair(k).notes) for k in range(3)] == [1, 0, 0]
        assert scorer.detail(a[1:], b[1:]).notes == ()
        caplog.clear()
        scorer.score(a[1:], b[1:])
        assert caplog.messages == []
        for _ in range(2):
            scorer.score(a, b)
        assert caplog.messages == [detail.notes[0].text]
    with Scorer(quick_model, provider="cpu") as scorer:
        assert scorer.detail(a, b).notes == ()


def test_small_distances_of_fast_math_are_noted_where_features_are_compared_too(
    installed: Callable[..., None], models: Models, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(OPENVINO)
    pixels = np.array(PILImage.open("a.png"))
    pixels[0, 0, 0] ^= 1
    PILImage.fromarray(pixels).save("near.png")
    compared = list[int]()
    original = Split.compare
    monkeypatch.setattr(Split, "compare", lambda *of: compared.append(of[2].count) or original(*of))
    with Scorer(models("alex"), fast_math=True) as scorer:
        found = list(scorer.stream([("a.png", name) for name in ("near.png", "b.png", "a.png", "near.png")]))
    assert sum(compared) == 4
    assert [[note.kind for note in result.notes].count("fast-math") for result in found] == [1, 0, 0, 1]


def test_a_provider_that_cannot_keep_float32_is_refused_without_fast_math(
    installed: Callable[..., None], quick_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LPIPS_TEST_TF32", raising=False)
    installed(replace(GPU, exact=("LPIPS_TEST_TF32", "0")))
    with pytest.raises(ProviderError, match="would compute in TF32; set LPIPS_TEST_TF32=0"):
        Session(quick_model, provider="cuda")
    with pytest.raises(ProviderError, match="would compute in TF32"):  # one without TF32, for all we know
        Session(quick_model, provider="cuda:1", fast_math=True)
    assert Session(quick_model, provider="cuda", fast_math=True).fast_math
    monkeypatch.setenv("LPIPS_TEST_TF32", "0")
    assert not Session(quick_model, provider="cuda").fast_math


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_fast_math_is_for_float32_models(precision: str, quick_model: Path, tmp_path: Path) -> None:
    model = relabelled(quick_model, tmp_path / "other.onnx", precision=precision)
    with pytest.raises(UsageError, match=f"fast-math is for float32 models, this one is {precision}; leave it out"):
        Session(model, fast_math=True)


def test_a_pickled_scorer_keeps_fast_math(installed: Callable[..., None], quick_model: Path) -> None:
    installed(GPU)
    scorer = pickle.loads(pickle.dumps(Scorer(quick_model, fast_math=True)))
    assert scorer.fast_math
    assert scorer.provenance["runtime"]["types"] == "TF32"


# Options


@pytest.mark.parametrize(("version", "spin"), [("1.20.1", None), ("1.31.1", None), ("1.32.0", "200"), ("2.0.0", "200")])
def test_threads_spin_for_no_longer_than_it_pays(version: str, spin: str | None) -> None:
    """ONNX Runtimes that may not know the limit would spin on."""
    options = waiting(version)
    assert options["session.intra_op.allow_spinning"] == ("0" if spin is None else "1")
    assert options.get("session.intra_op.spin_duration_us") == spin


def test_threads_are_those_of_this_process_and_wait_as_told(quick_model: Path) -> None:
    options = Session(quick_model, provider="cpu")._session.get_session_options()
    assert options.intra_op_num_threads == (default_threads() or 0)
    for key, value in waiting(onnxruntime().__version__).items():
        assert options.get_session_config_entry(key) == value
    assert Session(quick_model, provider="cpu", threads=3)._session.get_session_options().intra_op_num_threads == 3


class Recorded:
    """SessionOptions of ONNX Runtime that keep what they are given."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.devices: list[tuple[list[object], dict[str, str]]] = []

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value

    def add_provider_for_devices(self, devices: list[object], options: dict[str, str]) -> None:
        self.devices.append((devices, options))


@pytest.mark.parametrize("plugin", ["some_plugin", ""])
def test_nodes_that_a_plugin_does_not_take_are_not_left_to_the_cpu_in_silence(
    plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    ort = SimpleNamespace(
        __version__=onnxruntime().__version__,
        SessionOptions=Recorded,
        InferenceSession=lambda _, **options: given.update(options),
    )
    monkeypatch.setattr(opening, "onnxruntime", lambda: ort)
    row = replace(CPU, plugin=plugin, options=lambda *_: {"key": "value"})
    opening._create(b"", row, Device(0, "A device", handle="handle"), 2, False)
    options = given["sess_options"]
    assert given["enable_fallback"] == 0
    if plugin:
        assert options.entries["session.disable_cpu_ep_fallback"] == "1"
        assert options.devices == [(["handle"], {"key": "value"})]
        assert (given["providers"], options.intra_op_num_threads) == (None, 1)
    else:
        assert "session.disable_cpu_ep_fallback" not in options.entries
        assert (given["providers"], options.devices) == ([("CPUExecutionProvider", {"key": "value"})], [])
        assert options.intra_op_num_threads == 2


def test_the_probe_is_the_graph_that_it_says() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(_RELU)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu"]
    probe(CPU, Device(0, "CPU"))


def test_the_probe_says_why_a_provider_does_not_work() -> None:
    with pytest.raises(ProviderError, match="provider 'cuda' does not work: "):
        probe(replace(CPU, name="cuda", ort_name="NoSuchExecutionProvider"), Device(0, "GPU"))


def test_a_session_of_a_plugin_is_refused_in_a_forked_process(
    quick_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(quick_model)
    monkeypatch.setattr(session, "_process", -1)
    image = np.zeros((1, 3, 40, 40), np.float32)
    session.run({"reference": image, "distorted": image}, ["distance"])
    monkeypatch.setattr(session, "_plugin", "some_plugin")
    with pytest.raises(ProviderError, match="some_plugin was loaded before this process was forked"):
        session.run({"reference": image, "distorted": image}, ["distance"])


def test_an_engine_knows_no_fast_math(tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(b"")
    with pytest.raises(UsageError, match="an engine's types were fixed when it was built; leave fast-math out"):
        Scorer(tmp_path / "x.engine", fast_math=True)
