"""CTest's own tests, as each compiler and each sanitizer builds them; warnings are errors in all of these."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import image_kinds
import native
import pytest

Models = Callable[[str], Path]


@pytest.mark.parametrize("name", native.FLAVOURS)
def test_all_pass(name: str, models: Models) -> None:
    folder = native.build(name)
    ended = native.run(
        "ctest",
        *("--test-dir", folder, "--output-on-failure"),
        timeout=1800,
        LPIPS_TEST_MODELS=str(models("alex").parent),
        **native.FLAVOURS[name].environment,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:]
    assert "Skipped" not in ended.stdout
    assert re.search(r"100% tests passed, 0 tests failed out of [4-9]", ended.stdout)


@pytest.mark.parametrize(("target", "fewest"), [("fuzz_inputs", 1000), ("fuzz_images", 300)])
def test_hostile_images_and_files_are_errors(target: str, fewest: int, tmp_path: Path) -> None:
    seconds = os.environ.get("LPIPS_TEST_FUZZ_SECONDS", "5")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    if target == "fuzz_images":
        kinds = image_kinds.read_exactly() | image_kinds.jpegs() | image_kinds.misleading() | image_kinds.refused()
        for number, data in enumerate(kinds.values()):
            (corpus / str(number)).write_bytes(data())
    # Single allocations are limited, not resident memory: the peak that Linux tells of it is the parent's to begin
    # with, and a worker that has run exports is larger than libFuzzer's limit.
    memory = ("-rss_limit_mb=0", "-malloc_limit_mb=2048")
    ended = native.run(
        native.build("clang") / "fuzz" / target,
        *(f"-max_total_time={seconds}", "-max_len=8192", "-seed=1", f"-artifact_prefix={tmp_path}/", *memory, corpus),
        timeout=float(seconds) + 300,
    )
    assert ended.returncode == 0, ended.stderr[-10_000:]
    runs = re.search(r"Done (\d+) runs", ended.stderr)
    assert runs is not None
    assert int(runs[1]) > fewest
