"""The native runtime gives the numbers of the Python runtime, on the same provider, to 1e-6."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import int8_graph
import numpy as np
import onnx_files
import pytest
from c_abi import Detail, FailedCallError, Native, image
from PIL import Image as PILImage

from lpips_runtime import Scorer

Opened = Callable[..., Native]
InPython = Callable[[Path], Scorer]
Noise = Callable[..., np.ndarray]

KINDS = [("fp32", "float32"), ("fp32", "uint8"), ("fp16", "float32"), ("int8", "float32")]


def assert_same(found: Detail, expected: Any) -> None:
    for name in ("distance", "layers", "map"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-6, err_msg=name)
    assert len(found.depths) == len(expected.depths)
    for k, depth in enumerate(found.depths):
        np.testing.assert_allclose(depth, expected.depths[k], rtol=1e-6, atol=1e-6, err_msg=f"depth {k}")


@pytest.mark.parametrize(("precision", "image_input"), KINDS)
@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_every_net_and_precision(
    net: str,
    precision: str,
    image_input: str,
    graph: Callable[..., Path],
    opened: Opened,
    in_python: InPython,
    noise: Noise,
) -> None:
    path = graph(net, precision, image_input)
    with opened(path) as native, opened(path, quick_start=1) as quick, in_python(path) as scorer:
        smallest = scorer.info.min_size
        for height, width in ((smallest, smallest), (47, 61), (64, 40)):
            a, b = (np.stack([noise(seed + k, height, width) for k in range(3)]) for seed in (1, 10))
            b[2] = a[2]
            expected = scorer.detail(a, b)
            views = [image(one) for one in a], [image(one) for one in b]
            assert_same(native.detail(*views), expected)
            assert native.detail(*views).distance[2] == 0
            single = scorer.detail(a[0], b[0])
            assert_same(native.detail([views[0][0]], [views[1][0]]), single)
            np.testing.assert_allclose(quick.score([views[0][0]], [views[1][0]]), single.distance, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(native.score(*views), expected.distance, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "precision"), [("alex", "fp32"), ("squeeze", "fp32"), ("vgg", "fp32"), ("alex", "fp16")]
)
def test_features_are_compared_as_in_python(
    net: str, precision: str, graph: Callable[..., Path], opened: Opened, in_python: InPython, noise: Noise
) -> None:
    path = graph(net, precision, "float32")
    a, many = noise(1), np.stack([noise(seed) for seed in (2, 3, 1)])
    with opened(path) as native, in_python(path) as scorer:
        expected = scorer.detail(scorer.encode(a), scorer.encode(many))
        views = [image(one) for one in many]
        found = native.compare([image(a)], views)
        assert_same(found, expected)
        assert found.distance[2] == 0
        assert_same(native.compare(views, views), scorer.detail(scorer.encode(many), scorer.encode(many)))


@pytest.mark.parametrize("name", ["rgb", "bgr", "rgba", "bgra", "rgbx", "bgrx"])
@pytest.mark.parametrize("model", ["alex", "squeeze"])
def test_every_order_of_channels_with_padded_rows(
    name: str, model: str, models: Callable[[str], Path], opened: Opened, in_python: InPython, noise: Noise
) -> None:
    a, b = noise(1), noise(2)
    rows = np.full((2, 47, 64, len(name)), 255, np.uint8)
    for row, pixels in zip(rows, (a, b), strict=True):
        row[:, :61, :3] = pixels[..., ::-1] if name.startswith("b") else pixels
        if name.endswith("x"):
            row[..., 3] = 7
    with opened(models(model)) as native, in_python(models(model)) as scorer:
        found = native.score([image(rows[0, :, :61], name)], [image(rows[1, :, :61], name)])
        assert found[0] == pytest.approx(scorer.score(a, b), abs=1e-6)


@pytest.mark.parametrize(("name", "value_range"), [("unit", (0, 1)), ("symmetric", (-1, 1))])
def test_planar_floats(
    name: str, value_range: tuple[float, float], models: Callable[[str], Path], opened: Opened, in_python: InPython
) -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.uniform(*value_range, (3, 47, 61)).astype(np.float32) for _ in range(2))
    with opened(models("alex")) as native, in_python(models("alex")) as scorer:
        expected = scorer.detail(a, b, value_range=value_range)
        assert_same(native.detail([image(a, name)], [image(b, name)]), expected)


def test_int8_siblings_are_compared_and_those_of_another_calibration_refused(
    exported: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    opened: Opened,
    in_python: InPython,
    noise: Noise,
) -> None:
    from lpips_export import calibration

    monkeypatch.setattr(calibration, "_CROPS", {"calibration": 1, "held out": 1})
    monkeypatch.setattr(calibration, "_SIDE", 64)
    photographs = int8_graph.save_photographs(tmp_path)
    path = exported(
        net="alex",
        precision="int8",
        split=True,
        quick=True,
        calibration=photographs,
        calibration_count=9,
        max_error=0.9,
    )[0]
    with opened(path) as native, in_python(path) as scorer:
        expected = scorer.detail(scorer.encode(noise(1)), scorer.encode(noise(2)))
        assert_same(native.compare([image(noise(1))], [image(noise(2))]), expected)

    # The metadata does not name the calibration: float graphs that say they are INT8 stand for another one.
    pair = tmp_path / "pair.onnx"
    pair.write_bytes(path.read_bytes())
    _, *siblings = exported(net="alex", split=True, quick=True)
    for sibling, kind in zip(siblings, ("features", "compare"), strict=True):
        onnx_files.relabelled(sibling, tmp_path / f"pair_{kind}.onnx", precision="int8", target="cpu")
    with opened(pair) as native, pytest.raises(FailedCallError, match="another calibration"):
        native.compare([image(noise(1))], [image(noise(2))])


def test_golden_figures(
    exported: Callable[..., list[Path]], real_weights: Callable[[str], Path], golden_dir: Path, opened: Opened
) -> None:
    golden = json.loads((golden_dir / "golden.json").read_text())["alex"]
    pixels = {
        name: np.asarray(PILImage.open(golden_dir / f"ex_{name}.png").convert("RGB")) for name in ("ref", "p0", "p1")
    }
    for image_input in ("float32", "uint8"):
        path = exported(net="alex", backbone=real_weights("alex"), quick=True, version="0.1", input=image_input)[0]
        with opened(path) as native:
            for name in ("p0", "p1"):
                found = native.detail([image(pixels["ref"])], [image(pixels[name])])
                assert found.distance[0] == pytest.approx(golden["float64"][f"ref_{name}"], abs=1e-6)
                assert found.map.mean() == pytest.approx(golden["map_mean"][f"ref_{name}"], abs=1e-6)
            found = native.detail([image(pixels["ref"])], [image(pixels["p0"])])
            np.testing.assert_allclose(found.layers[0], golden["layers_ref_p0"], atol=1e-6)
