"""Scorer: what the numbers must satisfy, on real graphs with random weights, and what it refuses."""

import copy
import gc
import hashlib
import multiprocessing
import operator
import pickle
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from lpips_runtime import ModelInfo, Scorer, __version__
from lpips_runtime.errors import ImageFileError, ImageFormatError, InputError, ShapeError, UsageError

Models = Callable[[str], Path]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int, phase: float = 0) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / 13
    waves = [np.sin(x + phase), np.cos(y - phase), np.sin(x * y / 9 + phase)]
    return np.stack([(wave + 1) * 127 for wave in waves], axis=-1).astype(np.uint8)


def chw(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, -1, -3)


@pytest.fixture(scope="module")
def scorer(models: Models) -> Scorer:
    return Scorer(models("alex"))


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def save(pixels: np.ndarray, name: str = "image.png") -> Path:
        PILImage.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    return save


# What a distance is


@pytest.mark.parametrize("name", ["alex", "alex_uint8", "squeeze_baseline"])
@pytest.mark.parametrize("size", [(48, 48), (61, 47), (35, 130)])
def test_equal_images_have_distance_zero_exactly(models: Models, name: str, size: tuple[int, int]) -> None:
    with Scorer(models(name)) as scorer:
        for image in (noise(*size, 3), smooth(*size), np.zeros((*size, 3), np.uint8)):
            detail = scorer.detail(image, image.copy())
            assert not detail.distance.any()
            assert not detail.layers.any()
            assert not detail.map.any()


def test_the_order_of_two_images_does_not_matter(scorer: Scorer) -> None:
    a, b = noise(64, 50, 3), smooth(64, 50)
    assert scorer.score(a, b) == pytest.approx(scorer.score(b, a), rel=1e-6)


def test_more_noise_is_more_distance(scorer: Scorer) -> None:
    image, disturbance = smooth(64, 64).astype(float), noise(64, 64, 3) - 127.5
    scores = [scorer.score(image.astype(np.uint8), np.clip(image + share * disturbance, 0, 255).astype(np.uint8))
              for share in (0, 0.05, 0.2, 0.8)]  # fmt: skip
    assert scores == sorted(scores)
    assert len(set(scores)) == 4


def test_one_changed_pixel_is_seen(scorer: Scorer) -> None:
    a = smooth(64, 64)
    b = a.copy()
    b[30, 30, 1] ^= 1
    distance = scorer.score(a, b)
    assert isinstance(distance, float)
    assert 0 < distance < 1e-3


# Detail


@pytest.mark.parametrize(("name", "depths"), [("alex", 5), ("alex_uint8", 5), ("squeeze_baseline", 7)])
def test_detail_has_its_shapes_and_sums(models: Models, name: str, depths: int) -> None:
    a, b = noise(2, 61, 47, 3), noise(2, 61, 47, 3, seed=1)
    with Scorer(models(name)) as scorer:
        detail = scorer.detail(a, b)
        distance = scorer.score(a, b)
    assert isinstance(distance, np.ndarray)
    assert (detail.distance.dtype, detail.layers.dtype, detail.map.dtype) == (np.float32,) * 3
    assert (detail.height, detail.width) == (61, 47)
    assert (detail.layers.shape, detail.map.shape, len(detail.depths)) == ((2, depths), (2, 61, 47), depths)
    np.testing.assert_array_equal(detail.distance, distance)
    np.testing.assert_allclose(detail.layers.sum(axis=1), detail.distance, rtol=1e-6)
    means = np.stack([depth.mean(axis=(1, 2)) for depth in detail.depths], axis=1)
    np.testing.assert_allclose(means, detail.layers, rtol=1e-5)
    np.testing.assert_allclose(detail.map.mean(axis=(1, 2)), detail.distance, rtol=0.1)
    assert (detail.map >= 0).all()


def test_the_map_shows_where_images_differ(scorer: Scorer) -> None:
    a = smooth(160, 160)
    b = a.copy()
    b[:40, :40] = noise(40, 40, 3)
    spatial = scorer.detail(a, b).map[0]
    assert spatial[:40, :40].mean() > 20 * spatial[120:, 120:].mean()


def test_the_map_is_made_when_it_is_asked_for_and_once(scorer: Scorer) -> None:
    detail = scorer.detail(noise(40, 40, 3), smooth(40, 40))
    assert "map" not in vars(detail)
    assert detail.map is detail.map


