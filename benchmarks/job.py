"""What a subject is given, and what it is made into."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["AbsentError", "Job", "Score"]

# Two uint8 [N, H, W, 3] -> float [N].
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Job:
    """net: name in LPIPS. model: our float32 artifact of it. side: width of the images, pixels. batch: pairs at once.
    threads: that compute. folder: for files that the subjects of a run share; without one each makes its own. height:
    of the images, 0 if they are square."""

    net: str
    model: str
    side: int
    batch: int
    threads: int
    folder: str = ""
    height: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.height or self.side, self.side


class AbsentError(Exception):
    """A subject is not to be had here, or not for this net. The message is the reason."""
