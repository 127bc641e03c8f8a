"""What fast-math cannot be trusted with: the distance of nearly equal images."""

import numpy as np

from .images import Note

__all__ = ["FAST_MATH", "SMALLEST", "doubts"]

FAST_MATH = "fast-math"
"""The kind of the note."""

SMALLEST = 2e-3
"""The smallest distance that bfloat16 or TF32 gets about right.

Two images are subtracted that were each rounded, to 8 bits of precision in bfloat16 (TF32: 11). Of 144 pairs of natural
crops, distorted from one changed pixel up, none that came out at this or more in bfloat16 was further than 22 % from
float32 (alex 9, squeeze 15, vgg 22); vgg made 0.00104 of 0.00041, and each net up to hundreds of times too much of
distances below 0.000001. `python -m benchmarks providers --photos` prints these figures.
"""


def doubts(distances: np.ndarray) -> tuple[Note, ...]:
    """What is to be said of distances that were computed by fast-math. Equal images give exactly 0 in any type."""
    if not ((distances > 0) & (distances < SMALLEST)).any():
        return ()
    return (
        Note(
            FAST_MATH,
            f"a distance below {SMALLEST:g} is not to be trusted in fast-math: nearly equal images come out up to "
            "hundreds of times too large; score them without --fast-math",
        ),
    )
