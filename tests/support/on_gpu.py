"""What GPUs are asked to compute, and how far from the CPU's float32 they may be."""

import numpy as np

from lpips_runtime import Scorer

# As validation has them: half is compared with the float32 graph.
LIMITS = {"fp32": (1e-5, 2e-5), "fp16": (1e-3, 5e-3)}  # of distance and layers, of the map
# INT8 is compared with the same graph on the CPU: both multiply and add integers, which is exact, and may differ where
# a value lies between two steps and is rounded to the other one. That is a share of what rounding itself costs, for
# which exports allow 5 % of the distance; a scale or a layer that is wrong costs tens of percent.
INT8_LIMIT = 0.01


def pairs(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise against noise, noise against itself a little changed, and one pair of equal images."""
    random = np.random.default_rng([count, height, width])
    first, second = random.integers(0, 256, (2, count, height, width, 3), dtype=np.uint8)
    second[0] = np.clip(first[0] + random.normal(0, 8, first[0].shape), 0, 255).astype(np.uint8)
    if count > 1:
        second[1] = first[1]
    return first, second


def assert_same(engine: Scorer, truth: Scorer, precision: str, first: np.ndarray, second: np.ndarray) -> None:
    found, expected = engine.detail(first, second), truth.detail(first, second)
    limit, map_limit = LIMITS[precision]
    scale = np.maximum(1, expected.distance)
    assert (np.abs(found.distance - expected.distance) <= limit * scale).all()
    assert (np.abs(found.layers - expected.layers) <= limit * scale[:, None]).all()
    assert np.abs(found.map - expected.map).max() <= map_limit * max(1, expected.map.max())
    equal = [bool((a == b).all()) for a, b in zip(first, second, strict=True)]
    assert (found.distance[equal] == 0).all()
