"""The two files that lie beside a result file for `--resume`: their names, and whether they may be replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .errors import ForeignResultError

__all__ = ["beside", "check_beside"]


def beside(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Where the record and the checksums of a result file lie."""
    path = Path(path)
    return path.with_name(f"{path.name}.job.json"), path.with_name(f"{path.name}.job.crc32")


def check_beside(path: str | os.PathLike[str]) -> None:
    """Raise ForeignResultError if what would be replaced beside a result file that is written anew is not of a job.

    Checksums look like nothing in particular, and are of a job where its record lies beside them. What holds nothing,
    or the zeros that a loss of power leaves, may be replaced.
    """
    record, sums = beside(path)
    is_ours = _is_record(_content(record))
    for found, what in ((record, "is no record of a job"), (sums, f"lies there without a {record.name} that says so")):
        if not is_ours and _content(found).strip(b"\0"):
            raise ForeignResultError(
                f"{path}: {found.name} beside it would be replaced, and {what}; move that away, or name another file"
            )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:  # what cannot be read says so when it is to be written
        return b""


def _is_record(content: bytes) -> bool:
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and found.keys() >= {"format", "layers", "model", "runtime"}
