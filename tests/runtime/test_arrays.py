"""Arrays in, tensors out: exact conversion, any memory layout, and an error for whatever would be a guess."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PILImage

from lpips_runtime.arrays import Batch, as_batch, check_pair, to_tensor
from lpips_runtime.errors import ShapeError

# The definition: float32(float64(v) / 127.5 - 1) for every value v of a byte.
TABLE = (np.arange(256, dtype=np.float64) / 127.5 - 1).astype(np.float32)
RANGES = [(0, 1), (-1, 1)]
FLOATS = [np.float16, np.float32, np.float64]

sides = st.integers(1, 6)
counts = st.integers(1, 3)


@st.composite
def bytes_images(draw):
    shape = (draw(sides), draw(sides), 3)
    if draw(st.booleans()):
        shape = (draw(counts), *shape)
    return draw(hnp.arrays(np.uint8, shape))


@st.composite
def float_images(draw, dtypes=("<f2", "<f4", "<f8", ">f2", ">f4", ">f8")):
    low, high = draw(st.sampled_from(RANGES))
    shape = (3, draw(sides), draw(sides))
    if draw(st.booleans()):
        shape = (draw(counts), *shape)
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    elements = hnp.from_dtype(dtype, min_value=low, max_value=high, allow_nan=False)
    return draw(hnp.arrays(dtype, shape, elements=elements)), (low, high)


def batch(height=64, width=48, count=1):
    return as_batch(np.zeros((count, height, width, 3), np.uint8), "reference")


def refused(array, value_range=None, name="reference"):
    """The error's message, which must name the argument and keep to two lines."""
    with pytest.raises(ShapeError) as caught:
        as_batch(array, name, value_range=value_range)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert message.count("\n") <= 1
    return message


# --- conversion ---


def test_every_byte_value_converts_exactly():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    tensor = to_tensor(as_batch(np.repeat(gray, 3, axis=2), "reference"), "float32")
    assert tensor.dtype == np.float32
    for channel in range(3):
        np.testing.assert_array_equal(tensor[0, channel].ravel().view(np.int32), TABLE.view(np.int32))


@given(bytes_images())
def test_bytes_become_nchw_floats_or_stay_as_they_are(array):
    found = as_batch(array, "reference")
    nhwc = array if array.ndim == 4 else array[None]
    assert found.single == (array.ndim == 3)
    assert (found.count, found.height, found.width, 3) == nhwc.shape

    tensor = to_tensor(found, "float32")
    np.testing.assert_array_equal(tensor, TABLE[nhwc].transpose(0, 3, 1, 2), strict=True)
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(np.rint((tensor.transpose(0, 2, 3, 1) + 1) * 127.5), nhwc)

    same = to_tensor(found, "uint8")
    np.testing.assert_array_equal(same, nhwc, strict=True)
    assert same.flags.c_contiguous


@given(float_images())
def test_floats_become_native_float32_in_the_symmetric_range(given_):
    array, value_range = given_
    found = as_batch(array, "distorted", value_range=value_range)
    nchw = array if array.ndim == 4 else array[None]
    assert found.single == (array.ndim == 3)
    assert (found.count, 3, found.height, found.width) == nchw.shape

    tensor = to_tensor(found, "float32")
    working = nchw.astype(np.float64 if array.dtype.itemsize == 8 else np.float32)
    scaled = 2 * working - 1 if value_range == (0, 1) else working
    np.testing.assert_array_equal(tensor, scaled.astype(np.float32), strict=True)
    assert tensor.dtype.isnative
    assert tensor.flags.c_contiguous
    assert tensor.min() >= -1
    assert tensor.max() <= 1


def test_float16_is_not_scaled_in_float16():
    value = np.float16(0.01)
    assert np.float32(2 * value - 1) != 2 * np.float32(value) - 1
    tensor = to_tensor(as_batch(np.full((3, 1, 1), value), "reference", value_range=(0, 1)), "float32")
    assert tensor[0, 0, 0, 0] == 2 * np.float32(value) - 1


def test_float64_is_rounded_after_the_scaling():
    value = 0.5 + 2.0**-30
    assert np.float32(2 * np.float64(value) - 1) != 2 * np.float32(value) - 1
    tensor = to_tensor(as_batch(np.full((3, 1, 1), value), "reference", value_range=(0, 1)), "float32")
    assert tensor[0, 0, 0, 0] == np.float32(2.0**-29)


