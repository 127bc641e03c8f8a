"""Errors of the exporter, on the tree of lpips_runtime.errors.

LpipsError
├── SpecError          what was asked for cannot be exported (also a ValueError)
├── CalibrationError   a folder of photographs cannot be used for INT8 (also a ValueError)
├── WeightsError       weights are missing, unknown, damaged or of another network
├── StructureError     the graph is not built as it must be: the answer is no
├── ValidationError    the graph's numbers are not the reference's: the answer is no
├── EngineError        TensorRT is missing, or did not build the engine
└── PublishError       an artifact cannot be written or replaced
"""

from lpips_runtime.errors import LpipsError, OutputError, UsageError

__all__ = [
    "CalibrationError",
    "EngineError",
    "PublishError",
    "SpecError",
    "StructureError",
    "ValidationError",
    "WeightsError",
]

NO_CALIBRATION = (
    "INT8 needs a folder of photographs like those you will score, to calibrate on and to be judged by; "
    "give it with --calibration"
)

ARRANGED = (
    "--target openvino is an arrangement of the float32 graph, which OpenVINO runs in faster types by itself "
    "(lpips-score --fast-math); leave --precision out, or name another target"
)


class SpecError(UsageError):
    """What was asked for cannot be exported."""


class CalibrationError(UsageError):
    """A folder of photographs cannot be used for INT8: missing, too few, too small, unreadable."""


class WeightsError(LpipsError):
    """Weights are missing, unknown, damaged or of another network."""


class StructureError(LpipsError):
    """A graph is not built as it must be."""

    exit_code = 1


class ValidationError(LpipsError):
    """A graph's numbers are not the reference's."""

    exit_code = 1


class EngineError(LpipsError):
    """TensorRT is missing, or did not build the engine."""


class PublishError(OutputError):
    """An artifact cannot be written, or would replace one of another specification."""
