"""Pairs in, results out, in order: decoding runs ahead of scoring, and pairs of one size are scored together."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from .errors import LpipsError, UsageError
from .images import load_image
from .lookahead import AnyPair, Entry, Lookahead
from .results import Result
from .reuse import Reuse

if TYPE_CHECKING:
    from .detail import Detail
    from .pairs import Pair
    from .scorer import Scorer

__all__ = ["score_stream"]

# Pairs that are scored at once, and pixels of one side of them all, unless the caller says how many: about the least
# with which each net is as fast as with more (python -m benchmarks throughput --batches).
_PAIRS = 16
_PIXELS = 2**19


def score_stream(
    scorer: Scorer,
    pairs: Iterable[AnyPair],
    *,
    background: tuple[int, int, int] | None = None,
    maps: bool = False,
    batch_size: int | None = None,
) -> Generator[Result]:
    """Score pairs of files, those of one size together; see Scorer.stream.

    What goes wrong with one pair is that pair's Result; what goes wrong with `pairs` itself (a table that turns out
    to be broken half way) is raised after the results of all pairs before it.
    """
    reuse = Reuse(scorer, partial(load_image, background=background))
    batches = _Batches(reuse, batch_size, maps=maps)
    # An engine keeps to its own memory.
    waiting = {} if scorer.memory is None else {"most_bytes": scorer.memory.ahead}
    with Lookahead(pairs, reuse.load, room=batches.room, **waiting) as ahead:
        while batch := ahead.next_batch(batches.most):
            if batch[0].images:
                batches.score(batch)
            else:
                batch[0].result = _unread(batch[0])
            for entry in batch:
                entry.release()
            yield from ahead.finished()


class _Batches:
    """Scores decoded pairs of one size together, and learns how many of them fit into memory."""

    def __init__(self, reuse: Reuse, batch_size: int | None, *, maps: bool) -> None:
        self._reuse = reuse
        self._maps = maps
        self._pairs, self._pixels = (_PAIRS, _PIXELS) if batch_size is None else (batch_size, math.inf)
        # Pairs in the window: enough for batches of several sizes side by side.
        self.room = max(4 * _PAIRS, 2 * self._pairs)

    def most(self, height: int, width: int) -> int:
        """How many pairs of this size to score at once."""
        most = max(1, min(self._pairs, self._pixels // (height * width)))
        fitting = self._reuse.together(height, width, depths=self._maps)
        return int(most if fitting is None else min(most, fitting))

    def score(self, batch: Sequence[Entry]) -> bool:
        """Give each pair its result; -> whether none failed.

        What fails together is tried again in halves, so that one bad pair takes no other down. If all of it comes out
        then, it was too much at once, for the memory say, and later batches are as small.
        """
        try:
            details = self._reuse.run([entry.images for entry in batch], depths=self._maps)
        except (LpipsError, MemoryError) as error:
            if len(batch) == 1 or isinstance(error, UsageError):
                batch[0].result = _failed(batch[0].pair, error)
                return False
        else:
            for entry, detail in zip(batch, details, strict=True):
                entry.result = self._result(entry, detail)
            return True
        # Out here the error is gone, and with its frames what they held of the memory.
        smaller, larger = batch[: len(batch) // 2], batch[len(batch) // 2 :]
        both_fine = self.score(smaller) & self.score(larger)
        if both_fine:
            height, width, _ = batch[0].images[0].pixels.shape
            self._pixels = min(self._pixels, len(larger) * height * width)
        return both_fine

    def _result(self, entry: Entry, detail: Detail) -> Result:
        reference, distorted = entry.images
        return Result(
            entry.pair.reference,
            entry.pair.distorted,
            float(detail.distance[0]),
            layers=tuple(map(float, detail.layers[0])),
            notes=(*reference.notes, *distorted.notes, *detail.notes),
            detail=detail if self._maps else None,
            pixels=distorted.pixels if self._maps else None,
        )


def _unread(entry: Entry) -> Result:
    if entry.error is not None:
        return _failed(entry.pair, entry.error)
    return Result(entry.pair.reference, entry.pair.distorted, None, entry.pair.error)


def _failed(pair: Pair, error: BaseException) -> Result:
    """The pair's failure as its Result. A wrong call, and what nobody foresaw, fails the whole stream instead."""
    if isinstance(error, UsageError) or not isinstance(error, (LpipsError, MemoryError)):
        raise error
    return Result(pair.reference, pair.distorted, None, str(error) or "not enough memory")