def test_array_of_the_caller_is_left_alone():
    floats = np.full((3, 2, 2), 0.25, np.float32)
    for array, value_range in ((floats, (0, 1)), (floats, (-1, 1)), (np.ones((2, 2, 3), np.uint8), None)):
        before = array.copy()
        to_tensor(as_batch(array, "reference", value_range=value_range), "float32")
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("value_range", [(0, 1), [0, 1], (0.0, 1.0), np.array([0, 1]), (False, np.int64(1))])
def test_range_may_be_any_pair_of_numbers(value_range):
    found = as_batch(np.full((3, 1, 1), 0.75), "reference", value_range=value_range)
    assert found.pixels[0, 0, 0, 0] == 0.5


# --- memory layouts ---


class Subclass(np.ndarray):
    """As np.memmap is one."""


VIEWS = {
    "contiguous": lambda a: a.copy(),
    "fortran": np.asfortranarray,
    "every-other": lambda a: np.repeat(a, 2, axis=-2)[..., ::2, :],
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "reversed-channels": lambda a: a[..., ::-1].copy()[..., ::-1],
    "transposed": lambda a: a.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "subclass": lambda a: a.view(Subclass),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(4, 5, 3), (2, 4, 5, 3)])
def test_bytes_of_any_strides(view, shape):
    array = VIEWS[view](np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    plain = np.array(array.tolist(), np.uint8)
    assert type(as_batch(array, "reference").pixels) is np.ndarray
    for input_type in ("float32", "uint8"):
        tensor = to_tensor(as_batch(array, "reference"), input_type)
        np.testing.assert_array_equal(tensor, to_tensor(as_batch(plain, "reference"), input_type))
        assert tensor.flags.c_contiguous


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f4", ">f8"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5)])
def test_floats_of_any_strides_and_byte_order(view, dtype, shape):
    array = VIEWS[view](np.random.default_rng(0).random(shape).astype(dtype))
    plain = np.array(array.tolist(), array.dtype.newbyteorder("="))
    tensor, expected = (
        to_tensor(as_batch(each, "reference", value_range=(-1, 1)), "float32") for each in (array, plain)
    )
    np.testing.assert_array_equal(tensor, expected, strict=True)
    assert type(tensor) is np.ndarray
    assert tensor.flags.c_contiguous


# --- things that are no numpy arrays ---


class LikeTorch:
    """What as_batch sees of a torch tensor on the CPU."""

    def __init__(self, array, error=None):
        self.array, self.error = array, error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return self.array


def test_what_converts_itself_is_converted():
    array = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    found = as_batch(LikeTorch(array), "reference", value_range=(-1, 1))
    np.testing.assert_array_equal(found.pixels[0], array)


def test_pil_image_is_taken():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(as_batch(PILImage.fromarray(pixels), "reference").pixels[0], pixels)


@pytest.mark.parametrize(
    ("mode", "said"),
    [("L", "no channel axis"), ("RGBA", "has 4 channels"), ("1", "dtype bool"), ("I", "dtype int32")],
)
def test_pil_image_of_another_mode_is_refused(mode, said):
    assert said in refused(PILImage.new(mode, (8, 8)))


@pytest.mark.parametrize(
    "error",
    [TypeError("can't convert cuda:0 device type tensor"), RuntimeError("requires grad\nUse detach()")],
)
def test_tensor_that_does_not_convert_is_refused(error):
    message = refused(LikeTorch(None, error))
    assert str(error).split("\n")[0] in message
    assert "tensor.detach().cpu()" in message


@pytest.mark.parametrize(
    ("thing", "kind"),
    [([[[1, 2, 3]]], "list"), ("a.png", "str"), (None, "NoneType"), (b"123", "bytes"), (np.ndarray, "type")],
)
def test_what_is_no_array_is_refused(thing, kind):
    assert f"{kind} is not an array; give a numpy array" in refused(thing)


def test_masked_array_is_refused():
    assert ".filled(value)" in refused(np.ma.masked_less(np.ones((4, 4, 3), np.uint8), 2))


# --- rejections ---


@given(
    dtype=st.sampled_from([bool, "i1", "u2", "i4", "i8", "u8", "c8", "O", "S3", "U2", "M8[s]"]),
    shape=st.sampled_from([(4, 4, 3), (3, 4, 4), (1, 3, 4, 4), (4, 4)]),
)
def test_other_dtypes(dtype, shape):
    array = np.zeros(shape, dtype)
    message = refused(array)
    assert f"dtype {array.dtype} " in message
    assert "uint8" in message
    assert "value_range" in message


@given(
    shape=st.lists(st.integers(0, 5), max_size=6).filter(lambda shape: len(shape) not in (3, 4)),
    dtype=st.sampled_from([np.uint8, *FLOATS]),
)
def test_other_ranks(shape, dtype):
    value_range = None if dtype == np.uint8 else (0, 1)
    message = refused(np.zeros(shape, dtype), value_range)
    assert str(tuple(shape)) in message
    assert ("no channel axis" in message) == (len(shape) == 2)
    assert ("[H, W, 3]" if dtype == np.uint8 else "[3, H, W]") in message


@given(
    channels=st.integers(0, 9).filter(lambda n: n != 3),
    sides=st.tuples(*[st.integers(4, 9)] * 2),
    batched=st.booleans(),
    floats=st.booleans(),
)
def test_other_numbers_of_channels(channels, sides, batched, floats):
    image = (channels, *sides) if floats else (*sides, channels)
    array = np.zeros((2, *image) if batched else image, np.float32 if floats else np.uint8)
    message = refused(array, (0, 1) if floats else None)
    assert f"has {channels} channels" in message
    assert str(array.shape) in message


@pytest.mark.parametrize(
    ("shape", "dtype", "transposition"),
    [
        ((8, 9, 3), np.float32, "transpose(2, 0, 1)"),
        ((2, 8, 9, 3), np.float64, "transpose(0, 3, 1, 2)"),
        ((3, 8, 9), np.uint8, "transpose(1, 2, 0)"),
        ((2, 3, 8, 9), np.uint8, "transpose(0, 2, 3, 1)"),
    ],
)
def test_channels_in_the_wrong_place_and_the_advice_helps(shape, dtype, transposition):
    array = np.random.default_rng(0).random(shape).astype(dtype)
    value_range = None if dtype == np.uint8 else (0, 1)
    message = refused(array, value_range)
    assert ("looks like CHW" if dtype == np.uint8 else "looks like HWC") in message
    assert message.endswith(f"; give array.{transposition}")
    advised = eval(message.rsplit("give ", 1)[1], {"array": array})
    found = as_batch(advised, "reference", value_range=value_range)
    assert (found.height, found.width) == (8, 9)


def test_advice_for_gray_helps():
    for dtype, value_range in ((np.uint8, None), (np.float32, (0, 1))):
        x = np.zeros((8, 9), dtype)
        advice = refused(x, value_range).rsplit("give ", 1)[1]
        found = as_batch(eval(advice, {"np": np, "x": x}), "reference", value_range=value_range)
        assert (found.height, found.width) == (8, 9)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((0, 8, 8, 3), "holds no image"),
        ((0, 8, 3), "side of 0 pixels"),
        ((8, 0, 3), "side of 0 pixels"),
        ((2, 0, 8, 3), "side of 0 pixels"),
        ((2, 8, 0, 3), "side of 0 pixels"),
    ],
)
def test_emptiness(shape, said):
    message = refused(np.zeros(shape, np.uint8))
    assert said in message
    assert str(shape) in message
    chw = (*shape[:-3], 3, *shape[-3:-1])
    assert said in refused(np.zeros(chw, np.float32), (0, 1))


