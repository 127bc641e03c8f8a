"""Pairs in, results out, in order: decoding runs ahead of scoring."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from .arrays import as_batch
from .errors import LpipsError, UsageError
from .images import Image, Note, load_image
from .pairs import Pair
from .results import Result

if TYPE_CHECKING:
    from .scorer import Scorer

__all__ = ["score_stream"]

# Decoding threads, and pairs decoded ahead of the one that is scored: enough to hide decoding, few enough that
# memory stays flat however long the stream is.
_DECODERS = 2
_AHEAD = 4

_TILED = Note("tiled", "scored in tiles, equal up to rounding, to stay within the limit of memory (--max-memory)")

_AnyPath = str | os.PathLike[str]


def score_stream(
    scorer: Scorer,
    pairs: Iterable[Pair | tuple[_AnyPath, _AnyPath]],
    *,
    background: tuple[int, int, int] | None = None,
    maps: bool = False,
) -> Generator[Result]:
    """Score pairs of files one after the other; see Scorer.stream.

    What goes wrong with one pair is that pair's Result; what goes wrong with `pairs` itself (a table that turns out
    to be broken half way) is raised after the results of all pairs before it.
    """
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="lpips-decode")
    # An image that several waiting pairs share, such as the reference of them all, is decoded once.
    shared: WeakValueDictionary[Path, Future[Image]] = WeakValueDictionary()

    def decode(path: Path) -> Future[Image]:
        future = shared.get(path)
        if future is None:
            future = shared[path] = pool.submit(load_image, path, background=background)
        return future

    source = iter(pairs)
    waiting: deque[tuple[Pair, list[Future[Image]]]] = deque()
    broken: Exception | None = None
    exhausted = False
    try:
        while waiting or not exhausted:
            while not exhausted and len(waiting) <= _AHEAD:
                try:
                    pair = _as_pair(next(source))
                except StopIteration:
                    exhausted = True
                except Exception as error:  # noqa: BLE001  whatever the caller's own iterator raises
                    broken, exhausted = error, True
                else:
                    sides = (pair.reference_path, pair.distorted_path) if pair.error is None else ()
                    waiting.append((pair, [decode(path) for path in sides]))
            if waiting:
                yield _result(scorer, *waiting.popleft(), maps=maps)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if broken is not None:
        raise broken


def _as_pair(pair: Pair | tuple[_AnyPath, _AnyPath]) -> Pair:
    if isinstance(pair, Pair):
        return pair
    try:
        reference, distorted = pair
        return Pair(os.fspath(reference), os.fspath(distorted), Path(reference), Path(distorted))
    except (TypeError, ValueError):
        raise UsageError(f"{str(pair)[:100]} is no pair; give a Pair, or the paths of two image files") from None


def _result(scorer: Scorer, pair: Pair, decoding: list[Future[Image]], *, maps: bool) -> Result:
    if pair.error is not None:
        return Result(pair.reference, pair.distorted, None, pair.error)
    for future in decoding:
        # Not raised: pairs that share an image share its exception, whose traceback would grow with each of them.
        if (error := future.exception()) is not None:
            return _failed(pair, error)
    images = [future.result() for future in decoding]
    try:
        batches = [as_batch(image.pixels, name) for image, name in zip(images, ("reference", "distorted"), strict=True)]
        detail = scorer.run(*batches, depths=maps)
    except (LpipsError, MemoryError) as error:
        return _failed(pair, error)
    return Result(
        pair.reference,
        pair.distorted,
        float(detail.distance[0]),
        layers=tuple(map(float, detail.layers[0])),
        notes=(*images[0].notes, *images[1].notes, *((_TILED,) if detail.tiles > 1 else ())),
        detail=detail if maps else None,
        pixels=images[1].pixels if maps else None,
    )


def _failed(pair: Pair, error: BaseException) -> Result:
    """The pair's failure as its Result. A wrong call, and what nobody foresaw, fails the whole stream instead."""
    if isinstance(error, UsageError) or not isinstance(error, (LpipsError, MemoryError)):
        raise error
    return Result(pair.reference, pair.distorted, None, str(error) or "not enough memory")
