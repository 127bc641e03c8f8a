"""Graphs under ONNX Runtime's CUDA provider, beside the CPU provider's figures. `pytest -m gpu`."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from on_gpu import INT8_LIMIT, LIMITS, assert_same, pairs

from lpips_runtime import Scorer, providers
from lpips_runtime.errors import LpipsError
from lpips_runtime.listing import survey
from lpips_runtime.ort import onnxruntime
from lpips_runtime.session import Session

pytestmark = pytest.mark.gpu

Exported = Callable[..., list[Path]]
SHAPES = ((1, 31, 31), (3, 200, 131), (4, 64, 97), (1, 320, 320), (9, 40, 40))


@pytest.fixture(scope="module", autouse=True)
def _cuda() -> None:
    if "CUDAExecutionProvider" not in onnxruntime().get_available_providers():
        pytest.skip(f"onnxruntime {onnxruntime().__version__} has no CUDA provider")
    try:
        providers.find_device(providers.PROVIDERS["cuda"], 0)
    except LpipsError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("image_input", ["float32", "uint8"])
@pytest.mark.parametrize("precision", list(LIMITS))
@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_it_agrees_with_float32_on_the_cpu(exported: Exported, net: str, precision: str, image_input: str) -> None:
    path, truth = (exported(net=net, precision=kind, input=image_input, quick=True)[0] for kind in (precision, "fp32"))
    with Scorer(path, provider="cuda") as scorer, Scorer(truth, provider="cpu") as reference:
        assert scorer.provenance["runtime"]["provider"] == "cuda"
        for shape in SHAPES:
            assert_same(scorer, reference, precision, *pairs(*shape))


def test_float32_is_float32_unless_fast_math_is_asked_for(exported: Exported) -> None:
    """TF32 has ten bits of mantissa: it is told from float32 by a thousandfold error."""
    (path,) = exported(net="vgg", quick=True)
    pair = pairs(4, 128, 128)
    with Scorer(path, provider="cpu") as reference:
        expected = reference.detail(*pair).layers[::2]
    error = {}
    for fast in (False, True):
        with Scorer(path, provider="cuda", fast_math=fast) as scorer:
            error[fast] = float(np.abs(scorer.detail(*pair).layers[::2] / expected - 1).max())
            assert scorer.provenance["runtime"].get("types") == ("TF32" if fast else None)
    print(f"relative error of layers: {error[False]:.1e}, in TF32 {error[True]:.1e}")
    assert error[False] < 1e-5
    assert error[True] > 5 * error[False]


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_int8_agrees_with_the_same_graph_on_the_cpu(
    net: str, random_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from int8_graph import Int8Net

    from lpips_export.tracing import serialized

    graph = tmp_path / f"lpips_{net}_int8.onnx"
    graph.write_bytes(serialized(Int8Net(net, random_backbone(net)).graph("cpu")))
    with Scorer(graph, provider="cuda") as scorer, Scorer(graph, provider="cpu") as truth:
        for shape in SHAPES[:3]:
            found, expected = (one.score(*pairs(*shape)) for one in (scorer, truth))
            # Convolutions are computed in float there, and a value between two steps may be rounded to the other one:
            # 1.5 % was seen, of the smallest image on vgg.
            np.testing.assert_allclose(found, expected, rtol=3 * INT8_LIMIT, atol=1e-6)


def test_features_that_are_reused_give_what_pairs_give(exported: Exported) -> None:
    path, *_ = exported(net="squeeze", split=True, quick=True)
    first, second = pairs(6, 90, 75)
    with Scorer(path, provider="cuda") as scorer:
        pairwise = scorer.score(first, second)
        reused = scorer.compare(scorer.encode(first), scorer.encode(second))
        one = scorer.compare(scorer.encode(first[:1]), scorer.encode(second))
        broadcast = scorer.score(np.repeat(first[:1], 6, 0), second)
    np.testing.assert_allclose(reused, pairwise, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(one, broadcast, rtol=1e-5, atol=1e-7)


def test_tiles_give_what_the_whole_gives(exported: Exported) -> None:
    (path,) = exported(net="alex", quick=True)
    pair = pairs(1, 1400, 1531)
    with Scorer(path, provider="cuda") as scorer, Scorer(path, provider="cuda", max_memory="300MB") as tiled:
        whole, cut = scorer.detail(*pair), tiled.detail(*pair)
    assert cut.tiles > 1
    np.testing.assert_allclose(cut.distance, whole.distance, rtol=1e-5)
    np.testing.assert_allclose(cut.map, whole.map, rtol=1e-4, atol=1e-5)


def test_many_threads_share_one_session(exported: Exported) -> None:
    (path,) = exported(net="alex", quick=True)
    work = [pairs(1 + k % 3, 70 + 23 * (k % 5), 70 + 17 * (k % 4)) for k in range(40)]
    with Scorer(path, provider="cuda") as scorer:
        expected = [scorer.score(*pair) for pair in work]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda pair: scorer.score(*pair), work))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_too_much_for_the_gpu_is_an_error_that_says_so_and_the_session_goes_on(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = exported(net="vgg", quick=True)
    row = providers.PROVIDERS["cuda"]
    limit = str(600 * 2**20)
    options = row.options
    monkeypatch.setitem(
        providers.PROVIDERS,
        "cuda",
        replace(row, options=lambda *of: {**options(*of), "gpu_mem_limit": limit}),
    )
    session = Session(path, provider="cuda")
    image = np.zeros((4, 3, 1024, 1024), np.float32)
    with pytest.raises(LpipsError, match="lower --max-memory"):
        session.run({"reference": image, "distorted": image}, ["distance"])
    small = np.zeros((1, 3, 64, 64), np.float32)
    assert session.run({"reference": small, "distorted": small}, ["distance"])[0] == 0


def test_auto_takes_it_and_the_list_says_that_it_works() -> None:
    row = next(row for row in survey() if row["provider"] == "cuda")
    assert row["works"], row["why"]
    assert row["auto"]
    assert row["devices"][0]["faster"] == "TF32"


@pytest.mark.parametrize("precision", list(LIMITS))
@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_the_seeded_tensors(
    net: str, precision: str, golden_dir: Path, real_weights: Callable[[str], Path], exported: Exported
) -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(42)
    pair = [(torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1).numpy() for _ in range(2)]
    (path,) = exported(net=net, precision=precision, backbone=real_weights(net), quick=True)
    with Scorer(path, provider="cuda") as scorer:
        found = scorer.score(*pair, value_range=(-1, 1))
    expected = json.loads((golden_dir / "golden.json").read_text())["seeded"][net]
    np.testing.assert_allclose(found, expected, atol=LIMITS[precision][0])
