"""Features kept on disk, so that a data set is encoded once: one file per image, model and provider."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from pathlib import Path

import numpy as np

from .errors import StoreError, UsageError
from .output import reason, replacing

__all__ = ["PRECISIONS", "FeatureStore"]

PRECISIONS = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}

# Smaller files are read, though larger ones be mapped into memory: a map keeps its file open, and of those a process
# may only have so many.
_MAPPED_BYTES = 4 << 20

_Values = tuple[np.ndarray, ...]


class FeatureStore:
    """A folder of features, shared by any number of processes, readers and writers alike.

    folder: made when it is not there. precision: "fp32", or "fp16" for half the space; its error is stated in the
    README. Features of another precision, model or provider lie beside them and are not mixed up with them.

    DIR/<model>/<2 hex digits>/<image>.npy is an array of one record: `feature_0`.. [C_k, h_k, w_k], `image`, the
    key, and `crc32` of all bytes before it. The key is a hash of the image's decoded pixels, so that a file's name,
    format and compression do not matter, and its rotation and background do. A file appears whole or not at all, by
    renaming, and is never changed in place; there is no lock that could be left behind. What is in the folder is
    trusted like a model: the checksum finds damage, not malice. Streams and lpips-score read the files; what
    `Scorer.encode` returns of one large image is mapped, and another program that truncates such a file in place while
    it is in use takes the process down (SIGBUS). Removing or replacing one is safe.

    Raises StoreError if the folder is a file or cannot be made, UsageError for what names none or another precision.
    """

    def __init__(self, folder: str | os.PathLike[str], *, precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision of the store is {precision!r}, must be one of {', '.join(PRECISIONS)}")
        name = os.fspath(folder) if isinstance(folder, str | os.PathLike) else None
        if not isinstance(name, str) or not name:  # an empty one would be the current folder
            raise UsageError(f"the folder of the feature store is {folder!r}; name one, '.' for the current folder")
        self.folder = Path(name).absolute()
        self.precision = precision
        self._unwritable: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise StoreError(
                f"{folder}: cannot be a feature store: {getattr(error, 'strerror', None) or error}; name a folder"
            ) from error

    @property
    def rounds(self) -> bool:
        """Whether features are not the same to the bit once they were kept."""
        return self.precision != "fp32"

    @staticmethod
    def key(pixels: np.ndarray) -> str:
        """What an image is kept under: uint8 [H, W, 3] or float32 [3, H, W] -> 32 hex digits."""
        digest = hashlib.sha256(f"{pixels.dtype.str}{pixels.shape}".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        return digest.hexdigest()[:32]

    def rounded(self, values: _Values) -> _Values:
        """Features as `recall` gives them back, so that no number depends on whether they were kept before."""
        if not self.rounds:
            return values
        return tuple(value.astype(PRECISIONS[self.precision]).astype(np.float32) for value in values)

    def recall(self, model: str, key: str, *, mapped: bool = False) -> _Values | None:
        """The features of an image, L arrays float32 [1, C_k, h_k, w_k], read-only; None if they are not kept.

        mapped: map large ones of single precision into memory: they take none of their own as long as nothing else
        needs it, and keep a file open. Raises StoreError if the file is there but cannot be read, or is damaged.
        """
        path = self._path(model, key)
        try:
            state = path.stat()
        except OSError:  # nothing there, or nothing that may be seen
            return None
        try:
            if not stat.S_ISREG(state.st_mode):  # of a FIFO opening would wait for a writer, for ever
                raise ValueError("it is no regular file")
            if mapped and not self.rounds and state.st_size >= _MAPPED_BYTES:
                return self._values(np.lib.format.open_memmap(path, mode="r"), key)
            with open(path, "rb") as file:
                return self._values(np.lib.format.read_array(file), key)
        # numpy raises ValueError, EOFError, SyntaxError, tokenize's errors and more on headers that are none.
        except Exception as error:
            words = " ".join(str(error).split())[:120] or type(error).__name__
            raise StoreError(f"{path}: is damaged ({words})") from error

    def keep(self, model: str, key: str, values: _Values) -> None:
        """Keep the features of one image, L arrays [1, C_k, h_k, w_k].

        Raises StoreError if that fails, because the disk is full, the folder read-only or the file's place taken;
        then and from then on nothing is written.
        """
        if self._unwritable is not None:
            raise StoreError(self._unwritable)
        shapes = [(f"feature_{k}", PRECISIONS[self.precision], value.shape[1:]) for k, value in enumerate(values)]
        record = np.zeros(1, np.dtype([*shapes, ("image", "S32"), ("crc32", "<u4")]))
        for k, value in enumerate(values):
            record[f"feature_{k}"] = value
        record["image"] = key.encode()
        record["crc32"] = _checksum(record)
        path = self._path(model, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():  # nothing that is to be written into, or waits for a reader
                raise FileExistsError(errno.EEXIST, f"{path.name} is no regular file")
            with replacing(path) as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(record))
                file.write(record.view(np.uint8).data)
        except OSError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            self._unwritable = f"{self.folder}: features cannot be kept there: {reason(cause)}"
            raise StoreError(self._unwritable) from error

    def _path(self, model: str, key: str) -> Path:
        return self.folder / model / key[:2] / f"{key}.npy"

    def _values(self, record: np.ndarray, key: str) -> _Values:
        names = record.dtype.names or ()
        features = [name for name in names if name.startswith("feature_")]
        if names != (*features, "image", "crc32") or record.shape != (1,) or not features:
            raise ValueError("it is no record of features")
        if record["crc32"][0] != _checksum(record):
            raise ValueError("its checksum does not fit")
        if record["image"][0] != key.encode():
            raise ValueError("it is of another image")
        values = tuple(np.asarray(record[name]).astype(np.float32, copy=False) for name in features)
        for value in values:
            value.flags.writeable = False
        return values


def _checksum(record: np.ndarray) -> int:
    return zlib.crc32(record.view(np.uint8)[:-4].data)
