"""lpips.h by ctypes, the C ABI as another language sees it: what the benchmarks have of it, and the rest."""

from collections.abc import Sequence
from ctypes import POINTER, byref, c_float, c_int64, c_void_p

import numpy as np

from benchmarks import native
from benchmarks.native import FORMATS, Error, FailedCallError, Image, Library, Options, image

__all__ = ["FORMATS", "Detail", "Error", "FailedCallError", "Image", "Library", "Native", "Options", "image"]


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


class Native(native.Native):
    """A scorer of the C ABI, with all that it gives besides distances. Raises FailedCallError."""

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