def test_bytes_take_no_range():
    assert "leave out value_range=(0, 1)" in refused(np.zeros((4, 4, 3), np.uint8), (0, 1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_must_state_their_range(dtype):
    assert "give value_range=(0, 1) or value_range=(-1, 1)" in refused(np.zeros((3, 4, 4), dtype))


@given(st.tuples(st.floats(), st.floats()).filter(lambda ends: ends not in RANGES))
def test_other_ranges(ends):
    assert f"value_range={ends!r} is not known" in refused(np.zeros((3, 4, 4)), ends)


@pytest.mark.parametrize("value_range", [(0, 255), (0,), (0, 1, 2), (), 1, "unit", (None, 1), (1, 0), ("a", "b")])
def test_what_is_no_range(value_range):
    assert "is not known" in refused(np.zeros((3, 4, 4)), value_range)


@given(float_images(), st.data())
def test_values_that_are_not_finite_are_counted_and_placed(given_, data):
    array, value_range = given_
    places = data.draw(st.sets(st.integers(0, array.size - 1), min_size=1, max_size=4))
    value = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    array = array.copy()
    array.flat[list(places)] = value
    message = refused(array, value_range)
    assert f"{len(places)} of {array.size} values" in message
    first = tuple(map(int, np.unravel_index(min(places), array.shape)))
    assert f"the first ({value}) at index {first};" in message


@given(float_images(), st.data())
def test_values_outside_of_the_range_are_named(given_, data):
    array, value_range = given_
    low, high = value_range
    array = array.copy()
    # The next number outside, the farthest, and some between.
    kind = array.dtype.type
    outside = [np.nextafter(kind(high), kind(2)), np.nextafter(kind(low), kind(-2)), kind(255), kind(-1.5)]
    place = data.draw(st.integers(0, array.size - 1))
    array.flat[place] = data.draw(st.sampled_from(outside))
    message = refused(array, value_range)
    assert f"values from {array.min()} to {array.max()} do not fit value_range=({low}, {high})" in message
    advice = message.rsplit("clip them with ", 1)[1]
    as_batch(eval(advice, {"np": np, "x": array}), "reference", value_range=value_range)


def test_negative_values_do_not_make_the_range_symmetric():
    array = np.linspace(-1, 1, 48).reshape(3, 4, 4)
    assert "values from -1.0 to 1.0 do not fit value_range=(0, 1)" in refused(array, (0, 1))


@pytest.mark.parametrize("name", ["reference", "distorted"])
def test_errors_carry_the_name(name):
    refused(np.zeros((4, 4, 3), np.int64), name=name)


# --- to_tensor and check_pair ---


def test_float_batch_for_a_uint8_model():
    floats = as_batch(np.zeros((3, 4, 4)), "reference", value_range=(0, 1))
    with pytest.raises(ShapeError, match=r"uint8 images \(exported with --input uint8\); give uint8 arrays"):
        to_tensor(floats, "uint8")


def test_input_type_of_no_model():
    with pytest.raises(ValueError, match="'float16'"):
        to_tensor(batch(), "float16")


def test_single_is_a_batch_of_one():
    one = as_batch(np.zeros((64, 48, 3), np.uint8), "reference")
    assert one.single
    assert not batch().single
    check_pair(one, batch(), 31, "alex")


@given(bytes_images(), float_images())
def test_bytes_and_floats_have_the_same_sizes(array, given_):
    floats = np.zeros((array.shape[0], 3, *array.shape[1:3]) if array.ndim == 4 else (3, *array.shape[:2]))
    one, other = as_batch(array, "reference"), as_batch(floats, "distorted", value_range=given_[1])
    assert (one.count, one.height, one.width) == (other.count, other.height, other.width)
    check_pair(one, other, 1, "alex")


@pytest.mark.parametrize(("height", "width"), [(31, 31), (31, 1000), (1000, 31)])
def test_smallest_size_is_enough(height, width):
    check_pair(batch(height, width), batch(height, width), 31, "alex")


@pytest.mark.parametrize(("height", "width"), [(30, 31), (31, 30), (1, 1000)])
def test_below_the_smallest_size(height, width):
    said = rf"images are {width}x{height} \(width x height\); alex needs at least 31x31"
    with pytest.raises(ShapeError, match=said):
        check_pair(batch(height, width), batch(height, width), 31, "alex")


@given(st.tuples(*[st.integers(31, 40)] * 4))
def test_sizes_that_differ(ends):
    height, width, other_height, other_width = ends
    reference, distorted = batch(height, width), batch(other_height, other_width)
    if (height, width) == (other_height, other_width):
        check_pair(reference, distorted, 31, "alex")
        return
    said = rf"reference is {width}x{height}, distorted is {other_width}x{other_height} \(width x height\); LPIPS"
    with pytest.raises(ShapeError, match=said):
        check_pair(reference, distorted, 31, "alex")


@pytest.mark.parametrize(
    ("one", "other", "said"), [(1, 4, "1 image, distorted 4 images"), (2, 1, "2 images, distorted 1 image")]
)
def test_counts_that_differ(one, other, said):
    with pytest.raises(ShapeError, match=f"reference holds {said};"):
        check_pair(batch(count=one), batch(count=other), 31, "alex")


def test_batch_compares_by_identity():
    """Comparing arrays by == has no single answer."""
    array = np.zeros((1, 4, 4, 3), np.uint8)
    assert Batch(array, True) != Batch(array, True)
