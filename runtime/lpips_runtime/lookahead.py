"""The pairs that a stream scores next: taken from their source and decoded ahead, in threads of their own."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from weakref import WeakValueDictionary

from .errors import UsageError
from .images import Image, file_state
from .pairs import Pair
from .results import Result
from .workers import cores

__all__ = ["AnyPair", "Entry", "Lookahead"]

_AnyPath = str | os.PathLike[str]
AnyPair = Pair | tuple[_AnyPath, _AnyPath]

# Pixels of pairs that wait, about; those of large images would fill the memory long before their number is a limit.
_BYTES = 64 * 2**20
# Threads: as many as there are cores, within these. Decoding is a tenth to a third of the work of scoring on the same
# cores, and Pillow decodes without the interpreter's lock (python -m benchmarks throughput).
_DECODERS = (2, 8)
# A source that has not answered for so long, in seconds, is one to wait for: what is there is scored meanwhile.
_PATIENCE = 0.02


class Entry:
    """One pair in the window: once decoded, with its images, or with the `error` that there is instead.

    size: height and width of both images; None if they differ or there are none. result: its user's to set.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.images: tuple[Image, ...] = ()
        self.size: tuple[int, int] | None = None
        self.error: BaseException | None = None
        self.result: Result | None = None
        self.decoding: tuple[Future[Image], ...] = ()
        self.undecoded = 0  # of its images
        self.taken = False  # by next_batch

    @property
    def bytes(self) -> int:
        return sum(image.pixels.nbytes for image in self.images)

    def release(self) -> None:
        """Let go of the images."""
        self.images, self.decoding = (), ()


