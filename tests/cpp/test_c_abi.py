"""The C ABI by ctypes: what it says of bad input, and what it exports."""

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import native
import numpy as np
import onnx_files
import pytest
from c_abi import FORMATS, Error, FailedCallError, Image, Library, Native, Options, image

from lpips_runtime import __version__

Opened = Callable[..., Native]
Models = Callable[[str], Path]

CODES = dict(re.findall(r"LPIPS_([A-Z_]+) = (\d+)", (native.HEADERS / "lpips.h").read_text()))
HUGE = 2**63 - 1


def refused(code: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The message of the failure, which must be of this code and one line that says something."""
    with pytest.raises(FailedCallError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert caught.value.code == int(CODES[code]), message
    assert "\n" not in message
    assert len(message) > 20
    return message


@pytest.fixture
def alex(models: Models, opened: Opened) -> Native:
    return opened(models("alex"))


@pytest.fixture
def good() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def changed(view: Image, **fields: Any) -> Image:
    copy = Image.from_buffer_copy(view)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


def test_versions_are_the_projects(c_library: Library) -> None:
    assert c_library.version().decode() == __version__


def test_each_code_has_words_of_its_own(c_library: Library) -> None:
    codes = {name: int(code) for name, code in CODES.items() if name not in {key.upper() for key in FORMATS}}
    codes = {name: code for name, code in codes.items() if not name.startswith("PLANAR")}
    words = [c_library.code_message(code).decode() for code in codes.values()]
    assert all(words)
    assert len(set(words)) == len(words)
    assert c_library.code_message(12345)


def test_a_model_says_what_it_is(alex: Native) -> None:
    assert (alex.info("net"), alex.info("min_size"), alex.info("input")) == ("alex", "31", "float32")
    assert re.match(r"\d+\.\d+", alex.info("onnxruntime") or "")
    assert alex.info("no such key") is None


def test_metadata_is_told_by_its_keys(alex: Native, models: Models) -> None:
    metadata = onnx_files.metadata(models("alex").read_bytes())
    assert metadata["lpips.eps"] == "1e-10"
    for key, value in metadata.items():
        assert alex.info(key.removeprefix("lpips.")) == value


@pytest.mark.parametrize(
    ("code", "fields", "words"),
    [
        ("BUFFER", {"data": None}, "null"),
        ("BUFFER", {"bytes": 5759}, "has 5759 bytes, 48x40 needs 5760"),
        ("BUFFER", {"bytes": 0}, "has 0 bytes"),
        ("BUFFER", {"stride": 143}, "stride 143 is smaller than a row of 144 bytes"),
        ("SHAPE", {"width": 30}, "alex needs at least 31x31"),
        ("SHAPE", {"width": 0}, "0x40"),
        ("SHAPE", {"height": -1}, "48x-1"),
        ("SHAPE", {"width": HUGE, "height": HUGE, "bytes": 2**64 - 1}, "overflows"),
        ("SHAPE", {"width": 2**32, "height": 2**32}, "overflows"),
        ("SHAPE", {"stride": 2**64 - 1}, "overflows"),
        ("BUFFER", {"width": 2**20, "height": 2**20, "stride": 0}, "1048576x1048576 needs"),
        ("USAGE", {"format": 99}, "format 99 is unknown"),
        ("USAGE", {"reserved": 1}, "reserved"),
    ],
)
def test_an_image_that_is_not_what_it_says(
    code: str, fields: dict[str, Any], words: str, alex: Native, good: np.ndarray
) -> None:
    bad = changed(image(good), **fields)
    assert words in refused(code, alex.score, [bad], [bad])
    # One good side changes nothing, but that sides which differ are said first.
    assert refused("SHAPE" if {"width", "height"} & fields.keys() else code, alex.score, [image(good)], [bad])


def test_sizes_that_differ_are_both_named(alex: Native, good: np.ndarray) -> None:
    turned = np.ascontiguousarray(good.transpose(1, 0, 2))
    assert "reference is 48x40, distorted is 40x48" in refused("SHAPE", alex.score, [image(good)], [image(turned)])
    two = [image(good), image(turned)]
    assert "reference[1]: is 40x48, the first is 48x40" in refused("SHAPE", alex.score, two, [image(good)] * 2)
    assert refused("SHAPE", alex.score, [], [])


def test_values_are_checked(alex: Native, opened: Opened, models: Models, good: np.ndarray) -> None:
    planes = np.full((3, 40, 48), 0.5, np.float32)
    for value in (np.nan, np.inf, -0.1, 1.5, 255):
        planes[1, 2, 3] = value
        assert "value 2019 is" in refused("VALUE", alex.score, [image(planes, "unit")], [image(planes, "unit")])
    planes[:] = 0
    assert "8-bit" in refused("VALUE", opened(models("squeeze")).score, *[[image(planes, "symmetric")]] * 2)
    rgba = np.dstack([good, np.full((40, 48), 255, np.uint8)])
    rgba[3, 4, 3] = 254
    assert "1 of 1920 pixels are transparent" in refused("TRANSPARENT", alex.score, *[[image(rgba, "rgba")]] * 2)


def test_null_pointers_are_errors(c_library: Library, alex: Native, good: np.ndarray) -> None:
    error, view, distance = Error(), image(good), ctypes.c_float()
    usage = int(CODES["USAGE"])
    handle = alex._handle
    for arguments in (
        (None, view, view, 1, distance, error),
        (handle, None, view, 1, distance, error),
        (handle, view, None, 1, distance, error),
        (handle, view, view, 1, None, error),
    ):
        assert c_library.score(*arguments) == usage
        assert b"NULL" in error.message
    assert c_library.open(None, None, ctypes.byref(ctypes.c_void_p()), None) == usage
    assert c_library.open(b"x.onnx", None, None, None) == usage
    assert c_library.compare(handle, None, None, ctypes.byref(ctypes.c_void_p()), None) == usage
    for name in ("close", "detail_free", "features_free"):
        getattr(c_library, name)(None)
    assert c_library.detail_count(None) == 0
    assert c_library.info(None, b"net") is None


def test_options_of_another_size_are_refused(c_library: Library, opened: Opened, models: Models) -> None:
    for size in (0, 4, ctypes.sizeof(Options) + 8):
        assert f"options.size is {size}" in refused("USAGE", opened, models("alex"), size=size)


def test_models_that_cannot_be_opened(opened: Opened, models: Models, tmp_path: Path) -> None:
    missing = tmp_path / "größe.onnx"
    assert f"{missing}: no such model" in refused("MODEL_NOT_FOUND", opened, missing)
    refused("MODEL_NOT_FOUND", opened, tmp_path)
    refused("MODEL_NOT_FOUND", opened, b"")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    refused("FOREIGN_MODEL", opened, path)
    path.write_bytes(onnx_files.foreign())
    assert "not one of lpips-export" in refused("FOREIGN_MODEL", opened, path)
    refused("FOREIGN_MODEL", opened, models("alex_features"))
    data = bytearray(models("alex").read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "was changed or damaged" in refused("DAMAGED_MODEL", opened, path)
    onnx_files.relabelled(models("alex"), path, format="2")
    assert "contract version '2'" in refused("FOREIGN_MODEL", opened, path)
    onnx_files.relabelled(models("alex"), path, net="vgg")
    refused("DAMAGED_MODEL", opened, path)
    onnx_files.relabelled(models("alex"), path, min_size="16")
    assert "needs at least 31" in refused("DAMAGED_MODEL", opened, path)
    onnx_files.relabelled(models("alex"), path, input="uint8")
    assert "its tensors are not those" in refused("DAMAGED_MODEL", opened, path)
    path.write_bytes(onnx_files.squared_difference(net="alex", min_size=31))
    assert "is not the alex that its metadata promises" in refused("DAMAGED_MODEL", opened, path)


def test_runtimes_and_providers_that_cannot_be_used(opened: Opened, models: Models, c_library: Library) -> None:
    model, folder = models("alex"), native.build("gcc") / "tests"
    with pytest.raises(FailedCallError) as caught:
        Native(c_library, model, folder / "nowhere.so")
    assert caught.value.code == int(CODES["RUNTIME_MISSING"])
    with pytest.raises(FailedCallError, match="OrtGetApiBase") as caught:
        Native(c_library, model, folder / "libno_onnxruntime.so")
    assert caught.value.code == int(CODES["RUNTIME_MISSING"])
    with pytest.raises(FailedCallError, match=r"is ONNX Runtime 1\.2\.3, lpips needs 1\.18 or newer") as caught:
        Native(c_library, model, folder / "libold_onnxruntime.so")
    assert caught.value.code == int(CODES["RUNTIME_TOO_OLD"])
    assert "choose from cpu, cuda" in refused("UNKNOWN_PROVIDER", opened, model, provider=b"openvino")
    assert "cuda:5" in refused("PROVIDER", opened, model, provider=b"cuda:5")
    assert "threads is 5000" in refused("USAGE", opened, model, threads=5000)


def test_messages_that_are_too_long_end_with_a_whole_character(opened: Opened) -> None:
    message = refused("MODEL_NOT_FOUND", opened, ("ö" * 2000).encode())
    assert len(message.encode()) <= 1019
    assert set(message) <= {"ö"}


def test_messages_are_one_line_of_utf8_and_never_empty(opened: Opened, models: Models, tmp_path: Path) -> None:
    names = (b"\x80" * 3000, b"\xff\n.onnx", "a\u2028\r\x1b[31m.onnx".encode(), b"\xf0\x9f" * 900, b"\n" * 3000)
    for name in names:
        message = refused("MODEL_NOT_FOUND", opened, name)
        assert len(message.splitlines()) == 1
        assert message.isprintable()
    odd = tmp_path / "a\nb.onnx"
    odd.write_bytes(b"no model")
    assert "a\\nb.onnx: not an ONNX model" in refused("FOREIGN_MODEL", opened, odd)


def test_only_its_own_functions_are_exported(c_library: Library) -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", native.build("gcc") / "liblpips_c.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    exported = {line.split()[-1] for line in listed.stdout.splitlines()}
    declared = set(re.findall(r"LPIPS_API [\w* ]+?(lpips_\w+)\(", (native.HEADERS / "lpips.h").read_text()))
    assert exported == declared


def test_both_headers_have_the_same_codes_and_formats() -> None:
    for file, enum, prefix in (("error.hpp", "Code", ""), ("image.hpp", "Format", "")):
        body = re.search(rf"enum class {enum} : int {{(.*?)\n}};", (native.HEADERS / file).read_text(), re.DOTALL)
        assert body is not None
        for name, number in re.findall(r"(\w+) = (\d+)", body[1]):
            assert CODES[prefix + name.upper()] == number
