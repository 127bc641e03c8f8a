"""The machine as a report describes it: right where it is known, and never an error."""

import math
import platform
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy
import pytest

from benchmarks import machine
from benchmarks.machine import allowed_memory, described


def test_this_machine_is_described() -> None:
    found = described()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_bytes"] is None or found["memory_bytes"] > 100e6
    assert found["python"] == platform.python_version()
    assert found["versions"]["numpy"] == numpy.__version__
    assert found["versions"]["onnxruntime"] == metadata.version("onnxruntime")
    assert not [name for name in found["versions"] if re.search("pytest|libs|bindings", name)]
    assert set(found["flags"]) <= set(machine.FLAGS)


@pytest.mark.parametrize("system", ["Darwin", "Windows", "Plan9", ""])
def test_on_another_system_nothing_raises(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sysctl nor kernel32 is there, or they are others than expected."""
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.delattr("os.sysconf", raising=False)
    found = described()
    assert set(found) == machine.Machine.__required_keys__
    if system in ("", "Plan9"):
        assert found["flags"] == []


def test_flags_are_those_that_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    systems: dict[str, Callable[[], set[str]]] = {"Here": lambda: {"amx_tile", "avx2", "fpu", "avx512_vnni_2"}}
    monkeypatch.setattr(machine, "_SYSTEMS", systems)
    monkeypatch.setattr("platform.system", lambda: "Here")
    assert described()["flags"] == ["avx2", "amx_tile"]


@pytest.mark.parametrize(
    ("own", "file", "expected"),
    [
        ("0::/job/inner", "job/memory.max", 500e6),
        ("0::/other", "job/memory.max", math.inf),
        ("4:memory:/job", "memory/job/memory.limit_in_bytes", 500e6),
        ("4:cpu:/job", "memory/job/memory.limit_in_bytes", math.inf),
    ],
)
def test_a_control_group_may_allow_less(own: str, file: str, expected: float, tmp_path: Path) -> None:
    group = tmp_path / file
    group.parent.mkdir(parents=True)
    group.write_text("500000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "own").write_text(own + "\n")
    assert allowed_memory(tmp_path, tmp_path / "own") == expected


def test_less_memory_than_the_machine_has_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_memory", lambda: 123e6)
    assert described()["memory_bytes"] == 123_000_000
