"""Score images with LPIPS, without PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .contract import ModelInfo
    from .detail import Detail
    from .errors import LpipsError
    from .features import Features
    from .pairs import Pair
    from .results import Result
    from .scorer import Scorer
    from .store import FeatureStore

__all__ = [
    "Detail",
    "FeatureStore",
    "Features",
    "LpipsError",
    "ModelInfo",
    "Pair",
    "Result",
    "Scorer",
    "__version__",
]

# Imported when they are asked for: the command's help and its errors need neither numpy nor Pillow.
_HOMES = {
    "Detail": "detail",
    "FeatureStore": "store",
    "Features": "features",
    "LpipsError": "errors",
    "ModelInfo": "contract",
    "Pair": "pairs",
    "Result": "results",
    "Scorer": "scorer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
