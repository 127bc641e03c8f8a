"""How the metric is written, where that is worth something and no number shows it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from lpips_export.backbones import BACKBONES
from lpips_export.graph import is_product_with_itself
from lpips_export.metric import square


def test_a_square_is_that_of_torch_to_the_bit() -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.randn(1000) * 10.0**power for power in range(-30, 25)])
    special = torch.tensor([0.0, -0.0, float("inf"), float("nan")])
    for x in (values, special):
        assert torch.equal(square(x).view(torch.int32), x.square().view(torch.int32))


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_squares_are_products_and_none_is_a_power(net: str, exported: Callable[..., list[Path]]) -> None:
    """Pow takes ONNX Runtime's CPU provider half as long again: 5 % of a pair on SqueezeNet."""
    depths = len(BACKBONES[net].channels)
    # Of the norm and of the difference, for which the pair graph takes both images at once.
    expected = {"pair": 2 * depths, "features": depths, "compare": depths}
    for path, (kind, count) in zip(exported(net=net, split=True), expected.items(), strict=True):
        nodes = onnx.load(path).graph.node
        squares = Counter(node.op_type for node in nodes if node.op_type == "Pow" or is_product_with_itself(node))
        assert squares == {"Mul": count}, kind
