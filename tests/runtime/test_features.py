"""Scorer.encode and Scorer.compare: what the pair graph says, by its --split siblings; and whose features are taken."""

import gc
import pickle
import shutil
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest

from lpips_runtime import Features, Scorer, features, pair_graph
from lpips_runtime import scorer as scorer_module
from lpips_runtime.contract import BACKBONE_SHA256
from lpips_runtime.errors import (
    ForeignFeaturesError,
    ForeignModelError,
    InputError,
    ModelNotFoundError,
    ShapeError,
    UsageError,
)
from lpips_runtime.providers import PROVIDERS, Device

Models = Callable[[str], Path]
KINDS = ("features", "compare")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def scorer(models: Models) -> Scorer:
    return Scorer(models("alex"), threads=1)


def siblings(models: Models, folder: Path, **info: str) -> Path:
    """The random AlexNet and its siblings, whose metadata says something else."""
    for kind in ("", "_features", "_compare"):
        onnx_files.relabelled(models(f"alex{kind}"), folder / f"alex{kind}.onnx", **info)
    return folder / "alex.onnx"


# Numbers


@pytest.mark.parametrize("name", ["alex", "squeeze"])
@pytest.mark.parametrize("size", [(64, 64), (61, 47), (35, 130)])
def test_the_distance_is_the_pair_graphs(models: Models, name: str, size: tuple[int, int]) -> None:
    a, b = noise(3, *size), noise(3, *size, seed=1)
    with Scorer(models(name)) as scorer:
        found = scorer.compare(scorer.encode(a), scorer.encode(b))
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (np.float32, (3,))
        np.testing.assert_allclose(found, scorer.score(a, b), rtol=1e-6)


def test_layers_depths_and_map_are_the_pair_graphs(scorer: Scorer) -> None:
    a, b = noise(2, 61, 47), noise(2, 61, 47, seed=1)
    found, expected = scorer.detail(scorer.encode(a), scorer.encode(b)), scorer.detail(a, b)
    np.testing.assert_allclose(found.layers, expected.layers, rtol=1e-6)
    np.testing.assert_allclose(found.map, expected.map, rtol=1e-5, atol=1e-7)
    assert (found.height, found.width, found.map.shape) == (61, 47, (2, 61, 47))


def test_equal_images_have_distance_zero_exactly(scorer: Scorer) -> None:
    encoded = scorer.encode(noise(2, 50, 40))
    assert not np.any(scorer.compare(encoded, encoded))


def test_one_pair_gives_a_float(scorer: Scorer) -> None:
    a, b = noise(40, 40), noise(40, 40, seed=1)
    distance = scorer.compare(scorer.encode(a), scorer.encode(b))
    assert isinstance(distance, float)
    assert distance == pytest.approx(scorer.score(a, b), rel=1e-6)


def test_one_reference_is_compared_with_many(scorer: Scorer) -> None:
    one, many = noise(40, 40), noise(5, 40, 40, seed=1)
    found = scorer.compare(scorer.encode(one), scorer.encode(many))
    np.testing.assert_allclose(found, scorer.score(np.stack([one] * 5), many), rtol=1e-6)


