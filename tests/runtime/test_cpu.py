"""What is known of the CPU, and how many threads that makes."""

import os
from pathlib import Path

import pytest

from lpips_runtime import cpu, workers


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight logical CPUs, of which this process may use six; two and two are on the same core, as far as is known."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3, 4, 5}, raising=False)
    monkeypatch.setattr(cpu, "_siblings", lambda number: f"{number // 2 * 2},{number // 2 * 2 + 1}")


@pytest.mark.parametrize(("time", "threads"), [(float("inf"), 3), (2.9, 2), (1.5, 1), (0.3, 1), (64.0, 3)])
@pytest.mark.usefixtures("cores")
def test_threads_are_the_allowed_cores_or_theallowed_time(
    time: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "allowed_time", lambda: time)
    assert cpu.default_threads() == threads


@pytest.mark.parametrize(("time", "count"), [(float("inf"), 6), (2.9, 2), (0.3, 1), (64.0, 6)])
@pytest.mark.usefixtures("cores")
def test_workers_are_the_allowed_logical_cores_or_the_allowed_time(
    time: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "allowed_time", lambda: time)
    assert workers.cores() == count


def test_where_the_system_does_not_say_the_library_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu.default_threads() is None


def test_fewer_allowed_cpus_are_fewer_threads() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no CPU affinity")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cpu.default_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("own", "files", "allowed"),
    [
        ("0::/job/part\n", {"job/cpu.max": "150000 100000\n", "job/part/cpu.max": "max 100000\n"}, 1.5),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, float("inf")),
        # In a container: the path is the host's, and the files are at the root.
        ("0::/docker/4f2a\n", {"cpu.max": "200000 100000\n"}, 2),
        ("3:cpu,cpuacct:/a\n2:memory:/b\n", {"cpu,cpuacct/a": (50_000, 100_000)}, 0.5),
        ("3:cpu:/a/b\n", {"cpu/a": (300_000, 100_000), "cpu/a/b": (-1, 100_000)}, 3),
        ("2:memory:/b\n1:cpuset:/\n", {"cpu/b": (1, 100)}, float("inf")),
        ("0::/job\n", {"job/cpu.max": "nonsense"}, float("inf")),
        ("nonsense\n", {}, float("inf")),
        (None, {}, float("inf")),
    ],
)
def test_the_time_that_control_groups_allow(
    own: str | None, files: dict[str, str | tuple[int, int]], allowed: float, tmp_path: Path
) -> None:
    for name, content in files.items():
        if isinstance(content, tuple):
            (tmp_path / name).mkdir(parents=True)
            for what, value in zip(("quota", "period"), content, strict=True):
                (tmp_path / name / f"cpu.cfs_{what}_us").write_text(f"{value}\n")
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
    if own is not None:
        (tmp_path / "self").write_text(own)
    assert cpu.allowed_time(tmp_path, tmp_path / "self") == allowed


@pytest.mark.parametrize(
    ("maker", "flags", "pays", "exact"),
    [
        ("AuthenticAMD", "fpu avx512f avx512_vnni avx512_bf16", True, "0"),
        ("GenuineIntel", "fpu avx512f avx512_vnni avx512_bf16", False, "0"),
        ("GenuineIntel", "fpu avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile", True, "0"),
        ("GenuineIntel", "fpu avx2 avx_vnni avx_ne_convert", False, "0"),
        ("AuthenticAMD", "fpu avx2 avx_vnni", False, "0"),
        ("GenuineIntel", "fpu avx2", False, "1"),
        ("", None, True, "1"),
    ],
)
def test_what_a_cpu_can_do(
    maker: str, flags: str | None, pays: bool, exact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: {flags}\n"
    monkeypatch.setattr(cpu, "_cpuinfo", lambda: said if flags else "")
    assert cpu.bfloat16_pays() is pays
    assert cpu.exact_int8() == ("session.x64quantprecision", exact)
    assert cpu.cpu_name() == "Some CPU @ 2 GHz" if flags else cpu.cpu_name()
