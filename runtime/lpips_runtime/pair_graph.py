"""A Scorer's pair graph, opened by the library that its file is for, and the limit of memory for it."""

from __future__ import annotations

from pathlib import Path

from .engine import Engine
from .errors import UsageError
from .memory import Memory
from .models import is_plan
from .session import Session

__all__ = ["limited", "opened"]


def opened(path: Path, *, provider: str, threads: int | None, fast_math: bool, trust_engine: bool) -> Session | Engine:
    """By TensorRT for an engine, by ONNX Runtime otherwise.

    Raises UsageError for an option of the other one, and what Session and Engine raise.
    """
    if is_plan(path):
        if fast_math:
            raise UsageError(f"{path}: an engine's types were fixed when it was built; leave fast-math out")
        return Engine(path, provider=provider, threads=threads, trust_engine=trust_engine)
    if trust_engine:
        raise UsageError(f"{path}: is no .engine file, and nothing else is to be trusted; leave trust_engine out")
    return Session(path, provider=provider, threads=threads, fast_math=fast_math)


def limited(graph: Session | Engine, max_memory: int | str | None) -> Memory | None:
    """The limit of memory that its runs keep to; None for an engine, which has its own. Raises UsageError."""
    if not is_plan(graph.path):
        return Memory.of(graph.info, max_memory, graph.provider)
    if max_memory is not None:
        raise UsageError(
            f"{graph.path}: an engine reserves its memory when it is opened, for the largest images of its profiles; "
            "leave max_memory out, or build it with a smaller --max"
        )
    return None