def test_details_can_be_compared_and_kept_in_sets(scorer: Scorer) -> None:
    one, other = (scorer.detail(noise(40, 40, 3), smooth(40, 40)) for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2


# Paths, arrays, batches


def test_a_file_and_its_pixels_score_the_same(scorer: Scorer, file: Callable[..., Path]) -> None:
    a, b = noise(50, 40, 3), smooth(50, 40)
    path_a, path_b = file(a, "a.png"), file(b, "b.png")
    scores = [scorer.score(*pair) for pair in ((a, b), (path_a, path_b), (str(path_a), b), (a, path_b))]
    assert len(set(map(float, scores))) == 1
    np.testing.assert_array_equal(scorer.detail(path_a, path_b).map, scorer.detail(a, b).map)


def test_one_pair_is_a_float_and_a_batch_an_array(scorer: Scorer) -> None:
    a, b = noise(40, 40, 3), smooth(40, 40)
    assert type(scorer.score(a, b)) is float
    for pair in ((a[None], b[None]), (a[None], b), (a, b[None])):
        distance = scorer.score(*pair)
        assert isinstance(distance, np.ndarray)
        assert (distance.shape, distance.dtype) == ((1,), np.float32)


@pytest.mark.parametrize("name", ["alex", "alex_uint8", "squeeze_baseline"])
def test_a_batch_scores_as_its_pairs_do(models: Models, name: str) -> None:
    a, b = noise(5, 45, 38, 3), noise(5, 45, 38, 3, seed=1)
    b[2] = a[2]
    with Scorer(models(name)) as scorer:
        batch = scorer.detail(a, b)
        for k in range(5):
            single = scorer.detail(a[k], b[k])
            np.testing.assert_allclose(batch.distance[k], single.distance[0], rtol=1e-6)
            np.testing.assert_allclose(batch.layers[k], single.layers[0], rtol=1e-5, atol=1e-9)
            np.testing.assert_allclose(batch.map[k], single.map[0], rtol=1e-4, atol=1e-6)
    assert batch.distance[2] == 0


def test_layouts_and_ranges_mean_the_same(scorer: Scorer) -> None:
    a, b = noise(2, 40, 52, 3), noise(2, 40, 52, 3, seed=1)
    expected = scorer.score(a, b)
    unit = [chw(images) / np.float32(255) for images in (a, b)]
    for dtype, tolerance in ((np.float64, 1e-5), (np.float32, 1e-5), (np.float16, 1e-2)):
        halves = [images.astype(dtype) for images in unit]
        np.testing.assert_allclose(scorer.score(*halves, value_range=(0, 1)), expected, rtol=tolerance)
        symmetric = [(images * 2 - 1).astype(dtype) for images in unit]
        np.testing.assert_allclose(scorer.score(*symmetric, value_range=(-1, 1)), expected, rtol=tolerance)


def test_uint8_and_float_arrays_can_be_mixed(scorer: Scorer) -> None:
    a, b = noise(40, 40, 3), smooth(40, 40)
    # value_range is that of the float array; for the uint8 one it is no choice.
    with pytest.raises(ShapeError, match=r"^reference: uint8 arrays are 0\.\.255; leave out value_range"):
        scorer.score(a, chw(b) / 255, value_range=(0, 1))


def test_strides_do_not_matter_and_arrays_are_left_alone(scorer: Scorer) -> None:
    a, b = noise(80, 84, 3), noise(80, 84, 3, seed=1)
    before = a.copy(), b.copy()
    view = scorer.score(a[::2, ::-2], b[::2, ::-2])
    assert view == scorer.score(a[::2, ::-2].copy(), b[::2, ::-2].copy())
    a.flags.writeable = b.flags.writeable = False
    scorer.score(a, b)
    np.testing.assert_array_equal((a, b), before)


def test_a_uint8_graph_agrees_with_the_float_graph(models: Models, scorer: Scorer) -> None:
    a, b = noise(3, 50, 41, 3), noise(3, 50, 41, 3, seed=1)
    with Scorer(models("alex_uint8")) as other:
        np.testing.assert_allclose(other.score(a, b), scorer.score(a, b), rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 3),
    height=st.integers(31, 90),
    width=st.integers(31, 90),
    seed=st.integers(0, 99),
    floating=st.booleans(),
)
def test_any_size_and_batch_gives_sound_numbers(
    scorer: Scorer, count: int, height: int, width: int, seed: int, floating: bool
) -> None:
    a, b = noise(2, count, height, width, 3, seed=seed)
    floats = (chw(a) / 255, chw(b) / 255)
    detail = scorer.detail(*floats, value_range=(0, 1)) if floating else scorer.detail(a, b)
    assert detail.distance.shape == (count,)
    assert (detail.distance > 0).all()
    assert np.isfinite(detail.distance).all()
    np.testing.assert_allclose(detail.layers.sum(axis=1), detail.distance, rtol=1e-5)
    assert detail.map.shape == (count, height, width)
    assert not scorer.score(a, a).any()  # pyright: ignore[reportAttributeAccessIssue]


