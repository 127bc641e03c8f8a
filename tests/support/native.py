"""What the tests of runtime/cpp build and run, and what a machine needs for it.

Each flavour has a folder of its own in build/, so that a second run builds only what changed.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import needed

from benchmarks.job import AbsentError
from benchmarks.native import onnxruntime_library

__all__ = ["FLAVOURS", "HEADERS", "ROOT", "Flavour", "build", "library", "run"]

ROOT = Path(__file__).parents[2]
HEADERS = ROOT / "runtime/cpp/include/lpips"

# As it was when the session began: the tests themselves run with an empty cache, and the headers are in the user's.
_ENVIRONMENT = dict(os.environ)


@dataclass(frozen=True)
class Flavour:
    """One configuration of the CMake project. options: CMake's; environment: for what is run."""

    compiler: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def _sanitized(flags: str) -> tuple[str, ...]:
    flags = f"-fsanitize={flags} -fno-sanitize-recover=all -fno-omit-frame-pointer"
    return ("-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DCMAKE_CXX_FLAGS={flags}", f"-DCMAKE_C_FLAGS={flags}")


FLAVOURS = {
    "gcc": Flavour("g++"),
    "clang": Flavour("clang++", ("-DLPIPS_BUILD_FUZZERS=ON",)),
    "address": Flavour("clang++", _sanitized("address,undefined"), {"UBSAN_OPTIONS": "print_stacktrace=1"}),
    "thread": Flavour(
        "clang++",
        _sanitized("thread"),
        {"TSAN_OPTIONS": f"suppressions={ROOT / 'runtime/cpp/tests/thread_sanitizer.supp'}"},
    ),
}

# Program or header -> the Debian package that brings it.
_PROGRAMS = {"cmake": "cmake", "g++": "g++", "clang++": "clang", "npm": "npm"}
_INCLUDED = {"stb/stb_image.h": "libstb-dev", "doctest/doctest.h": "doctest-dev"}


def _check_machine(compiler: str) -> None:
    """Skip, or under .ci/run fail, where something is missing that a Debian package brings."""
    if sys.platform != "linux":
        needed.missing("the native runtime is built and tested on Linux only")
    for program in ("cmake", compiler, *(() if "ONNXRUNTIME_ROOT" in _ENVIRONMENT else ("npm",))):
        if shutil.which(program) is None:
            needed.missing(f"{program} is not installed (Debian: apt-get install {_PROGRAMS[program]})")
    for header, package in _INCLUDED.items():
        if not Path("/usr/include", header).exists():
            needed.missing(f"{header} is not installed (Debian: apt-get install {package})")
    if compiler == "clang++":
        probe = subprocess.run(["clang++", "-print-runtime-dir"], capture_output=True, text=True, check=True)
        found = Path(probe.stdout.strip())
        if not any(
            folder.exists() for folder in (found / "libclang_rt.fuzzer.a", found / "libclang_rt.fuzzer-x86_64.a")
        ):
            needed.missing(
                "libFuzzer and the sanitizers are not installed (Debian: apt-get install libclang-rt-14-dev)"
            )


@functools.cache
def library() -> Path:
    """The library of the installed onnxruntime."""
    try:
        return onnxruntime_library()
    except AbsentError as error:
        needed.missing(str(error))


@functools.cache
def headers() -> str:
    """The folder of ONNX Runtime's headers, fetched once into the user's cache."""
    found = _call([sys.executable, "-m", "tools.onnxruntime_headers"])
    if found.returncode != 0:
        needed.missing(f"the headers of ONNX Runtime: {found.stderr.strip()}")
    return found.stdout.strip()


@functools.cache
def build(name: str) -> Path:
    """The folder of a flavour, configured and built; all of its warnings are errors."""
    flavour = FLAVOURS[name]
    _check_machine(flavour.compiler)
    folder = ROOT / "build" / f"cpp-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    c_compiler = {"g++": "gcc", "clang++": "clang"}[flavour.compiler]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may build the same
        for command in (
            [
                "cmake",
                *("-S", ROOT / "runtime/cpp", "-B", folder),
                f"-DCMAKE_CXX_COMPILER={flavour.compiler}",
                f"-DCMAKE_C_COMPILER={c_compiler}",
                f"-DLPIPS_ONNXRUNTIME_INCLUDE_DIR={headers()}",
                *("-DLPIPS_WERROR=ON", "-DLPIPS_BUILD_TESTS=ON", "-DLPIPS_BUILD_EXAMPLES=ON"),
                *flavour.options,
            ],
            ["cmake", "--build", folder, "--parallel", "2"],
        ):
            ended = _call(command)
            assert ended.returncode == 0, f"{name}: {ended.stdout[-6000:]}\n{ended.stderr[-6000:]}"
    return folder


def run(*command: object, timeout: float = 600, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A program that was built, with the library of the installed onnxruntime."""
    return _call(command, timeout, LPIPS_ONNXRUNTIME=str(library()), **environment)


def _call(command: Iterable[object], timeout: float = 1200, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=_ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
