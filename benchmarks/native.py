"""The native library through its C ABI, in this process: what `make cpp` built, with the installed ONNX Runtime."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any, Self

import numpy as np

from .job import AbsentError, Job, Score

__all__ = [
    "FORMATS",
    "Error",
    "FailedCallError",
    "Image",
    "Library",
    "Native",
    "Options",
    "image",
    "native",
    "needed_files",
    "onnxruntime_library",
]

# Where `make cpp` puts it.
_BUILT = Path(__file__).parents[1] / "build/cpp/liblpips_c.so"

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


class Native:
    """A scorer of the C ABI. Raises FailedCallError."""

    def __init__(self, library: Library, model: Path | bytes, runtime: Path | str, **options: Any) -> None:
        self._library, self._handle = library, c_void_p()
        given = Options(ctypes.sizeof(Options), str(runtime).encode(), None, 0, 0)
        for name, value in options.items():
            setattr(given, name, value)
        path = model if isinstance(model, bytes) else str(model).encode()
        library.checked("open", path, byref(given), byref(self._handle))

    def __enter__(self) -> Self:
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

    def _pairs(self, reference: Sequence[Image], distorted: Sequence[Image]) -> tuple[Any, Any, int]:
        assert len(reference) == len(distorted)
        count = len(reference)
        return (Image * count)(*reference), (Image * count)(*distorted), count


def _floats(array: np.ndarray) -> Any:
    return array.ctypes.data_as(POINTER(c_float))


def onnxruntime_library() -> Path:
    """The library of the installed onnxruntime. Raises AbsentError."""
    found = importlib.util.find_spec("onnxruntime")
    folders = (found and found.submodule_search_locations) or []
    libraries = [path for folder in folders for path in Path(folder, "capi").glob("libonnxruntime.so.*")]
    if not libraries:
        raise AbsentError("the installed onnxruntime has no libonnxruntime.so of its own")
    return libraries[0]


def needed_files(job: Job) -> tuple[Path, ...]:
    """All that the native library needs, besides what every system has. Raises AbsentError."""
    return _BUILT, onnxruntime_library(), Path(job.model)


def native(job: Job) -> Score:
    """Raises AbsentError where it is not built, FailedCallError for what the library refuses."""
    if not _BUILT.exists():
        raise AbsentError("not built: make cpp")
    scorer = Native(Library(_BUILT), Path(job.model), onnxruntime_library(), threads=job.threads)
    return lambda a, b: scorer.score([image(pixels) for pixels in a], [image(pixels) for pixels in b])
