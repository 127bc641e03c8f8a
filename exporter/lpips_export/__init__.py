"""LPIPS as one ONNX graph, proven equal to the PyTorch reference."""

from lpips_runtime import __version__

__all__ = ["__version__"]
