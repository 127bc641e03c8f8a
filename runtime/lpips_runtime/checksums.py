"""A checksum of everything that was written to a result file, beside it: finds a row that was changed afterwards."""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path

from .output import TextSink

__all__ = ["Checksums", "Summed"]

_BYTES = 4
_NONE = bytes(_BYTES)


class Checksums:
    """The CRC-32 of each text that was written, 4 bytes each, in the file `path`.

    Each is written after its text, and nothing waits for the disk: a kill or a loss of power may cost the last ones, or
    leave zeros for them. Texts without one pass.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found = b""
        self._kept = bytearray()
        self._file = None

    def read(self) -> None:
        """Take what is there, a missing file for none. Raises OSError."""
        with suppress(FileNotFoundError):
            self._found = self.path.read_bytes()

    def agrees(self, text: bytes) -> bool:
        """Whether the next text of the file is as it was written, as far as that is known."""
        there, here = self._found[len(self._kept) :][:_BYTES], _checksum(text)
        self._kept += here
        return len(there) < _BYTES or there in (here, _NONE)

    def begin(self) -> None:
        """Write those of the texts that agreed, for others to follow. Raises OSError."""
        self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115
        self._file.write(self._kept)

    def add(self, text: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(_checksum(text))
        except OSError:  # the text is written; the texts from here on are not checked, which costs no result
            self.close()

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


class Summed:
    """A stream of which every text gets its checksum, once it is written."""

    def __init__(self, stream: TextSink, sums: Checksums) -> None:
        self.destination = getattr(stream, "destination", "the output")
        self._stream = stream
        self._sums = sums

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._sums.add(text.encode())

    def flush(self) -> None:
        self._stream.flush()


def _checksum(text: bytes) -> bytes:
    return zlib.crc32(text).to_bytes(_BYTES, "little")
