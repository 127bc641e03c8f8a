"""torchvision, importable beside a CPU-only torch too.

torchvision's wheel on the package index is built against CUDA torch. Beside a CPU build of torch its compiled
operators do not load, and `import torchvision` (0.28) fails with "operator torchvision::nms does not exist", because
it registers shape functions for them. Only its Python is needed here, so the two schemas are declared first. A torch
that can load the operators keeps them. tests/exporter/test_vision.py tells when this can go.
"""

import importlib.util
import warnings

import torch

__all__ = ["torchvision"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    for name in ("_C.so", "_C.pyd"):
        for folder in spec.submodule_search_locations:
            try:
                torch.ops.load_library(f"{folder}/{name}")
            except OSError:
                continue
            return True
    return False


if not _operators_load():
    # The library object must outlive the module, or its schemas go with it.
    _declared = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declared.define(_name + _SCHEMA)

with warnings.catch_warnings():
    # torchvision warns that its image extension (libjpeg, libpng) did not load; nothing here decodes with it.
    warnings.filterwarnings("ignore", message="Failed to load image Python extension")
    import torchvision
