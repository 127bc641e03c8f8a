"""The full-size map: torch's arithmetic without torch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lpips_runtime import upsample as module
from lpips_runtime.errors import ShapeError
from lpips_runtime.upsample import spatial_map, upsample

SIDES = st.integers(1, 40)
VALUES = st.floats(0, 100, width=32)


@st.composite
def depths(draw: st.DrawFn) -> np.ndarray:
    return draw(arrays(np.float32, st.tuples(st.integers(1, 3), SIDES, SIDES), elements=VALUES))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def torch_upsample(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    torch = pytest.importorskip("torch")
    given = torch.from_numpy(depth)[:, None]
    made = torch.nn.functional.interpolate(given, size=(height, width), mode="bilinear", align_corners=False)
    return made[:, 0].numpy()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((7, 7), (31, 31)),  # the smallest alex image
        ((15, 15), (64, 64)),
        ((13, 29), (107, 241)),
        ((1, 1), (5, 9)),
        ((1, 17), (33, 64)),
        ((64, 51), (17, 13)),  # down
        ((9, 40), (40, 9)),  # down in one direction, up in the other
        ((12, 8), (12, 8)),
        ((3, 959), (11, 3840)),  # the widest depth of a 4K image: float32 positions are off unless fused
        ((539, 2), (2160, 3)),
    ],
)
def test_equals_torch(source: tuple[int, int], target: tuple[int, int]) -> None:
    depth = noise(2, *source)
    np.testing.assert_allclose(upsample(depth, *target), torch_upsample(depth, *target), rtol=0, atol=1e-6)


@settings(deadline=None)
@given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES), seed=st.integers(0, 99))
def test_equals_torch_at_any_size(source: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    depth = noise(1, *source, seed=seed)
    np.testing.assert_allclose(upsample(depth, *target), torch_upsample(depth, *target), rtol=0, atol=1e-6)


def test_known_row() -> None:
    # Positions of 5 in 2: (i + 0.5) * 0.4 - 0.5 = -0.3, 0.1, 0.5, 0.9, 1.3, held within 0 and 1.
    made = upsample(np.array([[[0, 10]]], np.float32), 1, 5)
    np.testing.assert_allclose(made, [[[0, 1, 5, 9, 10]]], rtol=1e-6)


@given(depth=depths(), height=SIDES, width=SIDES)
def test_stays_within_its_source(depth: np.ndarray, height: int, width: int) -> None:
    made = upsample(depth, height, width)
    assert made.shape == (len(depth), height, width)
    assert made.dtype == np.float32
    slack = 1e-6 * depth.max()
    assert made.min() >= depth.min() - slack
    assert made.max() <= depth.max() + slack


@given(depth=depths())
def test_same_size_changes_no_bit(depth: np.ndarray) -> None:
    np.testing.assert_array_equal(upsample(depth, *depth.shape[1:]), depth)


@given(depth=depths(), height=SIDES, width=SIDES)
def test_turns_with_its_source(depth: np.ndarray, height: int, width: int) -> None:
    turned = upsample(np.ascontiguousarray(depth.transpose(0, 2, 1)), width, height)
    np.testing.assert_allclose(upsample(depth, height, width), turned.transpose(0, 2, 1), rtol=1e-5, atol=1e-5)


def test_images_of_a_batch_do_not_mix() -> None:
    batch = noise(3, 5, 6)
    made = upsample(batch, 21, 17)
    for alone, image in zip(batch, made, strict=True):
        np.testing.assert_array_equal(upsample(alone[None], 21, 17)[0], image)


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [noise(2, 23, 11), noise(2, 9, 4)]
    whole = spatial_map(sources, 90, 50)
    for values in (1, 7 * 50, 89 * 50):
        monkeypatch.setattr(module, "_BLOCK_VALUES", values)
        np.testing.assert_array_equal(spatial_map(sources, 90, 50), whole)


def test_spatial_map_is_the_sum_in_order() -> None:
    sources = [noise(2, 31, 20, seed=1), noise(2, 15, 9, seed=2), noise(2, 7, 4, seed=3)]
    before = [source.copy() for source in sources]
    expected = upsample(sources[0], 64, 41)
    for source in sources[1:]:
        expected = expected + upsample(source, 64, 41)
    np.testing.assert_array_equal(spatial_map(sources, 64, 41), expected)
    for source, copy in zip(sources, before, strict=True):
        np.testing.assert_array_equal(source, copy)


def test_no_images_make_no_map() -> None:
    assert spatial_map([np.empty((0, 4, 5), np.float32)], 8, 9).shape == (0, 8, 9)


@pytest.mark.parametrize(
    ("sources", "size", "words"),
    [
        ([], (8, 8), "no depth"),
        ([noise(1, 4, 4)], (0, 8), "0x8"),
        ([noise(4, 4)], (8, 8), r"depth 0 is float32 \[4, 4\]"),
        ([noise(1, 4, 4).astype(np.float64)], (8, 8), "depth 0 is float64"),
        ([noise(1, 4, 4), noise(1, 0, 4)], (8, 8), r"depth 1 is float32 \[1, 0, 4\]"),
        ([noise(2, 4, 4), noise(1, 4, 4)], (8, 8), "depth 1 holds 1 images, depth 0 holds 2"),
    ],
)
def test_refuses(sources: list[np.ndarray], size: tuple[int, int], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        spatial_map(sources, *size)
