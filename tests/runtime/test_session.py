"""Hostile models: whatever the file holds, opening it ends in a typed error of one line or in the right number."""

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_files import FLOAT, UINT8, node, relabelled, squared_difference, tensor

from lpips_runtime import Scorer
from lpips_runtime.contract import ModelInfo
from lpips_runtime.errors import (
    DamagedModelError,
    ForeignModelError,
    InputError,
    LpipsError,
    ModelError,
    ProviderError,
    UsageError,
)
from lpips_runtime.ort import words_of
from lpips_runtime.session import MAX_THREADS, Session

Models = Callable[[str], Path]

BLACK, GRAY = np.zeros((32, 40, 3), np.uint8), np.full((32, 40, 3), 128, np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        (tmp_path / "model.onnx").write_bytes(data)
        return tmp_path / "model.onnx"

    return write


def refusal(path: Path, **options: object) -> LpipsError:
    """The error of opening a model; one line that begins with its name, without ONNX Runtime's paths."""
    with pytest.raises(LpipsError) as caught:
        Session(path, **options)  # pyright: ignore[reportArgumentType]
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 450
    assert not re.search(r"onnxruntime|ONNXRuntime|\.cc\b|::", message.removeprefix(str(path)))
    return caught.value


# What is no model


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\0" * 1000, b"model", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"{}", b"\xff" * 1000, b"\x08\x08"],
    ids=["empty", "zero", "zeros", "text", "png", "json", "ones", "version only"],
)
def test_a_file_that_is_no_onnx(file: Callable[[bytes], Path], data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    error = refusal(file(data))
    assert type(error) is ForeignModelError
    assert error.exit_code == 3
    assert capfd.readouterr() == ("", "")


def test_a_model_cut_short_anywhere_is_refused(models: Models, file: Callable[[bytes], Path]) -> None:
    data = models("squeeze_baseline").read_bytes()
    structure = onnx_files.structural_bytes(data)
    for end in (1, 2, 7, 100, len(data) // 2, len(data) - 5000, len(data) - 100, len(data) - 1, *structure[::1000]):
        assert isinstance(refusal(file(data[:end])), ModelError), end


def test_bytes_after_the_end_are_refused(models: Models, file: Callable[[bytes], Path]) -> None:
    assert isinstance(refusal(file(models("squeeze_baseline").read_bytes() + b"\xff" * 20)), ForeignModelError)


def test_two_models_in_one_file_are_refused(models: Models, file: Callable[[bytes], Path]) -> None:
    # Protobuf merges what is concatenated: every node would be there twice.
    assert isinstance(refusal(file(models("squeeze_baseline").read_bytes() * 2)), ForeignModelError)


def test_a_model_of_somebody_else(file: Callable[[bytes], Path]) -> None:
    error = refusal(file(onnx_files.foreign()))
    assert type(error) is ForeignModelError
    assert str(error).endswith("model.onnx: an ONNX model, but not one of lpips-export (no lpips.* metadata)")


def test_the_files_made_here_are_onnx(models: Models, tmp_path: Path, file: Callable[[bytes], Path]) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx_files.foreign(), full_check=True)
    onnx.checker.check_model(squared_difference(), full_check=True)
    model = onnx.load(relabelled(models("alex"), tmp_path / "copy.onnx", net="vgg", license=None))
    original = onnx.load(models("alex"))
    assert model.graph == original.graph
    assert model.opset_import == original.opset_import
    said = {entry.key: entry.value for entry in original.metadata_props} | {"lpips.net": "vgg"}
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found.pop("lpips.content_sha256") != said.pop("lpips.content_sha256")
    said.pop("lpips.license")
    assert found == said


def test_a_custom_operator_is_refused(file: Callable[[bytes], Path]) -> None:
    error = refusal(file(squared_difference({"distance": [node("Teleport", "d", "distance")]})))
    assert isinstance(error, ForeignModelError)
    assert "Teleport" in str(error)


def test_a_model_that_refers_to_other_files_is_refused(file: Callable[[bytes], Path], tmp_path: Path) -> None:
    """Weights kept outside of the file would be read from wherever it says, unseen by any sha256."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(squared_difference())
    weight = onnx.numpy_helper.from_array(np.zeros((1,), np.float32), "w")
    weight.raw_data = b""
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"\0\0\0\0")
    model.graph.initializer.append(weight)
    model.graph.node[-1].output[0] = "e"
    model.graph.node.append(onnx.helper.make_node("Add", ["e", "w"], ["distance"]))
    assert isinstance(refusal(file(model.SerializeToString())), ForeignModelError)


# Metadata


def test_a_newer_contract_says_what_to_upgrade(models: Models, tmp_path: Path) -> None:
    error = refusal(relabelled(models("squeeze_baseline"), tmp_path / "m.onnx", format="2"))
    assert type(error) is ForeignModelError
    assert "contract version '2', this lpips-runtime reads version 1; upgrade lpips-runtime" in str(error)


@pytest.mark.parametrize("key", [key for key in ModelInfo.__dataclass_fields__ if key != "format"])
def test_a_missing_key_is_named(file: Callable[[bytes], Path], tmp_path: Path, key: str) -> None:
    error = refusal(relabelled(file(squared_difference()), tmp_path / "m.onnx", **{key: None}))
    assert type(error) is DamagedModelError
    assert f"metadata key lpips.{key} is missing" in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "triple"),
        ("net", "resnet"),
        ("net", ""),
        ("version", "1.0"),
        ("lin", "none"),
        ("precision", "bf16"),
        ("target", "gpu"),
        ("input", "float16"),
        ("min_size", "0"),
        ("min_size", "-31"),
        ("min_size", "31.0"),
        ("min_size", ""),
        ("min_size", "9" * 5000),
        ("stride", "x"),
        ("halo", "0"),
        ("eps", "0"),
        ("eps", "-1e-10"),
        ("eps", "nan"),
        ("eps", "tiny"),
    ],
)
def test_a_value_that_the_contract_does_not_know(
    file: Callable[[bytes], Path], tmp_path: Path, key: str, value: str
) -> None:
    assert (
        type(refusal(relabelled(file(squared_difference()), tmp_path / "m.onnx", **{key: value}))) is DamagedModelError
    )


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("alex", {"net": "squeeze"}),
        ("squeeze_baseline", {"net": "alex", "min_size": "31"}),
        ("alex", {"kind": "compare"}),
        ("alex", {"kind": "features"}),
        ("alex_features", {"kind": "pair"}),
        ("alex_features", {"kind": "compare"}),
        ("alex", {"input": "uint8"}),
        ("alex_uint8", {"input": "float32"}),
    ],
)
def test_metadata_that_lies_about_tensors(models: Models, tmp_path: Path, name: str, lie: dict[str, str]) -> None:
    error = refusal(relabelled(models(name), tmp_path / "m.onnx", **lie), kind=None)
    assert type(error) is DamagedModelError
    assert "its tensors are not those that its metadata promises" in str(error)


@pytest.mark.parametrize(
    ("name", "net", "smallest"), [("alex", "alex", 31), (None, "vgg", 16), ("squeeze_baseline", "squeeze", 17)]
)
def test_metadata_that_allows_images_too_small(
    models: Models, file: Callable[[bytes], Path], tmp_path: Path, name: str | None, net: str, smallest: int
) -> None:
    """On such images ONNX Runtime dies, or returns numbers where the reference raises."""
    path = models(name) if name else file(squared_difference())
    assert Session(path).info.min_size == smallest
    error = refusal(relabelled(path, tmp_path / "m.onnx", min_size=str(smallest - 1)))
    assert type(error) is DamagedModelError
    assert f"images of {smallest - 1} pixels, {net} needs at least {smallest}" in str(error)


def test_the_smallest_sides_are_those_of_the_exporter() -> None:
    backbones = pytest.importorskip("lpips_export.backbones").BACKBONES
    from lpips_runtime.checks import NETS

    expected = {net: (len(row.channels), row.min_size) for net, row in backbones.items()}
    assert {name: (net.depths, net.smallest) for name, net in NETS.items()} == expected


@pytest.mark.parametrize("name", ["alex", "alex_uint8", "alex_features"])
def test_metadata_that_names_another_net_of_as_many_depths(models: Models, tmp_path: Path, name: str) -> None:
    """VGG16 takes images of 16 pixels, of which ONNX Runtime dies in AlexNet."""
    error = refusal(relabelled(models(name), tmp_path / "m.onnx", net="vgg", min_size="16"), kind=None)
    assert type(error) is DamagedModelError
    # The features graph has other channels, but the contract leaves them free.
    assert "is not the vgg that its metadata promises" in str(error)


def test_a_changed_model_is_refused_without_its_manifest_too(models: Models, file: Callable[[bytes], Path]) -> None:
    data = bytearray(models("squeeze_baseline").read_bytes())
    data[len(data) // 2] ^= 1
    error = refusal(file(bytes(data)))
    assert type(error) is DamagedModelError
    assert "was changed or damaged after its export" in str(error)


@pytest.mark.parametrize("seal", ["", "0", "0" * 64, "g" * 64, "f" * 64])
def test_a_seal_that_is_none_is_refused(models: Models, tmp_path: Path, seal: str) -> None:
    path = tmp_path / "m.onnx"
    relabelled(models("squeeze_baseline"), path, content_sha256="x" * 64)
    path.write_bytes(path.read_bytes().replace(b"x" * 64, seal.ljust(64).encode()))
    assert type(refusal(path)) is DamagedModelError


@pytest.mark.parametrize("depths", [0, 4, 6])
def test_another_number_of_depths_than_the_net_has(file: Callable[[bytes], Path], depths: int) -> None:
    data = squared_difference(depths=max(depths, 1))
    assert type(refusal(file(data if depths else data.replace(b"depth_0", b"death_0")))) is DamagedModelError


@pytest.mark.parametrize("name", ["Distance", "distanz\0", "depth_9\0"])
def test_outputs_of_other_names(file: Callable[[bytes], Path], name: str) -> None:
    assert isinstance(refusal(file(squared_difference().replace(b"distance", name.encode()))), ModelError)


def test_inputs_of_another_type_or_rank(file: Callable[[bytes], Path]) -> None:
    image = ("batch", "3", "height", "width")
    good = tensor("distorted", FLOAT, *image)
    data = squared_difference()
    assert good in data
    assert isinstance(refusal(file(data.replace(good, tensor("distorted", UINT8, *image)))), ModelError)


def test_a_features_graph_where_a_pair_is_needed(models: Models) -> None:
    with pytest.raises(UsageError) as caught:
        Scorer(models("alex_features"))
    assert str(caught.value) == (
        f"{models('alex_features')}: is the 'features' graph of a split export, the 'pair' graph is needed here"
    )
    assert Session(models("alex_features"), kind="features").depths == 5
    assert Session(models("alex_features"), kind=None).info.kind == "features"


# Manifests


def test_a_model_that_its_manifest_does_not_describe(
    models: Models, file: Callable[[bytes], Path], tmp_path: Path
) -> None:
    path = file(relabelled(models("squeeze_baseline"), tmp_path / "other.onnx", license="another").read_bytes())
    Session(path)
    path.with_name("model.onnx.json").write_bytes(models("squeeze_baseline").with_suffix(".onnx.json").read_bytes())
    assert type(refusal(path)) is DamagedModelError


def test_the_sha256_is_that_of_the_file(models: Models) -> None:
    import hashlib

    assert Session(models("alex")).sha256 == hashlib.sha256(models("alex").read_bytes()).hexdigest()


# Numbers that no intact model gives


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"distance": [node("Neg", "d", "n"), node("Sqrt", "n", "distance")]}, "values that are not finite"),
        ({"distance": [node("Sub", "d d", "zero"), node("Div", "d zero", "distance")]}, "values that are not finite"),
        ({"distance": [node("Neg", "d", "distance")]}, "a distance of -1.00"),
        ({"layers": [node("Neg", "shares", "n"), node("Sqrt", "n", "layers")]}, "values that are not finite"),
        ({"depth_3": [node("Neg", "map", "n"), node("Log", "n", "depth_3")]}, "values that are not finite"),
        (
            {"distance": [node("Concat", "d d", "distance", axis=0)]},
            "distances of shape [2], layers of shape [1, 5] for 1 pairs",
        ),
        (
            {"layers": [node("Concat", "shares share", "layers", axis=1)]},
            "distances of shape [1], layers of shape [1, 6] for 1 pairs",
        ),
        ({"depth_0": [node("Concat", "map map", "depth_0", axis=0)]}, "maps of 2, 1, 1, 1, 1 images for 1 pairs"),
    ],
    ids=["nan", "infinite", "negative", "layer nan", "map nan", "two distances", "six layers", "two maps"],
)
def test_a_model_that_gives_no_distance(file: Callable[[bytes], Path], made: dict[str, list[bytes]], said: str) -> None:
    path = file(squared_difference(made))
    with Scorer(path) as scorer, pytest.raises(DamagedModelError) as caught:
        scorer.detail(BLACK, GRAY)
    message = str(caught.value)
    assert message.startswith(f"{path}: gives {said}")
    assert message.endswith(", as no intact model does; export the model again")


def test_the_tiny_model_gives_the_number_it_should(file: Callable[[bytes], Path]) -> None:
    """Else the tests above might fail for another reason."""
    with Scorer(file(squared_difference())) as scorer:
        assert scorer.score(BLACK, GRAY) == pytest.approx(5 * (128 / 127.5) ** 2, rel=1e-4)


# Flipped bytes


FUZZ = """
import os, random, resource, sys
from pathlib import Path
import numpy as np
from onnx_files import structural_bytes
from lpips_runtime import Scorer
from lpips_runtime.errors import LpipsError

resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
source, target = sys.argv[1:3]
data = Path(source).read_bytes()
offsets = structural_bytes(data)
images = np.random.default_rng(0).integers(0, 256, (2, 2, 40, 57, 3), dtype=np.uint8)
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    chance = random.Random(seed)
    flipped = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        offset = chance.choice(offsets)
        flipped[offset] = chance.choice((flipped[offset] ^ 1 << chance.randrange(8), chance.randrange(256), 0, 255))
    Path(target).write_bytes(flipped)
    os.write(2, f"{seed}\\n".encode())
    try:
        with Scorer(target, provider="cpu", threads=1) as scorer:
            detail = scorer.detail(*images)
            assert detail.distance.shape == (2,) and (detail.distance >= 0).all(), detail.distance
            assert np.isfinite(detail.map).all()
        assert bytes(flipped) == data, "a changed model gave numbers"
    except LpipsError as error:
        assert len(str(error).splitlines()) == 1 and str(error).startswith(target), str(error)
"""


@pytest.mark.parametrize("name", ["alex", "squeeze_baseline"])
def test_flipped_bytes_give_an_error_or_finite_numbers(models: Models, tmp_path: Path, name: str) -> None:
    """In a process of its own, which must survive, say nothing of its own and raise nothing but our errors."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", FUZZ, models(name), tmp_path / "model.onnx", "0", "300"],
        env={"PYTHONPATH": str(Path(onnx_files.__file__).parent), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr[-2000:]
    assert ended.stderr.split() == [str(seed) for seed in range(300)]


@settings(max_examples=300, deadline=None)
@given(
    key=st.sampled_from([f"lpips.{key}" for key in ModelInfo.__dataclass_fields__ if key != "format"]),
    value=st.text() | st.integers().map(str) | st.floats().map(str),
)
def test_any_metadata_gives_info_or_an_error_of_one_line(key: str, value: str) -> None:
    entries = onnx_files.INFO.to_metadata() | {key: value}
    error = None
    try:
        info = ModelInfo.from_metadata(entries, "m.onnx")
        assert info.min_size > 0
        assert info.peculiarities == [phrase for phrase in info.peculiarities if phrase.isprintable()]
    except ModelError as caught:
        error = str(caught)
    assert error is None or (error.startswith("m.onnx: ") and len(error.splitlines()) == 1)


# Options and errors of a run


@pytest.mark.parametrize("threads", [0, -1, MAX_THREADS + 1, 10**20])
def test_a_number_of_threads_that_cannot_be_meant(models: Models, threads: int) -> None:
    with pytest.raises(UsageError, match=rf"^threads is {threads}, it must be a whole number from 1 to 1024$"):
        Session(models("alex"), threads=threads)


def test_the_number_of_threads_changes_no_number(models: Models) -> None:
    images = random.Random(0).randbytes(2 * 40 * 40 * 3)
    a, b = np.frombuffer(images, np.uint8).reshape(2, 40, 40, 3)
    scores = [Scorer(models("alex"), threads=threads).score(a, b) for threads in (None, 1, 4)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-6)


def test_what_fails_in_a_run_is_a_provider_error(models: Models) -> None:
    session = Session(models("alex"))
    bad = np.zeros((1, 4, 64, 64), np.float32)
    with pytest.raises(ProviderError) as caught:
        session.run({"reference": bad, "distorted": bad}, ["distance"])
    message = str(caught.value)
    assert message.startswith(f"{models('alex')}: provider 'cpu' failed: ")
    assert not re.search(r"ONNXRuntime|\.cc\b|::", message)
    assert caught.value.exit_code == 3
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    "words",
    [
        "Failed to allocate memory for requested buffer of size 9",
        "/src/bfc_arena.cc:360 Available memory of 8 is smaller than requested bytes of 9",
        "CUDA failure 2: out of memory ; GPU=0",
    ],
)
def test_missing_memory_comes_with_advice(
    file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    class Full:
        def run(self, *_: object) -> None:
            raise RuntimeError(words)

    session = Session(file(squared_difference()))
    monkeypatch.setattr(session, "_session", Full())
    with pytest.raises(ProviderError, match=r"; free some, or lower --max-memory \(max_memory\), so that images"):
        session.run({"reference": np.zeros((1, 3, 32, 32), np.float32)}, ["distance"])


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Failed to load model because protobuf parsing failed.",
            "Failed to load model because protobuf parsing failed.",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /onnxruntime_src/onnxruntime/core/"
            "providers/common.h:30 onnxruntime::AutoPadType onnxruntime::StringToAutoPadType(const std::string&) "
            "false was false. Unknown AutoPadType String",
            "Unknown AutoPadType String",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/graph.cc:1587 void "
            "onnxruntime::Graph::InitializeStateFromModelFileGraphProto() This is an invalid model. Graph output "
            "(depth_0) does not exist in the graph.\n",
            "This is an invalid model. Graph output (depth_0) does not exist in the graph.",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : tensorprotoutils.cc:99 ValidateEmbeddedTensorProtoDataSizeAndShape "
            "Initializer 'w': raw_data size (4 bytes) does not match",
            "Initializer 'w': raw_data size (4 bytes) does not match",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Concat node. Name:'cat' "
            "Status Message: concatbase.h:12 PrepareForComputeImpl Non concat axis dimensions must match",
            "running Concat node. Name:'cat' Status Message: Non concat axis dimensions must match",
        ),
        ("", "RuntimeError"),
        ("x" * 1000, "x" * 200 + "..."),
    ],
)
def test_words_of_onnx_runtime_are_cut_to_what_helps(said: str, shown: str) -> None:
    assert words_of(RuntimeError(said)) == shown