def test_more_than_is_compared_at_once(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = scorer.encode(noise(5, 40, 40)), scorer.encode(noise(5, 40, 40, seed=1))
    at_once = scorer.detail(a, b)
    for block in (1, 2 * a[0].nbytes):
        monkeypatch.setattr(features, "BLOCK_BYTES", block)
        np.testing.assert_allclose(scorer.detail(a, b).distance, at_once.distance, rtol=1e-6)
        np.testing.assert_allclose(scorer.detail(a, b).map, at_once.map, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(scorer.compare(a[0], b), scorer.score(*pair_of(5)), rtol=1e-6)


def pair_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([noise(5, 40, 40)[0]] * count), noise(count, 40, 40, seed=1)


def test_float_images_are_encoded_with_their_range(scorer: Scorer) -> None:
    a = noise(2, 40, 40)
    floats = (a / 255).astype(np.float32).transpose(0, 3, 1, 2)
    encoded = scorer.encode(floats, value_range=(0, 1))
    np.testing.assert_allclose(scorer.compare(encoded, scorer.encode(a)), 0, atol=1e-9)
    with pytest.raises(ShapeError, match="must state their range"):
        scorer.encode(floats)


def test_features_are_of_unit_length(scorer: Scorer) -> None:
    encoded = scorer.encode(noise(2, 64, 48))
    assert [value.shape[:2] for value in encoded.values] == [(2, c) for c in (64, 192, 384, 256, 256)]
    for value in encoded.values:
        lengths = np.square(value).sum(1)
        np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-5)


# Handling


def test_features_are_indexed_by_image(scorer: Scorer) -> None:
    a = noise(4, 40, 40)
    encoded = scorer.encode(a)
    assert (len(encoded), encoded.count, encoded.single) == (4, 4, False)
    assert encoded[1].single
    assert (len(encoded[1:3]), encoded[1:3].single) == (2, False)
    assert scorer.compare(encoded[-1], scorer.encode(a[3])) == pytest.approx(0, abs=1e-9)
    assert sum(one.nbytes for one in encoded) == encoded.nbytes
    with pytest.raises(IndexError):
        encoded[4]


def test_stacked_features_are_those_of_a_batch(scorer: Scorer) -> None:
    a, b = noise(3, 40, 40), noise(3, 40, 40, seed=1)
    stacked = Features.stack([scorer.encode(image) for image in a])
    np.testing.assert_allclose(scorer.compare(stacked, scorer.encode(b)), scorer.score(a, b), rtol=1e-6)
    with pytest.raises(ShapeError, match="no features to stack"):
        Features.stack([])


def test_values_cannot_be_changed_by_accident(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="read-only"):
        scorer.encode(noise(40, 40)).values[0][:] = 0


def test_features_can_be_pickled(scorer: Scorer) -> None:
    a, b = scorer.encode(noise(40, 40)), scorer.encode(noise(40, 40, seed=1))
    assert scorer.compare(pickle.loads(pickle.dumps(a)), b) == scorer.compare(a, b)


def test_many_threads_encode_at_once_and_open_the_siblings_once(models: Models, monkeypatch: Any) -> None:
    opened = []
    original = scorer_module.Session

    def session(path: Path, **options: Any) -> Any:
        opened.append(path.name)
        return original(path, **options)

    monkeypatch.setattr(scorer_module, "Session", session)
    monkeypatch.setattr(pair_graph, "Session", session)
    with Scorer(models("alex"), threads=1) as scorer, ThreadPoolExecutor(8) as pool:
        images = [noise(32 + k % 3, 40, seed=k) for k in range(24)]
        encoded = list(pool.map(scorer.encode, images))
        pairs = [(j, k) for j in range(24) for k in range(24) if j % 3 == k % 3]
        found = pool.map(lambda pair: scorer.compare(encoded[pair[0]], encoded[pair[1]]), pairs)
        for (j, k), distance in zip(pairs[::17], list(found)[::17], strict=True):
            assert distance == pytest.approx(scorer.score(images[j], images[k]), rel=1e-6, abs=1e-9)
    assert sorted(opened) == ["alex.onnx", "alex_compare.onnx", "alex_features.onnx"]


def test_siblings_that_are_being_opened_are_not_kept_by_a_scorer_that_is_closed_meanwhile(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, original = Scorer(models("alex"), threads=1), scorer_module.Split
    closing = threading.Thread(target=scorer.close)

    def split(*arguments: Any) -> Any:
        made = original(*arguments)
        closing.start()
        closing.join(0.5)  # time enough, unless it waits as it should
        return made

    monkeypatch.setattr(scorer_module, "Split", split)
    opened = scorer.split
    closing.join(20)
    assert opened.encode(scorer_module.as_batch(noise(40, 40), "image")).count == 1  # what runs comes to its end
    kept = weakref.ref(opened)
    del opened
    gc.collect()
    assert kept() is None
    with pytest.raises(UsageError, match="closed"):
        _ = scorer.split


# Whose features


def test_features_of_another_model_are_refused(models: Models, scorer: Scorer) -> None:
    with Scorer(models("squeeze")) as other:
        theirs = other.encode(noise(40, 40))
    ours = scorer.encode(noise(40, 40))
    said = (
        r"distorted: features that cannot be compared here, their net is squeeze, not alex, their model \(sha256\) is "
    )
    with pytest.raises(ForeignFeaturesError, match=f"{said}.*; encode the images as they are compared"):
        scorer.compare(ours, theirs)
    with pytest.raises(ForeignFeaturesError, match="reference: features that cannot be compared here"):
        scorer.detail(theirs, ours)
    with pytest.raises(ForeignFeaturesError, match=r"features that do not go together, their net is squeeze, not alex"):
        Features.stack([ours, theirs])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"provider": "openvino"}, "their provider is openvino, not cpu"),
        ({"fast_math": True}, "their provider is openvino, not cpu, their fast-math is bfloat16, not off"),
    ],
)
def test_features_of_another_provider_or_of_faster_types_are_refused_and_not_found_in_a_store(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, said: str
) -> None:
    """Where each rounds is its own: equal images would not be at 0, and nearly equal ones far off."""
    row = replace(PROVIDERS["cpu"], name="openvino", auto="fast-math", devices=lambda: [Device(0, "A CPU", "bfloat16")])
    monkeypatch.setitem(PROVIDERS, "openvino", row)  # the CPU provider as if it were another one
    image = noise(40, 40)
    with (
        Scorer(models("alex"), provider="cpu", features=tmp_path) as ours,
        Scorer(models("alex"), features=tmp_path, **options) as other,
    ):
        one, two = ours.encode(image), other.encode(image)
        with pytest.raises(ForeignFeaturesError, match=f"distorted: .*here, {said}; encode"):
            ours.compare(one, two)
        assert {path.parts[-3] for path in tmp_path.rglob("*.npy")} == {one.model, two.model}


