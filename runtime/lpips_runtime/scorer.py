"""Scorer: the public face of the runtime."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import images
from ._version import __version__
from .arrays import Batch, as_batch, check_pair
from .contract import ModelInfo
from .engine import Engine
from .errors import DamagedModelError, UsageError
from .memory import Memory
from .models import find_model, is_plan
from .session import Session
from .tiling import Part, run_parts
from .upsample import spatial_map

if TYPE_CHECKING:
    from .pairs import Pair
    from .results import Result

__all__ = ["Detail", "ImageLike", "Scorer"]

ImageLike = str | os.PathLike[str] | np.ndarray


@dataclass(frozen=True, eq=False)
class Detail:
    """All that one run says of a batch of pairs.

    distance: float32 [N]. layers: float32 [N, L], each depth's share; they sum to the distance. depths: L arrays
    float32 [N, h_k, w_k], the weighted squared difference at each depth's own resolution. height, width: of the
    images, pixels. tiles: into how many tiles each image was cut, 1 for none; the numbers are equal
    up to rounding.
    """

    distance: np.ndarray
    layers: np.ndarray
    depths: tuple[np.ndarray, ...] = field(repr=False)
    height: int
    width: int
    tiles: int = 1

    @cached_property
    def map(self) -> np.ndarray:
        """The reference's spatial map, float32 [N, H, W]: the sum of the depths, each upsampled bilinearly.

        Its mean is near the distance, not equal to it.
        """
        return spatial_map(self.depths, self.height, self.width)


class Scorer:
    """LPIPS between images, by an exported graph.

    >>> with Scorer("artifacts/lpips_alex_fp32.onnx") as scorer:
    ...     scorer.score("a.png", "b.png")

    model: the path of an .onnx or .engine file of lpips-export, a name such as "alex", or None for $LPIPS_MODEL and
    then artifacts/lpips_alex_fp32.onnx. provider: "auto", "cpu", "cuda" or "cuda:1"; an engine brings its own, "auto"
    is the first GPU, and "tensorrt:1" or "tensorrt-rtx:1" another. threads: of ONNX Runtime, None for its default and
    for engines. background: the RGB colour, 0..255, under the transparent parts of image files; None refuses them.
    trust_engine: open a version-compatible engine, which runs code of its own on this machine. max_memory: bytes, or
    a size such as "2GB", that one call may take at its peak, the model and its images included: batches that would
    take more are run in parts, larger images in tiles. None is 1.45 GB, for vgg 2.9 GB, and refuses nothing; for
    engines, which reserve their memory when they are opened, it must be None.

    Images are given as paths or as arrays: uint8 [H,W,3] or [N,H,W,3], 0..255, or float [3,H,W] or [N,3,H,W]
    with `value_range` stated, (0, 1) or (-1, 1). One Scorer may be used from many threads, and be pickled: the copy
    opens the model anew.

    Raises ModelError, ProviderError or UsageError on opening, InputError for what cannot be scored, ShapeError, which
    is one, for images of a size that an engine was not built for.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        provider: str = "auto",
        threads: int | None = None,
        background: tuple[int, int, int] | None = None,
        trust_engine: bool = False,
        max_memory: int | str | None = None,
    ) -> None:
        self._arguments = {
            "provider": provider,
            "threads": threads,
            "background": background,
            "trust_engine": trust_engine,
            "max_memory": max_memory,
        }
        self._background = None if background is None else images.check_color(background, background)
        self._path = find_model(model).absolute()
        self._session: Session | Engine | None = _opened(self._path, provider, threads, trust_engine)
        self._memory = _limited(self._path, self._session, max_memory)

    def __reduce__(self) -> tuple:
        return _reopen, (self._path, self._arguments)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the graph. Scoring afterwards raises UsageError."""
        self._session = None

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
    def provenance(self) -> dict[str, dict]:
        """What made the numbers: `model` (file, sha256, metadata; of an engine also the .onnx that it was built from)
        and `runtime` (versions, provider, device; of an engine also the GPU)."""
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
        """The distance: a float for one pair, float32 [N] for batches. 0 for equal images, not bounded by 1."""
        pair = self._load_pair(reference, distorted, value_range)
        distance = self.run(*pair, depths=False).distance
        return float(distance[0]) if pair[0].single and pair[1].single else distance

    def detail(
        self, reference: ImageLike, distorted: ImageLike, *, value_range: tuple[float, float] | None = None
    ) -> Detail:
        """Distance, layers and map of one run; N is 1 for single images."""
        return self.run(*self._load_pair(reference, distorted, value_range))

    def stream(
        self,
        pairs: Iterable[Pair | tuple[str | os.PathLike[str], str | os.PathLike[str]]],
        *,
        maps: bool = False,
    ) -> Generator[Result]:
        """Score any number of pairs of files, in order, decoding ahead; a pair that fails is a Result with its error.

        maps: keep each Result's `detail` and `pixels` too, for heatmaps.
        """
        from .stream import score_stream

        _ = self._open  # a closed one says so here, not in every result
        return score_stream(self, pairs, background=self._background, maps=maps)

    def run(self, reference: Batch, distorted: Batch, *, depths: bool = True) -> Detail:
        """Score checked batches of the same count and size; `depths=False` leaves Detail without its maps.

        Raises ShapeError for sizes that the model does not take or `max_memory` does not allow.
        """
        session = self._open
        check_pair(reference, distorted, session.info.min_size, session.info.net)
        part = Part(None) if self._memory is None else self._memory.part(reference, distorted, depths=depths)
        distance, layers, maps = run_parts(session, reference, distorted, part, depths=depths)
        if fault := _fault(reference.count, session.depths, distance, layers, maps):
            raise DamagedModelError(f"{self._path}: gives {fault}, as no intact model does; export the model again")
        return Detail(distance, layers, tuple(maps), reference.height, reference.width, part.tiles)

    def _load_pair(
        self, reference: ImageLike, distorted: ImageLike, value_range: tuple[float, float] | None
    ) -> tuple[Batch, Batch]:
        return (
            self.load(reference, "reference", value_range=value_range),
            self.load(distorted, "distorted", value_range=value_range),
        )


def _opened(path: Path, provider: str, threads: int | None, trust_engine: bool) -> Session | Engine:
    if is_plan(path):
        return Engine(path, provider=provider, threads=threads, trust_engine=trust_engine)
    if trust_engine:
        raise UsageError(f"{path}: is no .engine file, and nothing else is to be trusted; leave trust_engine out")
    return Session(path, provider=provider, threads=threads)


def _limited(path: Path, session: Session | Engine, max_memory: int | str | None) -> Memory | None:
    if isinstance(session, Session):
        return Memory.of(session.info, max_memory)
    if max_memory is not None:
        raise UsageError(
            f"{path}: an engine reserves its memory when it is opened, for the largest images of its profiles; leave "
            "max_memory out, or build it with a smaller --max"
        )
    return None


def _fault(count: int, depths: int, distance: np.ndarray, layers: np.ndarray, maps: Sequence[np.ndarray]) -> str | None:
    """What is wrong with a run's outputs; None for those of an intact model."""
    if distance.shape != (count,) or layers.shape != (count, depths):
        return f"distances of shape {list(distance.shape)}, layers of shape {list(layers.shape)} for {count} pairs"
    if any(len(depth) != count for depth in maps):
        return f"maps of {', '.join(str(len(depth)) for depth in maps)} images for {count} pairs"
    if not all(np.isfinite(part).all() for part in (distance, layers, *maps)):
        return "values that are not finite"
    if distance.min() < 0:
        return f"a distance of {distance.min()}"
    return None


def _reopen(path: Path, arguments: dict) -> Scorer:
    return Scorer(path, **arguments)
