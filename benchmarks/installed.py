"""What distributions take on disk."""

import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["installed_bytes"]


def installed_bytes(names: Iterable[str]) -> int | None:
    """The files of these distributions and of all that they require here, each counted once.

    names: as in a requirement, extras in brackets; versions are not looked at. Counted are the files that the installer
    recorded, those that it compiled among them; of one that is installed as editable, the folder of its package. None
    if one of them is not installed, or nothing recorded its files.
    """
    try:
        files = {path for each in _required(names) for path in _files(each)}
    except PackageNotFoundError:
        return None
    return sum(path.stat().st_size for path in files if path.is_file())


def _required(names: Iterable[str]) -> list[Distribution]:
    """These and what they require, markers evaluated. Raises PackageNotFoundError."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:  # distributions require one another in circles
                continue
            seen.add((name, extra))
            found[name] = found.get(name) or distribution(name)
            required = map(Requirement, found[name].requires or ())
            waiting += [each for each in required if not each.marker or each.marker.evaluate({"extra": extra})]
    return list(found.values())


def _files(found: Distribution) -> Iterator[Path]:
    """Raises PackageNotFoundError if they are not known."""
    name = found.metadata["Name"]
    about = json.loads(found.read_text("direct_url.json") or "{}")
    if about.get("dir_info", {}).get("editable"):
        package = importlib.util.find_spec(canonicalize_name(name).replace("-", "_"))
        if package is None or not package.submodule_search_locations:
            raise PackageNotFoundError(name)
        for folder in package.submodule_search_locations:
            yield from Path(folder).rglob("*")
        return
    if found.files is None:
        raise PackageNotFoundError(name)
    for file in found.files:
        # Not resolved, which takes a second for PyTorch; but scripts are recorded as ../../../bin/name.
        yield Path(os.path.normpath(str(found.locate_file(file))))
