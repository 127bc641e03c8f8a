"""Sizes as people write them."""

import pytest

from lpips_runtime.errors import UsageError
from lpips_runtime.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1400MB", 1_400_000_000), ("2GB", 2 * 10**9), ("1.5GB", 1_500_000_000), ("2GiB", 2**31), ("1B", 1)],
)
def test_a_size_is_a_number_and_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "2", "GB", "2 GB", "-2GB", "2gb", "2XB", "0MB", "0.1B", "1e3MB", "٢GB\n"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is no size; write a number and its unit, as in 1400MB or 2GB"):
        parse_size(text)
