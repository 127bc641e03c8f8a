"""What the tests of the runtime share."""

import pytest


@pytest.fixture
def write(tmp_path):
    def write(data, name="image"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write