class Lookahead:
    """Pairs from an iterable, decoded ahead; a context, which ends its threads.

    pairs: iterated in a thread of its own, so that a source that blocks (a pipe) holds up no pair that it has given
    already. load: path -> Image, called in several threads; an image that several waiting pairs share, such as the
    reference of them all, is loaded once. room: pairs taken from the source and not let go yet, at most. most_bytes:
    pixels of pairs that wait while another is scored; if the latest had more, none waits.
    """

    def __init__(
        self, pairs: Iterable[AnyPair], load: Callable[[Path], Image], *, room: int, most_bytes: int = _BYTES
    ) -> None:
        self._source = iter(pairs)
        self._load = load
        self._room = room
        self._changed = threading.Condition()
        # All below is read and written with the lock of `_changed` only.
        self._entries: deque[Entry] = deque()
        self._undecoded = 0
        self._bytes = 0
        self._most_bytes = most_bytes
        self._expected = most_bytes  # bytes of a pair that is not decoded yet: those of the latest one
        # By the file's state, as long as a pair in the window needs the image; so does the next one perhaps, if the
        # latest did.
        self._shared: WeakValueDictionary[Hashable, Future[Image]] = WeakValueDictionary()
        self._latest: tuple[Future[Image], ...] = ()
        self._asked: float | None = None  # when the source was asked for the pair that it has not given yet
        self._ended = False
        self._failure: BaseException | None = None  # what the source raised
        self._closed = False

    def __enter__(self) -> Lookahead:
        low, high = _DECODERS
        self._decoders = max(low, min(high, cores()))
        self._pool = ThreadPoolExecutor(self._decoders, thread_name_prefix="lpips-decode")
        # A daemon: one that waits for its source, which nobody can interrupt, must not keep the process alive.
        self._taker = threading.Thread(target=self._take, name="lpips-pairs", daemon=True)
        self._taker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
        finally:
            self._let_go()
        self._pool.shutdown(wait=True, cancel_futures=True)
        # Unless it waits for its source; then it ends when that answers.
        self._taker.join(timeout=5 * _PATIENCE)

    def _let_go(self) -> None:
        """Release the lock as often as this thread holds it.

        A signal may raise in the midst of Condition.__enter__ or __exit__, which leaves it held, and the decoders would
        wait for it while they are waited for. That it is held no longer, only the error of one release too many tells.
        """
        with suppress(RuntimeError):
            while True:
                self._changed.release()

    def next_batch(self, most: Callable[[int, int], int]) -> list[Entry]:
        """The oldest pair that was not handed out yet, and later ones of its size, decoded; [] once there are no more.

        most: height, width -> how many pairs of this size at most. Waits for so many as long as they can be had
        without waiting for the source. What the source raised is raised once all pairs before it were handed out.
        """
        with self._changed:
            while True:
                waiting = [entry for entry in self._entries if not entry.taken]
                if not waiting and self._ended:
                    if self._failure is not None:
                        raise self._failure
                    return []
                patience = None
                if waiting and not waiting[0].undecoded:
                    size = waiting[0].size
                    count = 1 if size is None else most(*size)
                    batch = [entry for entry in waiting if entry.size == size][:count]
                    patience = 0 if len(batch) == count else self._patience()
                    if patience == 0:
                        return self._taken(batch)
                self._changed.wait(patience)

    def _taken(self, batch: list[Entry]) -> list[Entry]:
        for entry in batch:
            entry.taken = True
            self._bytes -= entry.bytes
        self._changed.notify_all()
        return batch

    def finished(self) -> Iterator[Result]:
        """The results of the oldest pairs up to the first that has none yet. Each makes room for another pair."""
        while self._entries and (result := self._entries[0].result) is not None:
            with self._changed:
                self._entries.popleft()
                self._changed.notify_all()
            yield result

    def _patience(self) -> float | None:
        """Seconds in which more may be decoded; None: until something is; 0: nothing before something is scored."""
        if self._undecoded:
            return None
        if self._ended or not self._has_room():
            return 0
        return max(0, _PATIENCE - (0 if self._asked is None else time.monotonic() - self._asked))

    def _has_room(self) -> bool:
        if not self._entries:
            return True
        bytes_soon = self._bytes + (self._undecoded + 1) * self._expected
        return len(self._entries) < self._room and self._undecoded < self._decoders and bytes_soon <= self._most_bytes

    def _take(self) -> None:
        failure = None
        try:
            self._take_all()
        except BaseException as error:  # noqa: BLE001  whatever the caller's own iterator raises
            failure = error
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def _take_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._has_room())
                if self._closed:
                    return
                self._asked = time.monotonic()
            try:
                pair = next(self._source)
            except StopIteration:
                return
            entry = Entry(_as_pair(pair))
            with self._changed:
                self._asked = None
                if self._closed:
                    return
                if entry.pair.error is None:
                    self._decode(entry)
                self._entries.append(entry)
                self._changed.notify_all()

    def _decode(self, entry: Entry) -> None:
        futures = []
        for path in (entry.pair.reference_path, entry.pair.distorted_path):
            key = file_state(path)
            future = self._shared.get(key)
            if future is None:
                future = self._shared[key] = self._pool.submit(self._load, path)
            futures.append(future)
        entry.decoding, entry.undecoded = tuple(futures), len(futures)
        self._undecoded += 1
        for future in futures:
            future.add_done_callback(lambda _: self._one_decoded(entry))
        self._latest = entry.decoding

    def _one_decoded(self, entry: Entry) -> None:
        with self._changed:
            entry.undecoded -= 1
            if entry.undecoded or self._closed:
                return
            self._undecoded -= 1
            # Not raised: pairs that share an image share its exception, whose traceback would grow with each of them.
            entry.error = next((error for future in entry.decoding if (error := future.exception())), None)
            if entry.error is None:
                entry.images = tuple(future.result() for future in entry.decoding)
                sizes = {image.pixels.shape[:2] for image in entry.images}
                entry.size = sizes.pop() if len(sizes) == 1 else None
                self._expected = entry.bytes
                self._bytes += entry.bytes
            self._changed.notify_all()


def _as_pair(pair: AnyPair) -> Pair:
    if isinstance(pair, Pair):
        return pair
    try:
        reference, distorted = pair
        return Pair(os.fspath(reference), os.fspath(distorted), Path(reference), Path(distorted))
    except (TypeError, ValueError):
        raise UsageError(f"{str(pair)[:100]} is no pair; give a Pair, or the paths of two image files") from None
