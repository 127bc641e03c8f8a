"""lpips.h by ctypes: the C ABI as another language sees it."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FORMATS", "Detail", "FailedCallError", "Image", "Library", "Native", "image"]

FORMATS = {"rgb": 0, "bgr": 1, "rgba": 2, "bgra": 3, "rgbx": 4, "bgrx": 5, "unit": 16, "symmetric": 17}


class Error(ctypes.Structure):
    _fields_ = (("code", c_int32), ("message", c_char * 1020))


class Options(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("onnxruntime", c_char_p),
        ("provider", c_char_p),
        ("threads", c_int32),
        ("quick_start", c_int32),
    )


class Image(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("bytes", c_size_t),
        ("width", c_int64),
        ("height", c_int64),
        ("stride", c_size_t),
        ("format", c_int32),
        ("reserved", c_int32),
    )


class FailedCallError(Exception):
    """A call returned a code. `code`, and the message as text."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message.decode())
        self.code = error.code


def image(array: np.ndarray, name: str = "rgb") -> Image:
    """A view of one image, [H,W,C] or [3,H,W] for planes, which keeps the array."""
    planar = name in ("unit", "symmetric")
    height, width = array.shape[1:] if planar else array.shape[:2]
    stride = 0 if planar else array.strides[0]
    size = array.nbytes if array.flags.c_contiguous else stride * (height - 1) + width * array.shape[2]
    view = Image(array.ctypes.data, size, width, height, stride, FORMATS[name], 0)
    view.array = array
    return view


class Library:
    """The shared library. Its functions are attributes, `lpips_open` being `open`."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        images, error = POINTER(Image), POINTER(Error)
        signatures: dict[str, tuple[Any, list[Any]]] = {
            "version": (c_char_p, []),
            "code_message": (c_char_p, [c_int32]),
            "open": (c_int32, [c_char_p, POINTER(Options), POINTER(c_void_p), error]),
            "close": (None, [c_void_p]),
            "info": (c_char_p, [c_void_p, c_char_p]),
            "score": (c_int32, [c_void_p, images, images, c_size_t, POINTER(c_float), error]),
            "run": (c_int32, [c_void_p, images, images, c_size_t, POINTER(c_void_p), error]),
            "encode": (c_int32, [c_void_p, images, c_size_t, POINTER(c_void_p), error]),
            "compare": (c_int32, [c_void_p, c_void_p, c_void_p, POINTER(c_void_p), error]),
            "features_count": (c_size_t, [c_void_p]),
            "features_free": (None, [c_void_p]),
            "detail_count": (c_size_t, [c_void_p]),
            "detail_distances": (POINTER(c_float), [c_void_p]),
            "detail_depths": (c_size_t, [c_void_p]),
            "detail_layers": (POINTER(c_float), [c_void_p]),
            "detail_depth": (POINTER(c_float), [c_void_p, c_size_t, POINTER(c_int64), POINTER(c_int64)]),
            "detail_map": (c_int32, [c_void_p, POINTER(c_float), c_size_t, error]),
            "detail_size": (None, [c_void_p, POINTER(c_int64), POINTER(c_int64)]),
            "detail_free": (None, [c_void_p]),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(self._library, f"lpips_{name}")
            function.restype, function.argtypes = result, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, f"lpips_{name}")

    def checked(self, name: str, *arguments: Any) -> None:
        """Call a function whose last argument is the error. Raises FailedCallError."""
        error = Error()
        code = getattr(self, name)(*arguments, byref(error))
        assert code == error.code
        if code:
            raise FailedCallError(error)
        assert error.message == b""


class Detail:
    """All that a detail holds, as arrays of our own; the handle is freed."""

    def __init__(self, library: Library, handle: c_void_p) -> None:
        count, depths = library.detail_count(handle), library.detail_depths(handle)
        height, width = c_int64(), c_int64()
        self.distance = np.ctypeslib.as_array(library.detail_distances(handle), (count,)).copy()
        self.layers = np.ctypeslib.as_array(library.detail_layers(handle), (count, depths)).copy()
        self.depths = []
        for k in range(depths):
            values = library.detail_depth(handle, k, byref(height), byref(width))
            self.depths.append(np.ctypeslib.as_array(values, (count, height.value, width.value)).copy())
        assert not library.detail_depth(handle, depths, None, None)
        library.detail_size(handle, byref(height), byref(width))
        self.map = np.empty((count, height.value, width.value), np.float32)
        library.checked("detail_map", handle, self.map.ctypes.data_as(POINTER(c_float)), self.map.size)
        library.detail_free(handle)


class Native:
    """A scorer of the C ABI. Raises FailedCallError."""

    def __init__(self, library: Library, model: Path | bytes, runtime: Path | str, **options: Any) -> None:
        self._library, self._handle = library, c_void_p()
        given = Options(ctypes.sizeof(Options), str(runtime).encode(), None, 0, 0)
        for name, value in options.items():
            setattr(given, name, value)
        path = model if isinstance(model, bytes) else str(model).encode()
        library.checked("open", path, byref(given), byref(self._handle))

    def __enter__(self) -> "Native":
        return self

    def __exit__(self, *_: object) -> None:
        self._library.close(self._handle)

    def info(self, key: str) -> str | None:
        found = self._library.info(self._handle, key.encode())
        return None if found is None else found.decode()

    def score(self, reference: Sequence[Image], distorted: Sequence[Image]) -> np.ndarray:
        found = np.full(len(distorted), np.nan, np.float32)
        self._library.checked("score", self._handle, *self._pairs(reference, distorted), _floats(found))
        return found

    def detail(self, reference: Sequence[Image], distorted: Sequence[Image]) -> Detail:
        handle = c_void_p()
        self._library.checked("run", self._handle, *self._pairs(reference, distorted), byref(handle))
        return Detail(self._library, handle)

    def compare(self, reference: Sequence[Image], distorted: Sequence[Image]) -> Detail:
        """By their features, encoded for this call."""
        handles = []
        for images in (reference, distorted):
            handle = c_void_p()
            array = (Image * len(images))(*images)
            self._library.checked("encode", self._handle, array, len(images), byref(handle))
            assert self._library.features_count(handle) == len(images)
            handles.append(handle)
        found = c_void_p()
        self._library.checked("compare", self._handle, *handles, byref(found))
        for handle in handles:
            self._library.features_free(handle)
        return Detail(self._library, found)

    def _pairs(self, reference: Sequence[Image], distorted: Sequence[Image]) -> tuple[Any, Any, int]:
        assert len(reference) == len(distorted)
        count = len(reference)
        return (Image * count)(*reference), (Image * count)(*distorted), count


def _floats(array: np.ndarray) -> Any:
    return array.ctypes.data_as(POINTER(c_float))
