"""Every error that this package raises on purpose.

LpipsError
├── UsageError              the call cannot be meant (also a ValueError)
│   ├── PairingError        a folder, list or table of pairs cannot be read as such
│   └── ForeignResultError  a result file that is to be gone on with is not of this job
├── ModelError              the model cannot be used
│   ├── ModelNotFoundError  (also a FileNotFoundError)
│   ├── ForeignModelError   not ONNX, not exported by this project, of a newer contract, or for another TensorRT or GPU
│   └── DamagedModelError   does not match its manifest, its metadata or its contract
├── ProviderError           the execution provider is missing or failed
├── InputError              an image or array cannot be scored (also a ValueError)
│   ├── ImageFileError      the file cannot be read as an image
│   ├── ImageFormatError    it can, but LPIPS is not defined on what it holds
│   │   └── TransparencyError  transparent pixels, and no background
│   ├── ShapeError          sizes, layout, dtype or value range
│   └── ForeignFeaturesError  features that were made in another way, by another model say, and cannot be compared
├── StoreError              a feature store cannot be used, or a file in it (also an OSError)
└── OutputError             a result cannot be written (also an OSError)

Each message is one or two lines that name the thing, what is wrong with it and what to do. `exit_code` is what
the commands return for it: 2 the call was wrong, 3 the work failed, 1 the answer is no.
"""

from typing import ClassVar

__all__ = [
    "DamagedModelError",
    "ForeignFeaturesError",
    "ForeignModelError",
    "ForeignResultError",
    "ImageFileError",
    "ImageFormatError",
    "InputError",
    "LpipsError",
    "ModelError",
    "ModelNotFoundError",
    "OutputError",
    "PairingError",
    "ProviderError",
    "ShapeError",
    "StoreError",
    "TransparencyError",
    "UsageError",
]


class LpipsError(Exception):
    """Base of all errors of lpips_runtime and lpips_export."""

    exit_code: ClassVar[int] = 3


class UsageError(LpipsError, ValueError):
    """The call cannot be meant as it stands."""

    exit_code = 2


class PairingError(UsageError):
    """A folder, list or table of pairs cannot be read as such."""


class ForeignResultError(UsageError):
    """A result file that is to be gone on with was made by another job, another model or something else."""


class ModelError(LpipsError):
    """The model cannot be used."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model at the path, or of the name, that was given."""

    exit_code = 2


class ForeignModelError(ModelError):
    """The file is not ONNX, not exported by this project, of a newer contract than this version reads, or a plan for
    another TensorRT or GPU than those of this machine."""


class DamagedModelError(ModelError):
    """The file does not match its manifest, its metadata or the tensors that its contract promises."""


class ProviderError(LpipsError):
    """The execution provider that was asked for is missing, or did not take the model."""


class InputError(LpipsError, ValueError):
    """An image or array cannot be scored."""


class ImageFileError(InputError):
    """A file cannot be read as an image: missing, empty, truncated, not an image."""


class ImageFormatError(InputError):
    """A file is an image of a kind that LPIPS is not defined on: CMYK, float, animated, transparent."""


class TransparencyError(ImageFormatError):
    """A file has transparent pixels, and no background to put behind them was given."""


class ShapeError(InputError):
    """Size, batch, layout, dtype or value range of an input is not what the model takes."""


class ForeignFeaturesError(InputError):
    """Features were made by another model, provider or types than those that are to compare them."""


class StoreError(LpipsError, OSError):
    """A folder cannot be a feature store, or a file in it cannot be read or written."""

    exit_code = 2


class OutputError(LpipsError, OSError):
    """A result cannot be written."""
