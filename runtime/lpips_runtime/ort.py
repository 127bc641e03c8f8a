"""The installed ONNX Runtime, and its words in ours."""

from __future__ import annotations

import functools
import re
from typing import Any

from .errors import ProviderError
from .stopping import unhidden_stops

__all__ = ["memory_advice", "onnxruntime", "words_of"]

_NOISE = (
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Exception during initialization: |Non-zero status code returned while "),
    # "/onnxruntime_src/.../graph.cc:1587 void onnxruntime::Graph::Call(const std::string&) (condition) was false. "
    # or "concatbase.h:12 PrepareForComputeImpl "
    re.compile(
        r"\S+\.(?:cc|cpp|h|cu):\d+ "
        r"(?:[^()]*?::~?\w+\([^()]*\)(?: const)? |[A-Z]\w*[a-z][A-Z]\w* )?"
        r"(?:\S.*? was false\. )?"
    ),
)

# Of the allocator, of the arena where the provider is given a limit, and of CUDA.
_OUT_OF_MEMORY = re.compile(r"Failed to allocate memory|smaller than requested bytes|CUDA.*out of memory")


@functools.cache
def onnxruntime() -> Any:
    """The installed ONNX Runtime. Raises ProviderError, naming the extra to install, if there is none."""
    try:
        with unhidden_stops():
            import onnxruntime as ort
    except ImportError as error:
        raise ProviderError(
            "no ONNX Runtime is installed; install exactly one of the extras: "
            f"pip install 'lpips-runtime[cpu]' or 'lpips-runtime[gpu]' ({error})"
        ) from error
    # What goes wrong reaches us as an exception; a second copy on stderr would only hide our own message.
    ort.set_default_logger_severity(4)
    return ort


def words_of(error: Exception) -> str:
    """What ONNX Runtime says, without its codes, C++ signatures and source paths, at most some 200 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    for noise in _NOISE:
        words = noise.sub("", words)
    return words if len(words) <= 200 else f"{words[:200]}..."


def memory_advice(error: Exception) -> str:
    """What follows the words of an error of scoring, where it is memory that is missing; else empty."""
    if not _OUT_OF_MEMORY.search(str(error)):
        return ""
    return "; free some, or lower --max-memory (max_memory), so that images are scored in smaller tiles"