# What cannot be scored


SURVIVE = """
import sys
import numpy as np
from lpips_runtime import Scorer
from lpips_runtime.errors import ShapeError
with Scorer(sys.argv[1]) as scorer:
    least = scorer.info.min_size
    for height in range(1, least + 2):
        for width in {height, least, least + 1, 200}:
            image = np.zeros((height, width, 3), np.uint8)
            try:
                scorer.score(image, image)
                accepted = True
            except ShapeError as error:
                assert f"needs at least {least}x{least}" in str(error), error
                accepted = False
            assert accepted == (min(height, width) >= least), (height, width)
print("alive", least)
"""


@pytest.mark.parametrize(("name", "smallest"), [("alex", 31), ("alex_uint8", 31), ("squeeze_baseline", 17)])
def test_the_smallest_side_is_accepted_and_one_below_refused(models: Models, name: str, smallest: int) -> None:
    """In a process of its own: ONNX Runtime dies by SIGFPE on images that are too small."""
    ended = subprocess.run(
        [sys.executable, "-c", SURVIVE, models(name)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"alive {smallest}\n", "")


@pytest.mark.parametrize(
    ("reference", "distorted", "said"),
    [
        ((40, 40, 3), (40, 41, 3), r"^reference is 40x40, distorted is 41x40 \(width x height\); "),
        ((1, 40, 40, 3), (4, 40, 40, 3), "^reference holds 1 image, distorted 4 images; "),
        ((0, 40, 40, 3), (0, 40, 40, 3), "^reference: .* holds no image; "),
        ((40, 40, 3), (40, 40), r"^distorted: uint8 array of shape \(40, 40\) has no channel axis"),
        ((40, 40, 3), (40, 40, 4), "^distorted: .* has 4 channels"),
        ((40, 40, 3), (3, 40, 40), "^distorted: .* looks like CHW"),
        ((40, 40, 1), (40, 40, 1), "^reference: .* has 1 channels"),
        ((2, 2, 40, 40, 3), (40, 40, 3), "^reference: .* has 5 axes"),
        ((30, 40, 3), (30, 40, 3), r"^images are 40x30 \(width x height\); alex needs at least 31x31"),
    ],
)
def test_shapes_that_do_not_fit(
    scorer: Scorer, reference: tuple[int, ...], distorted: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ShapeError, match=said) as caught:
        scorer.score(np.zeros(reference, np.uint8), np.zeros(distorted, np.uint8))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(scorer: Scorer, value: float) -> None:
    good = np.zeros((2, 3, 40, 40), np.float32)
    bad = good.copy()
    bad[1, 2, 3, 4] = value
    with pytest.raises(ShapeError, match=r"^distorted: 1 of 9600 values is not finite, .* at index \(1, 2, 3, 4\)"):
        scorer.score(good, bad, value_range=(-1, 1))


def test_floats_must_state_a_range_and_keep_to_it(scorer: Scorer) -> None:
    image = np.zeros((3, 40, 40), np.float32)
    with pytest.raises(ShapeError, match=r"^reference: float arrays must state their range"):
        scorer.score(image, image)
    with pytest.raises(ShapeError, match=r"^distorted: values from 0.0 to 255.0 do not fit"):
        scorer.score(image, image + np.float32(255) * np.eye(40, dtype=np.float32), value_range=(0, 1))


def test_a_uint8_graph_refuses_floats(models: Models) -> None:
    image = np.zeros((3, 40, 40), np.float32)
    with Scorer(models("alex_uint8")) as scorer, pytest.raises(ShapeError, match=r"^this model takes uint8 images"):
        scorer.score(image, image, value_range=(0, 1))


def test_files_that_cannot_be_read(scorer: Scorer, file: Callable[..., Path], tmp_path: Path) -> None:
    good = file(noise(40, 40, 3))
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:200])
    for bad in (tmp_path / "gone.png", tmp_path / "bad.png", tmp_path, str(good) + "\0"):
        with pytest.raises(ImageFileError):
            scorer.score(good, bad)
    for nothing in (None, 7, [1, 2], b"image.png"):
        with pytest.raises(InputError):
            scorer.score(good, nothing)  # pyright: ignore[reportArgumentType]


def test_transparent_pixels_need_a_background(models: Models, file: Callable[..., Path]) -> None:
    pixels = np.dstack([noise(40, 40, 3), np.full((40, 40), 0, np.uint8)])
    transparent = file(pixels)
    with Scorer(models("alex")) as scorer, pytest.raises(ImageFormatError, match="give a background colour"):
        scorer.score(transparent, transparent)
    with Scorer(models("alex"), background=(10, 20, 30)) as scorer:
        assert scorer.score(transparent, np.full((40, 40, 3), (10, 20, 30), np.uint8)) == 0


