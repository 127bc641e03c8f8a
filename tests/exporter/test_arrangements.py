"""Graphs arranged for OpenVINO: the same numbers, and none of what it is slow at."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from lpips_export.backbones import BACKBONES
from lpips_export.errors import SpecError, StructureError
from lpips_export.spec import ExportSpec
from lpips_export.structure import check_structure
from lpips_runtime import Scorer
from lpips_runtime.models import manifest_path

Exported = Callable[..., list[Path]]


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_no_tap_is_reordered_and_every_proof_is_given(net: str, exported: Exported) -> None:
    """The export itself compares every case with the reference, the dead and the faint copy too."""
    paths = exported(net=net, target="openvino", split=True)
    assert all("_openvino" in path.name for path in paths)
    depths = len(BACKBONES[net].channels)
    # Norms of both images and the weighting; norms of one; the weighting.
    for path, sums in zip(paths, (3 * depths, depths, depths), strict=True):
        model = onnx.load(path)
        kinds = Counter(node.op_type for node in model.graph.node)
        assert not kinds.keys() & {"MatMul", "Reshape", "Slice", "Transpose"}, path.name
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        ones = [node for node in model.graph.node if node.op_type == "Conv" and constants[node.input[1]].dims[0] == 1]
        assert len(ones) == sums


def test_it_scores_as_the_other_arrangement_does_and_its_siblings_as_it(exported: Exported) -> None:
    ours, (four, *_) = exported(net="alex", split=True)[0], exported(net="alex", target="openvino", split=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 65, 78, 3), dtype=np.uint8)
    with Scorer(ours, provider="cpu") as one, Scorer(four, provider="cpu") as other:
        expected, found = one.detail(*images), other.detail(*images)
        np.testing.assert_allclose(found.distance, expected.distance, rtol=1e-5)
        np.testing.assert_allclose(found.map, expected.map, rtol=1e-4, atol=1e-6)
        split = other.detail(other.encode(images[0]), other.encode(images[1]))
        np.testing.assert_allclose(split.distance, found.distance, rtol=1e-6)
        assert not np.any(other.score(images[0], images[0]))


def test_a_norm_without_eps_in_one_pass_is_refused(exported: Exported) -> None:
    path, *_ = exported(net="alex", target="openvino", split=True)
    with Scorer(path, provider="cpu") as scorer:
        info = scorer.info
    model = onnx.load(path)
    place = next(entry for entry in model.metadata_props if entry.key == "lpips.content_sha256")
    place.value = info.content_sha256
    check_structure(model, info)
    root = next(node for node in model.graph.node if node.op_type == "Sqrt")
    norm = next(node for node in model.graph.node if root.output[0] in node.input)
    for node in model.graph.node:
        node.input[:] = [root.output[0] if name == norm.output[0] else name for name in node.input]
    model.graph.node.remove(norm)
    with pytest.raises(StructureError, match=r"divides by sqrt\(...\) \+ 1e-10 1 times, must be 2"):
        check_structure(model, info)


def test_the_manifest_and_the_metadata_name_the_target(exported: Exported) -> None:
    path, *_ = exported(net="alex", target="openvino", split=True)
    assert '"target": "openvino"' in manifest_path(path).read_text()
    with Scorer(path, provider="cpu") as scorer:
        assert (scorer.info.precision, scorer.info.target) == ("fp32", "openvino")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_have_no_such_arrangement(precision: str) -> None:
    with pytest.raises(SpecError, match="--target openvino is an arrangement of the float32 graph"):
        ExportSpec(precision=precision, target="openvino", calibration=Path("photographs"))
