"""What a job compares more than once is encoded once: the choice between a pair graph and its --split siblings."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .arrays import Batch, as_batch
from .detail import Detail
from .errors import ModelError, ModelNotFoundError, ProviderError
from .features import BLOCK_BYTES, Features
from .images import Image, Note, file_state

if TYPE_CHECKING:
    from .scorer import Scorer

__all__ = ["CACHE_BYTES", "Reuse"]

# Features and pixels that a job keeps in memory: those of 380 images of 256x256 with alex, 100 with squeeze, 31 with
# vgg.
CACHE_BYTES = 10**9

# Bytes of one image's features per pixel, rounded up.
_FEATURE_BYTES = {"alex": 42, "squeeze": 140, "vgg": 488}

# Providers that compute in the host's memory. To others features would travel back and forth for each comparison.
_HOST = frozenset(("cpu", "openvino"))

# Pixels that are encoded at once: larger images gain nothing from company (python -m benchmarks.reuse --blocks).
_BLOCK_PIXELS = 1 << 16

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

_Pairs = Sequence[Sequence[Image]]
_T = TypeVar("_T")


class Reuse:
    """Runs a job's batches, each in the way that computes least.

    Where a batch shares images within itself or with batches before it, they are encoded one by one and compared; where
    it does not, the pair graph is faster. A store, if the scorer has one, is used for all. The CPU's memory is where
    features lie: for other devices it is the pair graph always.

    load: path -> Image, called in any number of threads; `run` is for one. limit: bytes of the features and pixels
    that are kept; those used last stay. By default CACHE_BYTES, and a quarter of the scorer's max_memory at most.
    """

    def __init__(self, scorer: Scorer, load: Callable[[Path], Image], *, limit: int | None = None) -> None:
        self._scorer = scorer
        self._load = load
        self._limit = limit or min(CACHE_BYTES, (scorer.max_memory or 4 * CACHE_BYTES) // 4)
        self._cache = _Cache(self._limit)
        self._seen: dict[int, None] = {}
        self._wasted = 0  # images encoded that need not have been, for want of siblings

    def load(self, path: Path) -> Image:
        """The decoded file, which is not decoded again while its features are kept."""
        key = file_state(path)
        kept = self._cache.get(key)
        return replace(self._load(path), key=key) if kept is None else kept[0]

    def run(self, pairs: _Pairs, *, depths: bool) -> Detail:
        """Score pairs of images from `load`, all of one size; what Scorer.run gives and raises."""
        images = {image.key: image for pair in pairs for image in pair}
        spared = self._spared(pairs, images)
        # A comparison takes up to a quarter of the time that encoding an image takes.
        if spared is None or (self._scorer.store is None and 4 * spared < len(pairs)):
            detail = self._whole(pairs, depths)
        elif (hindrance := self._hindrance(*pairs[0], depths=depths)) is not None:
            self._wasted += spared
            detail = self._whole(pairs, depths)
            if self._wasted >= _WORTH_A_WORD:
                detail = replace(detail, notes=(*detail.notes, hindrance))
        else:
            detail = self._compared(pairs, self._encoded(images), depths)
        self._seen.update(dict.fromkeys(map(hash, images)))
        for key in list(itertools.islice(self._seen, max(0, len(self._seen) - _SEEN))):
            del self._seen[key]
        return detail

    def _spared(self, pairs: _Pairs, images: dict[Hashable, Image]) -> int | None:
        """How many images fewer are encoded one by one than pair by pair, now and, as what came back once will come
        back again, later. None where it cannot be had."""
        if self._device not in _HOST or len({image.pixels.shape for image in images.values()}) > 1:
            return None
        new = [key for key in images if self._cache.get(key) is None]
        return 2 * len(pairs) - len(new) + sum(hash(key) in self._seen for key in new)

    @cached_property
    def _device(self) -> str:
        return self._scorer.provenance["runtime"]["provider"]

    @cached_property
    def _unsplit(self) -> Note | None:
        try:
            _ = self._scorer.split
        except ModelNotFoundError:
            return _UNSPLIT
        except (ModelError, ProviderError) as error:
            return Note("unsplit", f"an image that was compared before is encoded again, because {error}")
        return None

    def _hindrance(self, reference: Image, distorted: Image, *, depths: bool) -> Note | None:
        """Why images of this size are not encoded one by one."""
        if self._unsplit is not None:
            return self._unsplit
        height, width, _ = reference.pixels.shape
        kept = 2 * height * width * _FEATURE_BYTES[self._scorer.info.net]
        tiled = self._scorer.part(_batch([reference]), _batch([distorted]), depths=depths).tiles > 1
        return _TOO_LARGE if tiled or kept > self._limit else None

    def _whole(self, pairs: _Pairs, depths: bool) -> Detail:
        return self._scorer.run(*(_batch(side) for side in zip(*pairs, strict=True)), depths=depths)

    def _compared(self, pairs: _Pairs, features: dict[Hashable, Features], depths: bool) -> Detail:
        details = [
            self._scorer.run_features(features[reference], block, depths=depths)
            for reference, group in itertools.groupby(pairs, key=lambda pair: pair[0].key)
            for block in _blocks([features[distorted.key] for _, distorted in group])
        ]
        notes = dict.fromkeys(note for one in (*features.values(), *details) for note in one.notes)
        return replace(_joined(details), notes=tuple(notes))

    def _encoded(self, images: dict[Hashable, Image]) -> dict[Hashable, Features]:
        """The features of each image, out of the cache or new."""
        found = {key: kept[1] for key in images if (kept := self._cache.get(key)) is not None}
        new = [image for key, image in images.items() if key not in found]
        for block in _cut(new, _BLOCK_PIXELS, lambda image: image.pixels.size // 3):
            features = self._scorer.split.encode(_batch(block))
            for number, image in enumerate(block):
                # A part of a block would keep the memory of the whole.
                found[image.key] = features if len(block) == 1 else features[number].copy()
                self._cache.add(image, found[image.key])
        return found


class _Cache:
    """Images and their features by the image's key; beyond `limit` bytes those go that were not used the longest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
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
            while self._bytes > self._limit:
                _, (image, features) = self._kept.popitem(last=False)
                self._bytes -= image.pixels.nbytes + features.nbytes


def _batch(images: Sequence[Image]) -> Batch:
    pixels = [image.pixels for image in images]
    return as_batch(np.stack(pixels) if len(pixels) > 1 else pixels[0], "image")


def _blocks(features: Sequence[Features]) -> Iterator[Features]:
    """To be compared at once: small ones together, large ones as they are, without a copy."""
    for block in _cut(features, BLOCK_BYTES, lambda one: one.nbytes):
        yield block[0] if len(block) == 1 else Features.stack(block)


def _cut(items: Sequence[_T], most: int, size: Callable[[_T], int]) -> Iterator[Sequence[_T]]:
    """Items of one size in blocks of `most` of it, but one at least."""
    step = max(1, most // size(items[0])) if items else 1
    return (items[start : start + step] for start in range(0, len(items), step))


def _joined(details: Sequence[Detail]) -> Detail:
    if len(details) == 1:
        return details[0]
    return replace(
        details[0],
        distance=np.concatenate([detail.distance for detail in details]),
        layers=np.concatenate([detail.layers for detail in details]),
        depths=tuple(np.concatenate(maps) for maps in zip(*(detail.depths for detail in details), strict=True)),
    )