# One Scorer, many users


def test_a_closed_scorer_refuses(models: Models) -> None:
    image = noise(40, 40, 3)
    with Scorer(models("alex")) as scorer:
        session = weakref.ref(scorer._open)
    gc.collect()
    assert session() is None
    for use in (
        lambda: scorer.score(image, image),
        lambda: scorer.detail(image, image),
        lambda: scorer.info,
        lambda: scorer.provenance,
        lambda: list(scorer.stream([("a.png", "b.png")])),
    ):
        with pytest.raises(UsageError, match=r"^this Scorer is closed$"):
            use()
    scorer.close()
    assert pickle.loads(pickle.dumps(scorer)).score(image, image) == 0


def test_a_pickled_scorer_opens_the_same_model_with_the_same_options(
    models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Callable[..., Path]
) -> None:
    monkeypatch.chdir(models("alex").parent)
    scorer = Scorer("alex.onnx", provider="cpu", threads=1, background=(1, 2, 3))
    data = pickle.dumps(scorer)
    assert len(data) < 1000
    monkeypatch.chdir(tmp_path)
    transparent = file(np.zeros((40, 40, 4), np.uint8))
    for twin in (pickle.loads(data), copy.copy(scorer), copy.deepcopy(scorer)):
        assert twin.path == models("alex").absolute()
        assert twin.provenance == scorer.provenance
        assert twin.score(transparent, np.full((40, 40, 3), (1, 2, 3), np.uint8)) == 0


def test_a_scorer_travels_to_a_spawned_process(scorer: Scorer) -> None:
    a, b = noise(40, 40, 3), smooth(40, 40)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(operator.methodcaller("score", a, b), (scorer,))
        pool.close()
        pool.join()
    assert there == pytest.approx(scorer.score(a, b), rel=1e-6)


def test_many_threads_on_one_scorer_get_their_own_numbers(scorer: Scorer) -> None:
    pairs = [(noise(40 + k % 7, 50, 3, seed=k), smooth(40 + k % 7, 50, k)) for k in range(64)]
    expected = [scorer.score(*pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: scorer.score(*pair), pairs))
    assert found == pytest.approx(expected, rel=1e-6)
    assert len(set(expected)) == 64


# What it says of itself


def test_info_is_what_the_graph_says(models: Models) -> None:
    said = onnx_files.metadata(models("squeeze_baseline").read_bytes())
    with Scorer(models("squeeze_baseline")) as scorer:
        assert isinstance(scorer.info, ModelInfo)
        assert scorer.info.to_metadata() == said
        assert (scorer.info.net, scorer.info.version, scorer.info.lin) == ("squeeze", "0.0", "baseline")
        assert scorer.info.peculiarities == [
            "LPIPS v0.0",
            "unweighted baseline (no lin weights)",
            "custom backbone weights",
        ]


def test_provenance_says_what_made_the_numbers(models: Models) -> None:
    import onnxruntime

    with Scorer(models("alex"), provider="cpu") as scorer:
        info, provenance = scorer.info, scorer.provenance
    assert provenance == {
        "model": {
            "file": "alex.onnx",
            "sha256": hashlib.sha256(models("alex").read_bytes()).hexdigest(),
            "net": "alex",
            "version": "0.1",
            "lin": "learned",
            "precision": "fp32",
            "target": "",
            "input": "float32",
            "backbone_sha256": info.backbone_sha256,
            "lin_sha256": info.lin_sha256,
            "exporter": f"lpips-export {__version__}",
            "reference": "lpips 0.1.4",
        },
        "runtime": {
            "lpips-runtime": __version__,
            "onnxruntime": onnxruntime.__version__,
            "fast_math": False,
            "provider": "cpu",
            "device": 0,
            "max_memory": 1_450_000_000,
        },
    }


def test_the_model_may_be_named_by_the_environment(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPIPS_MODEL", str(models("alex")))
    assert Scorer().path == models("alex").absolute()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threads": 1.5}, "threads is 1.5, it must be a whole number"),
        ({"threads": "2"}, "threads is '2', it must be a whole number"),
        ({"threads": True}, "threads is True, it must be a whole number"),
        ({"features": 5}, "the folder of the feature store is 5; name one"),
        ({"features": b"x"}, "the folder of the feature store is b'x'; name one"),
        ({"features": ""}, "the folder of the feature store is ''; name one, '.' for the current folder"),
        ({"features": False}, "the folder of the feature store is False; name one"),
        ({"provider": None}, "provider None is unknown"),
        ({"background": "white"}, "'white' is not a colour; give red, green and blue"),
    ],
)
def test_arguments_of_another_type_are_refused_on_opening(models: Models, arguments: dict, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Scorer(models("alex"), **arguments)
