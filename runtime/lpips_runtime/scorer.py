"""Scorer: the public face of the runtime."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import images
from ._version import __version__
from .arrays import Batch, as_batch, check_pair
from .checks import smallest_inputs
from .contract import ModelInfo
from .detail import Detail
from .errors import UsageError
from .fast_math import FAST_MATH
from .features import Features, Split
from .log import log
from .memory import Memory
from .models import find_model
from .pair_graph import limited, opened
from .pairs import MAX_BATCH
from .session import Session
from .store import FeatureStore
from .tiling import Part, run_parts
from .workers import Workers

if TYPE_CHECKING:
    from .engine import Engine
    from .pairs import Pair
    from .results import Result

__all__ = ["Detail", "ImageLike", "Scorer"]

ImageLike = str | os.PathLike[str] | np.ndarray

_TILED = images.Note(
    "tiled", "scored in tiles, equal up to rounding, to stay within the limit of memory (--max-memory)"
)


class Scorer:
    """LPIPS between images, by an exported graph.

    >>> with Scorer("artifacts/lpips_alex_fp32.onnx") as scorer:
    ...     scorer.score("a.png", "b.png")

    model: the path of an .onnx or .engine file of lpips-export, a name such as "alex" (artifacts/lpips_alex_fp32.onnx
    or else the installed lpips-model-alex), or None for $LPIPS_MODEL and then "alex". provider: "auto", "cpu", "cuda",
    "openvino" or "tensorrt-rtx", or one of its devices, "cuda:1"; an engine brings its own, "auto" is the first GPU,
    and "tensorrt:1" or "tensorrt-rtx:1" another. threads: that compute on the CPU, None for the cores that this process
    may use, and for engines. fast_math: let a float32 model run in the provider's faster types (bfloat16, TF32) where
    it has any; distances below fast_math.SMALLEST then mean nothing, and `provenance` says so. background: the RGB
    colour, 0..255, under the transparent parts of image files; None refuses them. trust_engine: open a
    version-compatible engine, which runs code of its own on this machine. features: a folder, or a FeatureStore, that
    keeps the features of images, so that each is encoded once, whoever uses the folder. max_memory: bytes, or a size
    such as "2GB", that one call may take at its peak, the model and its images included: batches that would take more
    are run in parts, larger images in tiles. None is 1.45 GB, for vgg 2.9 GB, and refuses nothing; for engines, which
    reserve their memory when they are opened, it must be None.

    Images are given as paths or as arrays: uint8 [H,W,3] or [N,H,W,3], 0..255, or float [3,H,W] or [N,3,H,W]
    with `value_range` stated, (0, 1) or (-1, 1). One Scorer may be used from many threads and event loops at
    once, and be pickled: the copy opens the model anew. In a process that was forked off, ONNX Runtime's threads are
    missing: it scores there, but with one thread; open another Scorer in it, or spawn it.

    Raises ModelError, ProviderError or UsageError on opening, InputError for what cannot be scored, ShapeError, which
    is one, for images of a size that an engine was not built for.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        provider: str = "auto",
        threads: int | None = None,
        fast_math: bool = False,
        background: tuple[int, int, int] | None = None,
        trust_engine: bool = False,
        features: str | os.PathLike[str] | FeatureStore | None = None,
        max_memory: int | str | None = None,
    ) -> None:
        self._arguments = {
            "provider": provider,
            "threads": threads,
            "fast_math": fast_math,
            "background": background,
            "trust_engine": trust_engine,
            "features": features,
            "max_memory": max_memory,
        }
        self._background = None if background is None else images.check_color(background, background)
        self._path = find_model(model).absolute()
        self._session: Session | Engine | None = opened(
            self._path, provider=provider, threads=threads, fast_math=fast_math, trust_engine=trust_engine
        )
        self._memory = limited(self._session, max_memory)
        self._workers = Workers()
        self.store = features if isinstance(features, FeatureStore | None) else FeatureStore(features)
        self._split: Split | None = None
        self._splitting = threading.Lock()
        self._said = False  # that a distance is too small for fast-math
        if self.store is not None:
            _ = self.split  # what cannot be used says so here

    def __reduce__(self) -> tuple:
        return _reopen, (self._path, self._arguments)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the graphs. What is being scored comes to its end; scoring afterwards raises UsageError."""
        with self._splitting:  # else siblings that are being opened would be kept
            self._session = self._split = None
        self._workers.let_go()

    @property
    def _open(self) -> Session | Engine:
        if self._session is None:
            raise UsageError("this Scorer is closed")
        return self._session

    @property
    def info(self) -> ModelInfo:
        """What the graph says of itself."""
        return self._open.info

    @property
    def path(self) -> Path:
        """The file of the graph or engine."""
        return self._path

    @property
    def fast_math(self) -> bool:
        """Whether a float32 model is computed in faster types: that fast_math was asked for, and changes something."""
        return self._open.fast_math

    @property
    def provenance(self) -> dict[str, dict]:
        """What made the numbers: `model` (file, sha256, metadata; of an engine also the .onnx that it was built from)
        and `runtime` (versions, provider, device, whether fast-math is in use; of an engine also the GPU)."""
        session, info = self._open, self.info
        named = (
            "net",
            "version",
            "lin",
            "precision",
            "target",
            "input",
            "backbone_sha256",
            "lin_sha256",
            "exporter",
            "reference",
        )
        return {
            "model": {
                "file": self._path.name,
                "sha256": session.sha256,
                **session.origin,
                **{name: getattr(info, name) for name in named},
            },
            "runtime": {
                "lpips-runtime": __version__,
                **session.runtime,
                "provider": session.provider,
                "device": session.device,
                **({"feature_precision": "fp16"} if self.store is not None and self.store.rounds else {}),
                **({} if self._memory is None else {"max_memory": self._memory.limit}),
            },
        }

    def load(self, image: ImageLike, name: str = "image", *, value_range: tuple[float, float] | None = None) -> Batch:
        """A path or array as a checked batch of images."""
        if isinstance(image, str | os.PathLike):
            return as_batch(images.load_image(image, background=self._background).pixels, name)
        return as_batch(image, name, value_range=value_range)

    def score(
        self, reference: ImageLike, distorted: ImageLike, *, value_range: tuple[float, float] | None = None
    ) -> float | np.ndarray:
        """The distance: a float for one pair, float32 [N] for batches. 0 for equal images, not bounded by 1.

        The first that is too small to be trusted in fast-math is told in the log, as a warning."""
        pair = self._load_pair(reference, distorted, value_range)
        return self._distance(self.run(*pair, depths=False), pair[0].single and pair[1].single)

    def detail(
        self,
        reference: ImageLike | Features,
        distorted: ImageLike | Features,
        *,
        value_range: tuple[float, float] | None = None,
    ) -> Detail:
        """Distance, layers and map of one run, of images or of their features; N is 1 for single images."""
        if isinstance(reference, Features) or isinstance(distorted, Features):
            return self.run_features(reference, distorted)  # pyright: ignore[reportArgumentType]  it checks both
        return self.run(*self._load_pair(reference, distorted, value_range))

    async def ascore(
        self, reference: ImageLike, distorted: ImageLike, *, value_range: tuple[float, float] | None = None
    ) -> float | np.ndarray:
        """`score` in a thread of the Scorer's own, so that the event loop goes on.

        Any number may be awaited at once; as many as this process may use cores, or has time on them, are loaded and
        scored at a time. `max_memory` holds for each call by itself: so many at a time may take so many times as much.
        One that is cancelled before its turn is never scored, later its number is dropped.
        """
        _ = self._open
        return await self._workers.call(self.score, reference, distorted, value_range=value_range)

    async def adetail(
        self, reference: ImageLike, distorted: ImageLike, *, value_range: tuple[float, float] | None = None
    ) -> Detail:
        """`detail`, as ascore."""
        _ = self._open
        return await self._workers.call(self.detail, reference, distorted, value_range=value_range)

    def encode(self, images: ImageLike, *, value_range: tuple[float, float] | None = None) -> Features:
        """What `compare` compares of an image or a batch, computed once. Needs the --split graphs beside the model.

        With `features` what is kept of one large image is mapped, see FeatureStore; `Features.copy` has its own memory.
        """
        batch = self.load(images, value_range=value_range)
        if self._memory is not None:
            self._memory.check_encoded(batch.count, batch.height, batch.width)
        return self.split.encode(batch, mapped=True)

    def compare(self, reference: Features, distorted: Features) -> float | np.ndarray:
        """The distance that `score` gives for the images: a float for one pair, float32 [N] for batches.

        One reference broadcasts over many distorted. Raises ForeignFeaturesError for those of another model.
        """
        detail = self.run_features(reference, distorted, depths=False)
        return self._distance(detail, reference.single and distorted.single)

    def stream(
        self,
        pairs: Iterable[Pair | tuple[str | os.PathLike[str], str | os.PathLike[str]]],
        *,
        maps: bool = False,
        batch_size: int | None = None,
    ) -> Generator[Result]:
        """Score any number of pairs of files, in order; a pair that fails is a Result with its error.

        Decoding runs ahead, and pairs of one size are scored together, whatever lies between them: at most 16 and half
        a megapixel, or as many as `batch_size` (1 to 1024) says. Fewer where memory runs short, and where `pairs`,
        which is iterated in a thread of its own, keeps the stream waiting. Memory does not grow with the stream.

        maps: keep each Result's `detail` and `pixels` too, for heatmaps.
        """
        from .stream import score_stream

        _ = self._open  # a closed one says so here, not in every result
        if batch_size is not None and (type(batch_size) is not int or not 1 <= batch_size <= MAX_BATCH):
            raise UsageError(f"batch_size is {batch_size!r}, it must be a whole number from 1 to {MAX_BATCH}")
        return score_stream(self, pairs, background=self._background, maps=maps, batch_size=batch_size)

    def run(self, reference: Batch, distorted: Batch, *, depths: bool = True) -> Detail:
        """Score checked batches of the same count and size; `depths=False` leaves Detail without its maps.

        On the CPU a pair has the same numbers, to the bit, in whatever batch it is scored. Raises ShapeError for sizes
        that the model does not take or `max_memory` does not allow.
        """
        session = self._open
        check_pair(reference, distorted, session.info.min_size, session.info.net)
        part = self.part(reference, distorted, depths=depths)
        outputs = run_parts(session, reference, distorted, part, depths=depths)
        detail = Detail.of(outputs, reference, session, depths=depths)
        return detail if part.tiles == 1 else replace(detail, tiles=part.tiles, notes=(_TILED, *detail.notes))

    def part(self, reference: Batch, distorted: Batch, *, depths: bool) -> Part:
        """What `run` runs at once of such batches. Raises ShapeError if `max_memory` does not allow them."""
        return Part(None) if self._memory is None else self._memory.part(reference, distorted, depths=depths)

    @property
    def memory(self) -> Memory | None:
        """The limit that it keeps to; None for engines."""
        return self._memory

    def shrink(self) -> None:
        """Give back the memory that earlier runs took."""
        session = self._open
        if isinstance(session, Session):
            session.shrink(smallest_inputs(session.info))
        if self._split is not None:
            self._split.shrink()

    def run_features(self, reference: Features, distorted: Features, *, depths: bool = True) -> Detail:
        """What `run` gives for the images, but for rounding.

        reference: as many as distorted, or one for all.
        """
        session = self._open
        if self._memory is not None and isinstance(distorted, Features):
            self._memory.check_compared(distorted.height, distorted.width)
        return Detail.of(self.split.compare(reference, distorted), distorted, session, depths=depths)

    @property
    def split(self) -> Split:
        """The features and compare graphs beside the model, opened when they are first asked for.

        Raises ModelNotFoundError if they are missing, ModelError if they do not belong to it.
        """
        with self._splitting:
            session = self._open
            if self._split is None:
                self._split = Split(session, self._sibling, self.store)
            return self._split

    def _sibling(self, path: Path, kind: str) -> Session:
        session, asked = self._open, self._arguments
        provider = f"{session.provider}:{session.device}"
        return Session(path, provider=provider, threads=asked["threads"], fast_math=session.fast_math, kind=kind)

    def _distance(self, detail: Detail, single: bool) -> float | np.ndarray:
        """A number has no notes: what fast-math cannot be trusted with is logged, and once, since loops may follow."""
        for note in detail.notes:
            if note.kind == FAST_MATH and not self._said:
                self._said = True
                log.warning("%s", note.text)
        return float(detail.distance[0]) if single else detail.distance

    def _load_pair(
        self, reference: ImageLike, distorted: ImageLike, value_range: tuple[float, float] | None
    ) -> tuple[Batch, Batch]:
        return (
            self.load(reference, "reference", value_range=value_range),
            self.load(distorted, "distorted", value_range=value_range),
        )


def _reopen(path: Path, arguments: dict) -> Scorer:
    return Scorer(path, **arguments)
