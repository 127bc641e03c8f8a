"""What a job compares more than once is encoded once: the choice between a pair graph and its --split siblings."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Batch, as_batch
from .detail import Detail
from .errors import ModelError, ModelNotFoundError, ProviderError
from .features import Features
from .images import Image, Note, file_state

if TYPE_CHECKING:
    from .scorer import Scorer

__all__ = ["Reuse"]

# The share of the scorer's memory that features and pixels of earlier images may take.
_SHARE = 4

# Where features lie in the host's memory, as provider and device: OpenVINO's device 0 is the CPU. To others features
# would travel back and forth for each comparison.
_HOST = frozenset((("cpu", 0), ("openvino", 0)))

# Pixels from which on memory that one way of computing has taken is given back before the other one is gone.
_LARGE = 512**2

# Images that are remembered as seen, some 100 bytes each.
_SEEN = 1 << 16

# Images that were encoded in vain before it is said.
_WORTH_A_WORD = 16

_UNSPLIT = Note(
    "unsplit",
    "an image that was compared before is encoded again; with the graphs that lpips-export --split writes beside the "
    "model each image is encoded once",
)
_TOO_LARGE = Note("unkept", "features of images so large are not kept in memory, and computed again for every pair")
_UNSTORED = Note("unstored", "the feature store is not used for images so large (--max-memory)")
_ELSEWHERE = Note("unstored", "the feature store is not used by this provider, to which features would have to travel")

_Pairs = Sequence[Sequence[Image]]


class Reuse:
    """Runs a job's batches, each in the way that computes least.

    Where a batch shares images within itself or with batches before it, they are encoded one by one and compared; where
    it does not, the pair graph is faster. Which it is depends on what is decoded when, and no number does: in float32
    both ways give the same bits. Where they do not, in faster types and other precisions, all images are encoded one by
    one if the siblings are there. A store, if the scorer has one, is used for all. The CPU's memory is where features
    lie: for other devices it is the pair graph always, and for images too large for `scorer.memory` too.

    load: path -> Image, called in any number of threads; `run` is for one. limit: bytes of the features and pixels
    that are kept, by default a quarter of the scorer's memory at most; those used last stay.
    """

    def __init__(self, scorer: Scorer, load: Callable[[Path], Image], *, limit: int | None = None) -> None:
        self._scorer = scorer
        self._load = load
        memory = scorer.memory
        self._limit = limit or (0 if memory is None else memory.limit // _SHARE)
        self._cache = _Cache(self._limit)
        self._seen: dict[int, None] = {}
        self._wasted = 0  # images encoded that need not have been, for want of siblings
        self._way: tuple[str, int] = ("", 0)  # in which the last batch went, and the largest of its images' pixels

    def load(self, path: Path) -> Image:
        """The decoded file, which is not decoded again while its features are kept."""
        key = file_state(path)
        kept = self._cache.get(key)
        return replace(self._load(path), key=key) if kept is None else kept[0]

    def together(self, height: int, width: int, *, depths: bool) -> int | None:
        """How many pairs of this size `run` should be given at most; None: any number."""
        memory = self._scorer.memory
        return None if memory is None else memory.together(height, width, depths=depths)

    def run(self, pairs: _Pairs, *, depths: bool) -> list[Detail]:
        """Score pairs of images from `load`, all of one size; of each what Scorer.run gives, and raises."""
        images = {image.key: image for pair in pairs for image in pair}
        spared = self._spared(pairs, images)
        stored = self._scorer.store is not None
        if spared is None:
            details = self._whole(pairs, depths)
            if stored and self._device not in _HOST:
                details = _noted(details, _ELSEWHERE)
        # A comparison takes up to a quarter of the time that encoding an image takes.
        elif self._alike and not stored and 4 * spared < len(pairs):
            details = self._whole(pairs, depths)
        elif (hindrance := self._hindrance(pairs[0][0], depths=depths)) is not None:
            self._wasted += spared
            details = self._whole(pairs, depths)
            if stored and hindrance is _TOO_LARGE:
                details = _noted(details, _UNSTORED)
            # Images in tiles are not encoded one by one, with siblings or without.
            elif self._wasted >= _WORTH_A_WORD and (hindrance is _TOO_LARGE or details[0].tiles == 1):
                details = _noted(details, hindrance)
        else:
            details = self._compared(pairs, depths)
        self._seen.update(dict.fromkeys(map(hash, images)))
        for key in list(itertools.islice(self._seen, max(0, len(self._seen) - _SEEN))):
            del self._seen[key]
        return details

    def _spared(self, pairs: _Pairs, images: dict[Hashable, Image]) -> int | None:
        """How many images fewer are encoded one by one than pair by pair, now and, as what came back once will come
        back again, later. None where it cannot be had."""
        if self._device not in _HOST or len({image.pixels.shape for image in images.values()}) > 1:
            return None
        new = [key for key in images if self._cache.get(key) is None]
        return 2 * len(pairs) - len(new) + sum(hash(key) in self._seen for key in new)

    @cached_property
    def _device(self) -> tuple[str, int]:
        runtime = self._scorer.provenance["runtime"]
        return runtime["provider"], runtime["device"]

    @cached_property
    def _alike(self) -> bool:
        """Whether siblings give the bits of the pair graph (tests/runtime/test_reuse.py, on real nets)."""
        return self._scorer.info.precision == "fp32" and not self._scorer.fast_math

    @cached_property
    def _unsplit(self) -> Note | None:
        try:
            _ = self._scorer.split
        except ModelNotFoundError:
            return _UNSPLIT
        except (ModelError, ProviderError) as error:
            return Note("unsplit", f"an image that was compared before is encoded again, because {error}")
        return None

    def _hindrance(self, image: Image, *, depths: bool) -> Note | None:
        """Why images of this size are not encoded one by one."""
        height, width, _ = image.pixels.shape
        memory, room = self._scorer.memory, self._room(height, width, depths=depths)
        if memory is None or 2 * height * width * memory.split.kept > room:
            return self._unsplit if self._unsplit is _UNSPLIT else _TOO_LARGE
        return self._unsplit

    def _room(self, height: int, width: int, *, depths: bool) -> int:
        """Bytes for the cache while such a pair is encoded and compared."""
        memory = self._scorer.memory
        return min(self._limit, 0 if memory is None else memory.reused(height, width, depths=depths))

    def _whole(self, pairs: _Pairs, depths: bool) -> list[Detail]:
        height, width, _ = pairs[0][0].pixels.shape
        self._turn("pair", height * width)
        if (memory := self._scorer.memory) is not None:
            self._cache.shrink(max(0, memory.spare(height, width, depths=depths)))
        detail = self._scorer.run(*(_batch(side) for side in zip(*pairs, strict=True)), depths=depths)
        return [detail.pair(k) for k in range(len(pairs))]

    def _compared(self, pairs: _Pairs, depths: bool) -> list[Detail]:
        """Pair by pair, so that its numbers depend on nothing else, and in the memory of one."""
        height, width, _ = pairs[0][0].pixels.shape
        self._turn("features", height * width)
        self._cache.shrink(self._room(height, width, depths=depths))
        details = []
        for reference, distorted in pairs:
            one, more = self._encoded(reference)
            other, rest = self._encoded(distorted)
            detail = self._scorer.run_features(one, other, depths=depths)
            details.append(replace(detail, notes=(*detail.notes, *more, *rest)))
        return details

    def _encoded(self, image: Image) -> tuple[Features, tuple[Note, ...]]:
        """The features of an image, and what is to be said of it if they are not out of the cache."""
        if (kept := self._cache.get(image.key)) is not None:
            return kept[1], ()
        features = self._scorer.split.encode(_batch([image]))
        self._cache.add(image, features)
        return features, features.notes

    def _turn(self, way: str, pixels: int) -> None:
        """Both ways keep what they took, and together it may be more than is allowed."""
        (last, before), self._way = self._way, (way, pixels)
        if last and last != way and max(before, pixels) >= _LARGE:
            self._cache.shrink(0)
            self._scorer.shrink()


class _Cache:
    """Images and their features by the image's key; beyond `limit` bytes those go that were not used the longest."""

    def __init__(self, limit: int) -> None:
        self._limit = self._room = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Image, Features]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> tuple[Image, Features] | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def add(self, image: Image, features: Features) -> None:
        with self._lock:
            self._kept[image.key] = image, features
            self._bytes += image.pixels.nbytes + features.nbytes
            self._evict()

    def shrink(self, room: int) -> None:
        """Keep to so many bytes from now on, where that is less than `limit`."""
        with self._lock:
            self._room = min(self._limit, room)
            self._evict()

    def _evict(self) -> None:
        while self._bytes > self._room:
            _, (image, features) = self._kept.popitem(last=False)
            self._bytes -= image.pixels.nbytes + features.nbytes


def _batch(images: Sequence[Image]) -> Batch:
    pixels = [image.pixels for image in images]
    return as_batch(np.stack(pixels) if len(pixels) > 1 else pixels[0], "image")


def _noted(details: Sequence[Detail], note: Note) -> list[Detail]:
    return [replace(detail, notes=(*detail.notes, note)) for detail in details]
