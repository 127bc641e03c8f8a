"""How a job is cut to stay within a limit of memory, and what is said of limits that cannot be kept."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
from engine_machine import Machine
from score_command import COMMAND, Run, save

from lpips_runtime import Scorer
from lpips_runtime.arrays import as_batch
from lpips_runtime.checks import NETS
from lpips_runtime.errors import ShapeError, UsageError
from lpips_runtime.memory import COSTS, Memory, costs
from lpips_runtime.tiling import Part

Models = Callable[[str], Path]

ALEX = replace(onnx_files.INFO, net="alex")
VGG = onnx_files.INFO


def part(memory: Memory, count: int, height: int, width: int, depths: bool = False) -> Part:
    # Nothing reads the pixels: one stands for all of them.
    batch = as_batch(np.broadcast_to(np.zeros(3, np.uint8), (count, height, width, 3)), "images")
    return memory.part(batch, batch, depths=depths)


def predicted(info: Any, found: Part, count: int, height: int, width: int, limit: int) -> int:
    pixels = found.largest(height, width, info) * (found.pairs or count)
    cost = COSTS[info.net, info.precision]
    waiting = Memory.of(info, limit).ahead
    next_pair = 14 * height * width * (found.tiles > 1)
    return cost.fixed + waiting + count * height * width * 6 + next_pair + pixels * cost.per_pixel


def test_every_kind_of_graph_has_its_cost() -> None:
    assert set(COSTS) == {(net, precision) for net in NETS for precision in ("fp32", "fp16", "int8")}


def test_by_default_4k_is_whole_on_alex_and_in_tiles_on_vgg() -> None:
    assert part(Memory.of(ALEX, None), 1, 2160, 3840).tiles == 1
    assert part(Memory.of(VGG, None), 1, 2160, 3840).tiles == 12


def test_openvino_takes_more_and_is_given_smaller_parts() -> None:
    """A 4K pair on alex took 1.57 GB in one piece, where 1.45 GB is the limit."""
    assert part(Memory.of(ALEX, None, "openvino"), 1, 2160, 3840).tiles > 1
    for info in (ALEX, VGG, replace(onnx_files.INFO, net="squeeze")):
        (cost, split), (more, split_more) = (costs(info, provider) for provider in ("cpu", "openvino"))
        assert all(b >= a for a, b in zip((*cost, *split), (*more, *split_more), strict=True))
        assert more.default == cost.default


def test_a_batch_of_images_that_fit_is_run_in_parts_first() -> None:
    memory = Memory.of(ALEX, "400MB")
    found = part(memory, 20, 512, 512)
    assert found.tiles == 1
    assert found.pairs is not None
    assert 1 < found.pairs < 20
    assert predicted(ALEX, found, 20, 512, 512, memory.limit) <= memory.limit
    assert predicted(ALEX, Part(found.pairs + 1), 20, 512, 512, memory.limit) > memory.limit


def test_what_does_not_fit_is_cut_into_the_fewest_pixels_that_do() -> None:
    memory = Memory.of(VGG, "1GB")
    found = part(memory, 1, 1080, 1920)
    assert found.pairs == 1
    assert predicted(VGG, found, 1, 1080, 1920, memory.limit) <= memory.limit
    for rows in range(1, 6):
        for columns in range(1, 11):
            other = Part(1, rows, columns)
            fits = predicted(VGG, other, 1, 1080, 1920, memory.limit) <= memory.limit
            assert not fits or found.computed(1080, 1920, VGG) <= other.computed(1080, 1920, VGG)


def test_maps_and_larger_images_leave_less_room() -> None:
    memory = Memory.of(ALEX, "1450MB")
    assert part(memory, 1, 2160, 3840, depths=True).tiles > part(memory, 1, 2160, 3840).tiles
    assert part(memory, 1, 7000, 7000).tiles > 7000 * 7000 / (2160 * 3840)


def test_a_pair_that_no_tile_makes_fit_is_refused_with_the_least_that_works() -> None:
    memory = Memory.of(ALEX, "500MB")
    with pytest.raises(
        ShapeError, match=r"1 pair of 12000x8000 cannot be scored in 500MB of memory; raise max"
    ) as told:
        part(memory, 1, 8000, 12000)
    least = re.search(r"to (\d+MB), or cut", str(told.value))
    assert least
    assert part(Memory.of(ALEX, least[1]), 1, 8000, 12000).tiles > 1
    with pytest.raises(ShapeError):
        part(Memory.of(ALEX, int(least[1][:-2]) * 10**6 - 2 * 10**6), 1, 8000, 12000)


def test_without_a_limit_of_ones_own_nothing_is_refused() -> None:
    assert part(Memory.of(ALEX, None), 1, 13000, 13000, depths=True).tiles > 1


@pytest.mark.parametrize("info", [ALEX, VGG])
def test_a_limit_below_a_single_tile_is_refused_with_the_least_that_works(info: Any) -> None:
    with pytest.raises(UsageError, match=rf"too small for a tile of {info.net} fp32; give at least") as told:
        Memory.of(info, "100MB")
    least = re.search(r"at least (\d+MB)", str(told.value))
    assert least
    assert part(Memory.of(info, least[1]), 1, 64, 64) == Part(1)
    with pytest.raises(UsageError):
        Memory.of(info, f"{int(least[1][:-2]) - 1}MB")


@pytest.mark.parametrize("limit", [0, -1, 1e9, True, "", "much", "1400", "1400 MB", [2]])
def test_nonsense_is_no_limit(limit: Any) -> None:
    with pytest.raises(UsageError, match=r"give bytes, or a size such as '1400MB'|write a number and its unit"):
        Memory.of(ALEX, limit)


# Scorer


def test_a_scorer_says_that_it_tiled_and_scores_the_same(models: Models) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 1100, 1300, 3), dtype=np.uint8)
    with Scorer(models("alex")) as free, Scorer(models("alex"), max_memory="250MB") as bound:
        whole, tiled = free.detail(*images), bound.detail(*images)
        assert bound.provenance["runtime"]["max_memory"] == 250_000_000
    assert whole.tiles == 1
    assert tiled.tiles > 1
    np.testing.assert_allclose(tiled.distance, whole.distance, rtol=1e-5)
    np.testing.assert_allclose(tiled.layers, whole.layers, rtol=1e-5)
    np.testing.assert_allclose(tiled.map, whole.map, rtol=1e-5, atol=1e-6)


def test_an_engine_takes_no_limit(machine: Machine) -> None:
    with pytest.raises(UsageError, match="an engine reserves its memory when it is opened"):
        Scorer(machine.path, max_memory="2GB")


# lpips-score


def test_the_command_says_once_that_it_tiled(run: Run) -> None:
    for seed, name in enumerate(["large.png", "other.png", "third.png"]):
        save(name, seed, (1100, 1300))
    code, out, err = run("large.png", "other.png", "third.png", "--max-memory", "250MB")
    assert code == 0
    assert err.splitlines()[0] == (
        "note: large.png, other.png and 1 other pair: scored in tiles, equal up to rounding, "
        "to stay within the limit of memory (--max-memory)"
    )
    plain = run("large.png", "other.png", "third.png")
    assert "tiles" not in plain[2]
    for line, expected in zip(out.splitlines(), plain[1].splitlines(), strict=True):
        assert float(line.split("\t")[0]) == pytest.approx(float(expected.split("\t")[0]), rel=1e-5)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("lots", "argument --max-memory: 'lots' is no size; write a number and its unit, as in 1400MB or 2GB"),
        (
            "1MB",
            "max_memory (--max-memory) is 1MB, too small for a tile of alex fp32; give at least 153MB, "
            "more for large images",
        ),
    ],
)
def test_the_command_refuses_what_is_no_limit(run: Run, size: str, said: str) -> None:
    code, out, err = run("a.png", "b.png", "--max-memory", size)
    assert (code, out) == (2, "")
    assert said in err


def test_a_pair_too_large_for_the_limit_fails_alone(run: Run) -> None:
    save("large.png", 0, (3000, 4000))
    code, out, err = run("a.png", "b.png", "--max-memory", "200MB")
    assert code == 0
    code, out, err = run("large.png", "large.png", "--max-memory", "200MB")
    assert (code, out) == (3, "")
    assert "1 pair of 4000x3000 cannot be scored in 200MB of memory" in err


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only, and counts otherwise elsewhere")
def test_the_process_stays_below_its_limit(here: Path) -> None:
    save("large.png", 0, (1500, 1500))
    save("other.png", 1, (1500, 1500))
    # Through a process in between, whose only child it is: RUSAGE_CHILDREN has the largest of all.
    call = [*COMMAND, "large.png", "other.png", "--max-memory", "300MB"]
    code = (
        f"import subprocess, resource; subprocess.run({call!r}); print(resource.getrusage(resource.RUSAGE_CHILDREN)[2])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "scored in tiles" in done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 300_000_000


# Encoding


def test_encoding_and_comparing_keep_to_the_limit(models: Models) -> None:
    large = np.zeros((1400, 1400, 3), np.uint8)
    with Scorer(models("alex")) as free:
        features = free.encode(large)
    with Scorer(models("alex"), max_memory="300MB") as bound:
        with pytest.raises(ShapeError, match=r"1 image of 1400x1400 cannot be encoded in 300MB of memory; raise max"):
            bound.encode(large)
        with pytest.raises(ShapeError, match=r"features of images of 1400x1400 cannot be compared in 300MB of memory"):
            bound.compare(features, features)
        assert bound.encode(large[:256, :256]).count == 1


def test_how_many_pairs_come_together_does_not_decide_on_tiles() -> None:
    memory = Memory.of(ALEX, "400MB")
    for side in (400, 900, 1200, 1250, 1300, 2000):
        for depths in (False, True):
            most = memory.together(side, side, depths=depths)
            alone = part(memory, 1, side, side, depths).tiles
            assert alone == part(memory, most, side, side, depths).tiles


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only, and counts otherwise elsewhere")
def test_features_and_pairs_that_wait_are_within_the_limit(here: Path) -> None:
    names = [save(f"large{k}.png", k, (1000, 1000)) for k in range(4)]
    call = [*COMMAND, *names, "--max-memory", "420MB"]
    code = (
        f"import subprocess, resource; subprocess.run({call!r}); print(resource.getrusage(resource.RUSAGE_CHILDREN)[2])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout.split()[-1]) * 1024 < 420_000_000
