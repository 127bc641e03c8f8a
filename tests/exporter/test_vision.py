"""The workaround of vision.py works, and is still needed: when the last test here fails, it can go."""

import subprocess
import sys

import pytest
import torch

from lpips_export import vision


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_torchvision_gives_its_models_beside_this_torch() -> None:
    model = vision.torchvision.models.squeezenet1_1(weights=None).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_after_vision_anyone_may_import_torchvision_and_lpips_plainly() -> None:
    done = python("import lpips_export.vision, torchvision, lpips; print(torchvision.__version__)")
    assert (done.returncode, done.stdout) == (0, f"{vision.torchvision.__version__}\n"), done.stderr


def test_the_import_says_nothing() -> None:
    done = python("import lpips_export.vision")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_operators_that_load_are_not_declared_again() -> None:
    declared = hasattr(vision, "_declared")
    assert declared is not vision._operators_load()


def test_without_the_declaration_torchvision_cannot_be_imported() -> None:
    if vision._operators_load():
        pytest.skip("torchvision's compiled operators load beside this torch, so nothing is declared")
    done = python("import torchvision")
    assert done.returncode != 0, "torchvision imports by itself: the declaration in vision.py can go"
    assert done.stderr.splitlines()[-1] == "RuntimeError: operator torchvision::nms does not exist"
