"""Where results go: standard output or a file, whole or not at all where that can be had."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from .errors import OutputError

__all__ = ["TextSink", "open_output", "reason", "replacing", "reported"]

_AnyPath = str | os.PathLike[str]


class TextSink(Protocol):
    """What a writer writes to: a text file, a StringIO, what `open_output` gives."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class _Utf8:
    """Text to a binary file, flushed with every write."""

    def __init__(self, file: BinaryIO, destination: str) -> None:
        self.destination = destination
        self.whole: bool | None = None  # whether all of the last text was taken; None: nothing written yet
        self._file = file

    def write(self, text: str) -> None:
        self.whole = False
        rest = memoryview(text.encode("utf-8"))
        while rest:  # with PYTHONUNBUFFERED standard output takes as much as it likes at a time
            rest = rest[self._file.write(rest) or 0 :]
        self._file.flush()
        self.whole = True

    def flush(self) -> None:
        pass  # write has done it


@contextmanager
def open_output(path: _AnyPath | None, *, atomic: bool = False, append: bool = False) -> Iterator[TextSink]:
    """Standard output (`path` None) or a file, as a stream of UTF-8 text with plain line ends.

    With `atomic`, for a writer that writes once, an existing file keeps its content until the block ends, and
    for good if an exception leaves the block before the writer has finished. With `append` the text follows
    the file's content. Raises OutputError if the file cannot be opened, closed or put in place; what fails
    in between is the `Writer`'s to report.
    """
    if path is None:
        with _standard_output() as stream:
            yield stream
    elif atomic:
        left_by: BaseException | None = None
        with replacing(path) as file:
            stream = _Utf8(file, os.fspath(path))
            try:
                yield stream
            except BaseException as error:
                if not stream.whole:
                    raise
                left_by = error
        if left_by is not None:
            raise left_by
    else:
        with _opened(path, "ab" if append else "wb", path) as file:
            yield _Utf8(file, os.fspath(path))


@contextmanager
def replacing(path: _AnyPath) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` when the block ends, unless by an exception.

    A device or a pipe is written directly. Raises OutputError if the file cannot be opened, closed or put in
    place; errors of writing are the block's own.
    """
    with reported(path):
        in_place = Path(path).exists() and not Path(path).is_file()
    if in_place:
        with _opened(path, "wb", path) as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".lpips-{os.urandom(8).hex()}.tmp")
    try:
        with _opened(temporary, "xb", path) as file:
            yield file
        with reported(path):
            temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _standard_output() -> Iterator[TextSink]:
    if sys.stdout is None:
        raise OutputError("standard output: is closed; name a file for the results")
    if not hasattr(sys.stdout, "buffer"):  # a notebook's, or a StringIO
        yield sys.stdout
        return
    with reported("standard output"):
        sys.stdout.flush()
    stream = _Utf8(sys.stdout.buffer, "standard output")
    try:
        yield stream
    except (OutputError, BrokenPipeError):
        if stream.whole is False:
            _give_up_standard_output()
        raise


def _give_up_standard_output() -> None:
    """Send what is still buffered nowhere: flushed at exit it would fail again, with a traceback."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def _opened(path: _AnyPath, mode: str, shown: _AnyPath) -> Iterator[BinaryIO]:
    with reported(shown):
        file: Any = open(path, mode)  # noqa: SIM115
    try:
        yield file
    except BaseException:
        with suppress(OSError):  # a second failure, of the flush at closing, would hide the first
            file.close()
        raise
    with reported(shown):
        file.close()


@contextmanager
def reported(shown: _AnyPath) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names what was to be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{os.fspath(shown)}: cannot be written: {reason(error)}") from error


_REASONS = {
    errno.ENOENT: "its folder does not exist; create it first",
    errno.EISDIR: "it is a folder; name a file in it",
}


def reason(error: OSError) -> str:
    """What is wrong with a file that cannot be written, and what to do where we know it."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error))
