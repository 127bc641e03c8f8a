"""Which TensorRT is installed, and which GPU it builds for."""

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lpips_runtime.engine import LIBRARIES
from lpips_runtime.errors import ProviderError
from lpips_runtime.gpu import Gpu, find_gpu

from .errors import EngineError, SpecError
from .profiles import EngineSpec

__all__ = ["NO_GPU", "Library", "find_library", "gpu"]

NO_GPU = "check the NVIDIA driver, or install TensorRT-RTX, which builds without a GPU, in place of TensorRT"


@dataclass(frozen=True)
class _Flavour:
    """What building with one of the libraries asks for. refuses: field of EngineSpec -> why it means nothing there."""

    oldest: tuple[int, int]
    tied_to_gpu: bool
    refuses: Mapping[str, str]


# Keys of LIBRARIES; the first that is installed is taken.
_FLAVOURS = {
    "tensorrt": _Flavour((10, 12), True, {}),
    "tensorrt-rtx": _Flavour(
        (1, 0),
        False,
        {
            "timing_cache": "it measures nothing while it builds",
            "version_compatible": "its plans are read by the release that built them and by no other",
            "hardware_compatible": "its plans run on GPUs from Ampere on as they are",
        },
    ),
}

_INSTALL = "install one of the extras: pip install ./runtime '.[tensorrt]', or '.[tensorrt-rtx]' to build without a GPU"


@dataclass(frozen=True)
class Library:
    """An installed TensorRT. flavour: a key of lpips_runtime.plan.FLAVOURS. title: how it is written. version: of the
    library. api: its module. tied_to_gpu: whether it needs a GPU, and builds for that one. refuses: see _Flavour."""

    flavour: str
    title: str
    version: str
    api: Any
    tied_to_gpu: bool
    refuses: Mapping[str, str]

    def check(self, spec: EngineSpec) -> None:
        """Raise SpecError for an option that means nothing to this library."""
        for field, why in self.refuses.items():
            if getattr(spec, field):
                raise SpecError(f"--{field.replace('_', '-')} with {self.title}: {why}; leave the option out")


def find_library() -> Library:
    """TensorRT, or where that is not installed TensorRT-RTX. Raises EngineError, naming the extras, without either."""
    reasons = []
    for name, flavour in _FLAVOURS.items():
        title, module, _ = LIBRARIES[name]
        if importlib.util.find_spec(module) is None:
            continue
        try:
            api = importlib.import_module(module)
        except (ImportError, OSError) as error:  # OSError: a library of CUDA that cannot be loaded
            reasons.append(f"{module} cannot be imported ({_first_line(error)})")
            continue
        version = str(api.__version__)
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < flavour.oldest:
            oldest = ".".join(map(str, flavour.oldest))
            reasons.append(f"{title} {version} is older than {oldest}")
            continue
        return Library(name, title, version, api, flavour.tied_to_gpu, flavour.refuses)
    raise EngineError(f"no TensorRT: {'; '.join(reasons) or 'none is installed'}; {_INSTALL}")


def gpu() -> Gpu:
    """The GPU that TensorRT builds for, the first one. Raises EngineError."""
    try:
        return find_gpu(0)
    except ProviderError as error:
        raise EngineError(f"TensorRT builds on the GPU that it builds for: {error}; {NO_GPU}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
