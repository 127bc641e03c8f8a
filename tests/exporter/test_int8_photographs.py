"""What INT8 is promised to be on photographs and distortions that its export has not seen."""

from collections.abc import Callable
from pathlib import Path

import needed
import numpy as np
import pytest

from benchmarks.precision import DISTORTIONS, distances, photographs
from lpips_export.agreement import agreement
from lpips_export.export import export
from lpips_export.spec import ExportSpec
from lpips_runtime import Scorer

# All photographs of these packages that are natural and in colour; camera.png, in grey, makes them eight.
CALIBRATING = {
    "matplotlib": ["mpl-data/sample_data/grace_hopper.jpg"],
    "skimage": [
        *("data/astronaut.png", "data/camera.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"),
        *("data/motorcycle_left.png", "data/motorcycle_right.png"),
    ],
}
JUDGING = {"sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"]}

# INT8 target -> least Spearman correlation with float32 that is promised at the default limits.
PROMISED = {"cpu": 0.999, "tensorrt": 0.995}


def linked(folder: Path, packages: dict[str, list[str]]) -> Path:
    """A folder with links to photographs of installed packages; skips where one is missing."""
    folder.mkdir()
    for package, names in packages.items():
        for name in names:
            (folder / Path(name).name).symlink_to(needed.file_of(package, name))
    return folder


@pytest.mark.parametrize("target", PROMISED)
def test_ranks_agree_on_what_no_export_has_seen(
    target: str, real_weights: Callable[[str], Path], tmp_path: Path
) -> None:
    calibration = linked(tmp_path / "calibrating", CALIBRATING)
    crops = photographs(linked(tmp_path / "judging", JUDGING), 160, 4)
    weights = real_weights("alex")
    quantised, float32 = (
        export(ExportSpec(net="alex", backbone=weights, **fields), tmp_path / "artifacts")[0].path
        for fields in ({"precision": "int8", "calibration": calibration, "target": target}, {})
    )
    expected, found = (distances(Scorer(path, provider="cpu", threads=1), crops) for path in (float32, quantised))
    source = np.repeat(np.arange(len(crops)), len(DISTORTIONS))
    figures = agreement(expected.ravel(), found.ravel(), source, list(DISTORTIONS) * len(crops))
    print(f"alex {target}: {figures.error:.2%}, Spearman {figures.spearman:.5f}, {len(source)} pairs")
    assert figures.spearman >= PROMISED[target], figures
