"""Encode once, compare many: the two graphs that `lpips-export --split` writes beside a pair graph.

A pair graph computes the features of both images anew for every pair. The features graph computes those of an image
once, and the compare graph, at a fraction of that cost, makes the same distance, layers and depths of any two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import contract
from .arrays import ONE_SIZE, Batch, check_size, to_tensor
from .checks import PROBE, smallest_inputs
from .contract import ModelInfo
from .errors import ForeignFeaturesError, ForeignModelError, ModelNotFoundError, ShapeError, StoreError, UsageError
from .images import Note
from .session import Session

if TYPE_CHECKING:
    from .engine import Engine
    from .store import FeatureStore

__all__ = ["Features", "Split", "sibling"]

# The largest relative difference between the pair graph and its siblings on one INT8 pair: rounding is far below it,
# another calibration above. Of the float graphs the metadata tells all that decides the numbers.
_SAME_INT8 = 1e-3

_DAMAGED = "encoded again, in place of damaged files of the feature store"

# Features compared in one run, in bytes: larger blocks leave the processor's caches and take longer per pair, smaller
# ones are mostly the cost of the call (python -m benchmarks reuse --blocks).
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Features:
    """Encoded images of one size, as `Scorer.encode` gives them.

    values: of each depth, float32 [N, C_k, h_k, w_k], of unit length over the channels; read-only. height, width: of
    the images, pixels. model: what made them, which is the model, the provider, its types, and how a store rounds; only
    those of the same can be compared. single: one image was given without a batch axis, so N is 1. notes: what should
    be known of how they came about, such as a full store.

    `features[i]` are those of image i alone, `features[i:j]` those of several; both share the memory.
    """

    values: tuple[np.ndarray, ...] = field(repr=False)
    height: int
    width: int
    model: str
    single: bool = False
    notes: tuple[Note, ...] = ()

    @property
    def count(self) -> int:
        """Number of images N."""
        return len(self.values[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return sum(value.nbytes for value in self.values)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int | slice) -> Features:
        single = not isinstance(index, slice)
        at = range(self.count)[index]  # an IndexError, as of a list
        part = slice(at, at + 1) if isinstance(at, int) else index
        return replace(self, values=tuple(value[part] for value in self.values), single=single)

    def copy(self) -> Features:
        """The same in memory of their own."""
        return replace(self, values=tuple(value.copy() for value in self.values))

    @staticmethod
    def stack(parts: Sequence[Features]) -> Features:
        """Those of several batches as one, copied. Raises ForeignFeaturesError or ShapeError if they do not fit."""
        if not parts:
            raise ShapeError("no features to stack; give at least one")
        first = parts[0]
        for part in parts:
            _check_alike(first, part)
        values = tuple(np.concatenate(depths) for depths in zip(*(part.values for part in parts), strict=True))
        notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        return replace(first, values=values, single=False, notes=notes)


def sibling(pair: Path, kind: str) -> Path:
    """Where the "features" or "compare" graph of a pair graph lies."""
    return pair.with_name(f"{pair.stem}_{kind}{pair.suffix}")


class Split:
    """The features and compare graphs beside a pair graph, opened and found to belong to it.

    pair: the opened pair graph. opened: path, kind -> the opened graph there. store: where features are kept, if any.

    Attribute: model, the identity of the features that it makes and compares.

    Raises UsageError for an engine, ModelNotFoundError if one is missing, ForeignModelError if one is of another
    export, ModelError and ProviderError as Session does.
    """

    def __init__(
        self, pair: Session | Engine, opened: Callable[[Path, str], Session], store: FeatureStore | None = None
    ) -> None:
        if not isinstance(pair, Session):
            raise UsageError(f"{pair.path}: is an engine; to encode and compare, open an .onnx file of --split")
        paths = {kind: sibling(pair.path, kind) for kind in ("features", "compare")}
        for kind, path in paths.items():
            if not path.exists():
                raise ModelNotFoundError(
                    f"{path}: no such model, the {kind!r} graph of {pair.path.name} is needed to encode and compare; "
                    "export the model again with lpips-export --split"
                )
        self._features, self._compare = (opened(path, kind) for kind, path in paths.items())
        for graph in (self._features, self._compare):
            _check_belongs(graph, pair)
        self._store = store
        self.model = _made_by(self._features, "fp16" if store is not None and store.rounds else "fp32")
        if pair.info.precision == "int8":
            self._check_numbers(pair)

    def encode(self, batch: Batch, *, mapped: bool = False) -> Features:
        """The features of checked images. Raises ShapeError if they are too small, ProviderError as Session does.

        mapped: those of one large image may stay in the store's file, see FeatureStore.
        Through the store, if there is one. A file of it that is damaged is encoded anew, and what cannot be kept there
        is used all the same; `Features.notes` tell.
        """
        check_size(batch, self._features.info.min_size, self._features.info.net)
        values, notes = (self._run(batch), ()) if self._store is None else self._stored(batch, self._store, mapped)
        return Features(values, batch.height, batch.width, self.model, batch.single, notes)

    def compare(self, reference: Features, distorted: Features) -> list[np.ndarray]:
        """Distance, layers and the maps of the depths, for as many pairs as there are distorted images.

        reference: as many, or one for all. Raises ForeignFeaturesError for features of another model, ShapeError for
        sizes or counts that do not fit, ProviderError as Session does.
        """
        for features, name in ((reference, "reference"), (distorted, "distorted")):
            self._check(features, name)
        _check_alike(reference, distorted)
        if reference.count not in (1, distorted.count):
            raise ShapeError(
                f"reference holds features of {reference.count} images, distorted of {distorted.count}; give as many "
                "of each, or one reference"
            )
        block = max(1, BLOCK_BYTES * distorted.count // distorted.nbytes)
        names = contract.results(self._compare.depths)
        parts = []
        for start in range(0, distorted.count, block):
            part = slice(start, start + block)
            sides = {"reference": reference if reference.count == 1 else reference[part], "distorted": distorted[part]}
            inputs = {contract.feature(k, side): v for side, of in sides.items() for k, v in enumerate(of.values)}
            parts.append(self._compare.run(inputs, names))
        return parts[0] if len(parts) == 1 else [np.concatenate(output) for output in zip(*parts, strict=True)]

    def shrink(self) -> None:
        """Give back what earlier runs took."""
        found = self._features.shrink(smallest_inputs(self._features.info))
        sides = ("reference", "distorted")
        self._compare.shrink({contract.feature(k, side): value for side in sides for k, value in enumerate(found)})

    def _run(self, batch: Batch) -> tuple[np.ndarray, ...]:
        """Image by image, so that its features depend on nothing else, and in the memory of one."""
        names = [contract.feature(k) for k in range(self._features.depths)]
        tensors = (to_tensor(replace(batch, pixels=one[np.newaxis]), self._features.info.input) for one in batch.pixels)
        found = [self._features.run({contract.IMAGE: tensor}, names) for tensor in tensors]
        values = tuple(found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True)))
        for value in values:
            value.flags.writeable = False
        return values

    def _stored(
        self, batch: Batch, store: FeatureStore, mapped: bool
    ) -> tuple[tuple[np.ndarray, ...], tuple[Note, ...]]:
        keys = [store.key(pixels) for pixels in batch.pixels]
        found = dict[str, tuple[np.ndarray, ...]]()
        notes = list[Note]()
        for key in dict.fromkeys(keys):
            try:
                if (values := store.recall(self.model, key, mapped=mapped)) is not None:
                    found[key] = values
            except StoreError as error:
                notes.append(Note("store damaged", _DAMAGED, about=str(error)))
        missing = {key: number for number, key in enumerate(keys) if key not in found}
        if missing:
            encoded = store.rounded(self._run(replace(batch, pixels=batch.pixels[list(missing.values())])))
            for number, key in enumerate(missing):
                found[key] = tuple(value[number : number + 1] for value in encoded)
                try:
                    store.keep(self.model, key, found[key])
                except StoreError as error:
                    notes.append(Note("store unwritten", f"{error}; the distances are not affected"))
        parts = [found[key] for key in keys]
        values = parts[0] if len(parts) == 1 else tuple(np.concatenate(depths) for depths in zip(*parts, strict=True))
        return values, tuple(dict.fromkeys(notes))

    def _check(self, features: Features, name: str) -> None:
        if not isinstance(features, Features):
            kind = type(features).__name__
            raise UsageError(f"{name}: {kind} are no features; give what Scorer.encode returned")
        if features.model != self.model:
            raise ForeignFeaturesError(
                f"{name}: features that cannot be compared here, their {_differences(features.model, self.model)}; "
                "encode the images as they are compared"
            )
        shapes = [value.shape for value in features.values]
        if len(shapes) != self._compare.depths or len({shape[0] for shape in shapes}) != 1 or not features.count:
            raise ShapeError(f"{name}: features of shapes {shapes} are not those of whole images; give some, uncut")

    def _check_numbers(self, pair: Session) -> None:
        """Two INT8 graphs of other calibrations say the same of themselves, and would give other distances."""
        pixels = np.random.default_rng(0).integers(0, 256, (2, 2 * PROBE, 2 * PROBE, 3), dtype=np.uint8)
        a, b = (Batch(image[np.newaxis], single=True) for image in pixels)
        tensors = {
            name: to_tensor(of, pair.info.input) for name, of in ((contract.REFERENCE, a), (contract.DISTORTED, b))
        }
        (expected,) = pair.run(tensors, [contract.DISTANCE])
        one, other = (Features(self._run(of), of.height, of.width, self.model) for of in (a, b))
        found = self.compare(one, other)[0]
        if not np.allclose(found, expected, rtol=_SAME_INT8, atol=0):
            raise ForeignModelError(
                f"{self._features.path}: gives {found[0]:.6g} where {pair.path.name} gives {expected[0]:.6g}, as one "
                "of another calibration would; export them together with lpips-export --split --overwrite"
            )


# What two features must have in common to be compared, in the order of `Features.model`: equal images would not be at 0
# otherwise, and nearly equal ones at anything. The last three are how float32 values came about.
_MAKING = ("net", "LPIPS version", "model (sha256)", "provider", "fast-math", "precision of the store")


def _made_by(graph: Session, kept: str) -> str:
    """The identity of a graph's features, fit for the name of a folder."""
    types = graph.runtime["types"] if graph.fast_math else "off"
    return "_".join((graph.info.net, f"v{graph.info.version}", graph.sha256, graph.provider, types, kept))


def _differences(found: str, expected: str) -> str:
    pairs = itertools.zip_longest(_MAKING, found.split("_"), expected.split("_"), fillvalue="unknown")
    return ", their ".join(f"{what} is {one[:16]}, not {other[:16]}" for what, one, other in pairs if one != other)


def _check_alike(one: Features, other: Features) -> None:
    if one.model != other.model:
        raise ForeignFeaturesError(
            f"features that do not go together, their {_differences(other.model, one.model)}; encode all images alike"
        )
    if (one.height, one.width) != (other.height, other.width):
        raise ShapeError(
            f"features of images of {one.width}x{one.height} and {other.width}x{other.height} (width x height); "
            f"{ONE_SIZE}"
        )


def _check_belongs(graph: Session, pair: Session) -> None:
    for name, expected in _identity(pair.info).items():
        if (found := _identity(graph.info)[name]) != expected:
            raise ForeignModelError(
                f"{graph.path}: does not belong to {pair.path.name}, its {name} is {found}, not {expected}; export "
                "them together with lpips-export --split --overwrite"
            )


def _identity(info: ModelInfo) -> dict[str, object]:
    """What all graphs of one export have in common."""
    return {name: value for name, value in asdict(info).items() if name not in ("kind", "content_sha256")}
