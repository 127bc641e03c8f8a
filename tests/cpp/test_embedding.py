"""What docs/embedding.md shows is what the examples hold; the one that needs ONNX Runtime alone compiles and runs."""

import re
from collections.abc import Callable
from pathlib import Path

import native
import numpy as np
import onnxruntime as ort
import pytest

Models = Callable[[str], Path]

EXAMPLES = native.ROOT / "runtime/cpp/examples/embedding"
DOCUMENT = (native.ROOT / "docs/embedding.md").read_text()

STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def unindented(code: str) -> str:
    return "\n".join(line.strip() for line in code.strip().splitlines())


def session(model: Path) -> ort.InferenceSession:
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"])


def test_each_block_is_a_part_of_the_example_named_before_it() -> None:
    parts = re.split(r"```cpp\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert len(parts) > 2 * len(list(EXAMPLES.iterdir()))
    for told, code in zip(parts[::2], parts[1::2], strict=False):
        named = re.findall(r"examples/embedding/(\w+\.[ch]pp)\)", told)
        assert unindented(code) in unindented((EXAMPLES / named[-1]).read_text()), code


def test_the_head_of_each_example_says_who_compiled_it() -> None:
    for example in EXAMPLES.iterdir():
        head = example.read_text().split("#", 1)[0]
        assert re.search(r"^// (Compiled and run in the tests|Compiled by hand with|Not compiled with)", head, re.M), (
            head
        )
        assert f"{example.name}](../runtime/cpp/examples/embedding/{example.name})" in DOCUMENT


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_the_one_for_onnx_runtime_gives_the_numbers_of_python(compiler: str, tmp_path: Path, models: Models) -> None:
    native.build({"g++": "gcc", "clang++": "clang"}[compiler])  # or a word on what is missing
    (tmp_path / "libonnxruntime.so.1").symlink_to(native.library())  # the name that it goes by
    libraries = ("-L", tmp_path, "-l:libonnxruntime.so.1", f"-Wl,-rpath,{tmp_path}")
    program, source = tmp_path / "program", EXAMPLES / "onnxruntime.cpp"
    ended = native.run(compiler, *STRICT, "-isystem", native.headers(), source, "-o", program, *libraries)
    assert ended.returncode == 0, ended.stderr
    ended = native.run(program, models("alex"))
    assert (ended.returncode, ended.stderr) == (0, "")
    k = np.arange(3 * 64 * 64) % 255
    a, b = ((levels / 127.5 - 1).astype(np.float32).reshape(1, 3, 64, 64) for levels in (k, k // 16 * 16))
    (distance,) = session(models("alex")).run(["distance"], {"reference": a, "distorted": b})
    assert float(ended.stdout) == pytest.approx(np.asarray(distance).item(), abs=2e-6)


def test_the_table_names_the_tensors_of_each_graph(models: Models) -> None:
    for name in ("alex", "alex_features", "alex_compare", "squeeze", "squeeze_features", "squeeze_compare"):
        opened = session(models(name))
        for tensor in (*opened.get_inputs(), *opened.get_outputs()):
            assert f"`{re.sub(r'_[0-9]+$', '_k', tensor.name)}`" in DOCUMENT, tensor.name
