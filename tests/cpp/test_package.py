"""What is installed is found by `find_package(lpips_runtime)`, and what the documents show compiles."""

import re
from collections.abc import Callable
from pathlib import Path

import native
import pytest

Models = Callable[[str], Path]

CONSUMER = native.ROOT / "runtime/cpp/tests/consumer"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("installed")
    ended = native.run("cmake", "--install", native.build("gcc"), "--prefix", prefix)
    assert ended.returncode == 0, ended.stderr
    return prefix


def configure(folder: Path, installed: Path, *options: str) -> str:
    """The error of configuring the consumer, empty if there is none."""
    ended = native.run(
        "cmake", "-S", CONSUMER, "-B", folder, f"-DCMAKE_PREFIX_PATH={installed}", *options, ONNXRUNTIME_ROOT=""
    )
    return ended.stderr if ended.returncode else ""


def test_a_consumer_builds_against_it_and_runs(installed: Path, tmp_path: Path, models: Models) -> None:
    headers = f"-DLPIPS_ONNXRUNTIME_INCLUDE_DIR={native.headers()}"
    assert configure(tmp_path, installed, headers) == ""
    ended = native.run("cmake", "--build", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for name in ("consumer", "consumer_c"):
        ended = native.run(tmp_path / name, models("alex"))
        assert ended.returncode == 0, ended.stderr
        assert float(ended.stdout) > 0


def test_without_the_headers_of_onnx_runtime_the_error_says_what_to_set(installed: Path, tmp_path: Path) -> None:
    assert "ONNXRUNTIME_ROOT" in configure(tmp_path, installed)


def test_a_release_may_be_named_by_a_relative_path(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release/include").symlink_to(native.headers())
    build = ("env", "-C", tmp_path, "cmake", "-S", CONSUMER, "-B", "build", f"-DCMAKE_PREFIX_PATH={installed}")
    ended = native.run(*build, "-DONNXRUNTIME_ROOT=release", ONNXRUNTIME_ROOT="")
    assert ended.returncode == 0, ended.stderr
    found = re.search(r"LPIPS_ONNXRUNTIME_INCLUDE_DIR:PATH=(.*)", (tmp_path / "build/CMakeCache.txt").read_text())
    assert found is not None
    assert found[1] == str(tmp_path / "release/include")
    # Of the environment's CMake cannot tell where it begins.
    ended = native.run(*build, "--fresh", ONNXRUNTIME_ROOT="release")
    assert ended.returncode != 0
    words = " ".join(ended.stderr.split())
    assert "ONNXRUNTIME_ROOT=release of the environment is a relative path, give an absolute one" in words


def test_the_c_abi_does_without_them(installed: Path, tmp_path: Path) -> None:
    assert configure(tmp_path, installed, "-DONLY_C=ON") == ""
    assert native.run("cmake", "--build", tmp_path).returncode == 0


def test_the_lines_of_the_main_readme_compile_and_run(tmp_path: Path, models: Models) -> None:
    native.build("gcc")
    code = re.search(r"```cpp\n(.*?)```", (native.ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "example.cpp").write_text(
        "#include <cstdio>\n#include <lpips/lpips.hpp>\nint main() {\nconst std::int64_t width = 64, height = 48;\n"
        "const std::vector<std::uint8_t> original(64 * 48 * 3, 10), decoded(64 * 48 * 3, 200);\n"
        f'{code[1]}std::printf("%g\\n", static_cast<double>(distance));\n}}\n'
    )
    options = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", native.HEADERS.parent, "-isystem", native.headers())
    program = tmp_path / "example"
    ended = native.run("g++", *options, tmp_path / "example.cpp", "-o", program, "-ldl", "-pthread")
    assert ended.returncode == 0, ended.stderr
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/lpips_alex_fp32.onnx").symlink_to(models("alex"))
    ended = native.run("env", "-C", tmp_path, program)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) > 0


@pytest.mark.parametrize(("compiler", "standard"), [("g++", "c++20"), ("clang++", "c++17")])
def test_the_example_of_the_readme_compiles_and_runs(
    compiler: str, standard: str, tmp_path: Path, models: Models
) -> None:
    native.build({"g++": "gcc", "clang++": "clang"}[compiler])
    code = re.search(r"```cpp\n(.*?)```", (native.ROOT / "runtime/cpp/README.md").read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "example.cpp").write_text(code[1])
    command = [compiler, f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", native.HEADERS.parent]
    ended = native.run(
        *command, "-isystem", native.headers(), tmp_path / "example.cpp", "-o", tmp_path / "example", "-ldl", "-pthread"
    )
    assert ended.returncode == 0, ended.stderr
    ended = native.run(tmp_path / "example", models("alex"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"0\.\d+ \(alex fp32, ONNX Runtime [\d.]+\)\n", ended.stdout)
