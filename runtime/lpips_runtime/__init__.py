"""Score images with LPIPS, without PyTorch."""

from ._version import __version__
from .contract import ModelInfo
from .errors import LpipsError
from .pairs import Pair
from .results import Result
from .scorer import Detail, Scorer

__all__ = ["Detail", "LpipsError", "ModelInfo", "Pair", "Result", "Scorer", "__version__"]
