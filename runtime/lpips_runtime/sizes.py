"""Amounts of memory as people write them: `1400MB`, `2GB`."""

import math
import re

from .errors import UsageError

__all__ = ["format_size", "parse_size"]

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(rf"([0-9]{{1,15}}(?:[.][0-9]{{1,6}})?)({'|'.join(_UNITS)})")


def parse_size(text: str) -> int:
    """`1400MB` -> 1400000000 bytes, `2GiB` -> 2147483648. Raises UsageError for anything else, and for no byte."""
    match = _SIZE.fullmatch(text)
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise UsageError(f"{text!r} is no size; write a number and its unit, as in 1400MB or 2GB")
    return size


def format_size(size: float) -> str:
    """Bytes -> `1400MB`, rounded up, so that what is read back is enough."""
    return f"{math.ceil(size / 10**6)}MB"