def test_sizes_and_counts_must_fit(scorer: Scorer) -> None:
    one, many = scorer.encode(noise(40, 44)), scorer.encode(noise(3, 40, 44))
    with pytest.raises(ShapeError, match="images of 44x40 and 40x44"):
        scorer.compare(one, scorer.encode(noise(44, 40)))
    with pytest.raises(ShapeError, match="reference holds features of 3 images, distorted of 1; give as many"):
        scorer.compare(many, one)
    with pytest.raises(ShapeError, match="not those of whole images"):
        scorer.compare(one, many[:0])
    with pytest.raises(ShapeError, match="needs at least 31x31"):
        scorer.encode(noise(30, 40))


def test_what_is_no_features_is_refused(scorer: Scorer) -> None:
    one = scorer.encode(noise(40, 40))
    for call in (scorer.compare, scorer.detail):
        with pytest.raises(UsageError, match=r"ndarray are no features; give what Scorer\.encode returned"):
            call(one, noise(40, 40))  # pyright: ignore[reportArgumentType]


# The siblings


@pytest.mark.parametrize("missing", KINDS)
def test_a_missing_sibling_is_named_and_how_to_make_it(models: Models, tmp_path: Path, missing: str) -> None:
    path = siblings(models, tmp_path)
    (tmp_path / f"alex_{missing}.onnx").unlink()
    with Scorer(path) as scorer:
        assert scorer.score(noise(40, 40), noise(40, 40, seed=1)) > 0
        with pytest.raises(ModelNotFoundError, match=rf"alex_{missing}\.onnx: no such model.*lpips-export --split"):
            scorer.encode(noise(40, 40))


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", "0.0"), ("lin_sha256", "0" * 63 + "1"), ("backbone_sha256", BACKBONE_SHA256["vgg"]), ("halo", "7")],
)
@pytest.mark.parametrize("kind", KINDS)
def test_siblings_of_another_export_are_refused(
    models: Models, tmp_path: Path, kind: str, name: str, value: str
) -> None:
    path = siblings(models, tmp_path)
    onnx_files.relabelled(models(f"alex_{kind}"), tmp_path / f"alex_{kind}.onnx", **{name: value})
    with (
        Scorer(path) as scorer,
        pytest.raises(ForeignModelError, match=f"alex_{kind}.onnx: does not belong to alex.onnx, its {name} is"),
    ):
        scorer.encode(noise(40, 40))


def test_siblings_that_swapped_names_are_refused(models: Models, tmp_path: Path) -> None:
    path = siblings(models, tmp_path)
    shutil.copy(tmp_path / "alex_compare.onnx", tmp_path / "alex_features.onnx")
    with Scorer(path) as scorer, pytest.raises(UsageError, match="is the 'compare' graph"):
        scorer.encode(noise(40, 40))


def test_int8_siblings_of_another_calibration_are_refused(
    models: Models, exported: Callable[..., list[Path]], random_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    # The metadata does not name the calibration. Other weights stand for it here, of a graph that says the same.
    torch = pytest.importorskip("torch")
    path = siblings(models, tmp_path, precision="int8", target="cpu")
    with Scorer(path) as scorer:
        assert scorer.compare(scorer.encode(noise(40, 40)), scorer.encode(noise(40, 40))) == 0

    from safetensors.torch import load_file, save_file

    other = tmp_path / "other.safetensors"
    info = onnx_files.metadata(models("alex").read_bytes())
    state = load_file(random_backbone("alex"))
    save_file({key: value * torch.tensor(1.1 if "weight" in key else 1.0) for key, value in state.items()}, other)
    changed = exported(net="alex", backbone=other, split=True, quick=True)[1]
    onnx_files.relabelled(
        changed,
        tmp_path / "alex_features.onnx",
        precision="int8",
        target="cpu",
        backbone_sha256=info["lpips.backbone_sha256"],
    )
    with Scorer(path) as scorer, pytest.raises(ForeignModelError, match="as one of another calibration would"):
        scorer.encode(noise(40, 40))


def test_a_closed_scorer_says_so(models: Models) -> None:
    scorer = Scorer(models("alex"))
    encoded = scorer.encode(noise(40, 40))
    scorer.close()
    for call in (lambda: scorer.encode(noise(40, 40)), lambda: scorer.compare(encoded, encoded)):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_every_error_is_an_input_error_where_the_input_is_wrong() -> None:
    assert issubclass(ForeignFeaturesError, InputError)


def test_an_engine_has_no_siblings(machine: Any) -> None:
    with Scorer(machine.path) as scorer, pytest.raises(UsageError, match=r"is an engine; to encode and compare, open"):
        scorer.encode(noise(40, 40))