def test_int8_does_not_saturate_on_old_cpus(models: Callable[[str], Path]) -> None:
    """Without the option, VGG16 in INT8 was up to 24 % off on an x86 CPU without VNNI, and right on those with it."""
    options = Session(models("alex"), provider="cpu")._session.get_session_options()
    wanted = "0" if Path("/proc/cpuinfo").exists() and "vnni" in Path("/proc/cpuinfo").read_text() else "1"
    assert options.get_session_config_entry("session.x64quantprecision") == wanted


# Memory

_RESIDENT = """
import sys
import numpy as np
from lpips_runtime.session import Session

session = Session(sys.argv[1], provider="cpu", threads=1)
for side in (31, 1024, 1024, 1024, 31):
    image = np.zeros((1, 3, side, side), np.float32)
    session.run({"reference": image, "distorted": image}, ["distance", "layers", *(f"depth_{k}" for k in range(7))])
    with open("/proc/self/statm") as file:
        print(file.read().split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc/self/statm")
def test_memory_is_used_again_for_the_same_size_and_given_back_for_another(models: Models) -> None:
    call = [sys.executable, "-c", _RESIDENT, str(models("squeeze_baseline"))]
    done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=60)
    start, first, second, third, after = (int(pages) for pages in done.stdout.split())
    assert second - start < 1.6 * (first - start)
    assert third <= second * 1.05
    assert after - start < (first - start) / 3
