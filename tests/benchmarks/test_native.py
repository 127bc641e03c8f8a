"""The native library as a subject: the distances of the runtime for Python, or a reason in words."""

from collections.abc import Callable
from pathlib import Path

import needed
import numpy as np
import pytest

from benchmarks import native
from benchmarks.job import AbsentError, Job, images
from benchmarks.subjects import SUBJECTS, disk_bytes


def test_its_distances_are_those_of_the_runtime_for_python(exported: Callable[..., list[Path]]) -> None:
    job = Job("alex", str(exported(net="alex", quick=True)[0]), 48, 2, 1)
    if disk_bytes("native", job) is None:
        needed.missing("the native library is not built, or there is no ONNX Runtime for it (make cpp)")
    pair = images(job)
    found = SUBJECTS["native"].make(job)(*pair)
    assert found.shape == (2,)
    np.testing.assert_allclose(found, SUBJECTS["ours"].make(job)(*pair), rtol=1e-6)


def test_its_size_is_that_of_both_libraries_and_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, runtime, model = (tmp_path / name for name in ("liblpips_c.so", "libonnxruntime.so.1", "model.onnx"))
    job = Job("alex", str(model), 48, 2, 1)
    monkeypatch.setattr(native, "_BUILT", library)
    monkeypatch.setattr(native, "onnxruntime_library", lambda: runtime)
    library.write_bytes(b"x" * 10)
    model.write_bytes(b"x" * 3000)
    assert disk_bytes("native", job) is None
    runtime.write_bytes(b"x" * 200)
    assert disk_bytes("native", job) == 3210


def test_where_it_is_not_built_it_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_BUILT", tmp_path / "liblpips_c.so")
    job = Job("alex", str(tmp_path / "model.onnx"), 48, 2, 1)
    with pytest.raises(AbsentError, match=r"^not built: make cpp$"):
        SUBJECTS["native"].make(job)
    assert disk_bytes("native", job) is None
