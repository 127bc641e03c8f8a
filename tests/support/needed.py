"""What a test cannot do without, and a machine may not have."""

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test and say what is missing; where $LPIPS_TEST_STRICT is set, as .ci/run does, fail instead: there
    all of it was installed, and a test that is skipped guards nothing."""
    if os.environ.get("LPIPS_TEST_STRICT"):
        pytest.fail(what)
    pytest.skip(what)


def module(name: str) -> Any:
    """An optional module. One that is there and cannot be imported is an error."""
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not installed")
    return importlib.import_module(name)


def file_of(package: str, name: str) -> Path:
    """A file that a package brings."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        missing(f"{Path(name).name} comes with {package}, which is not installed")
    return Path(found.submodule_search_locations[0], name)
