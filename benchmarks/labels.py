"""Names beside the points of a scatter plot, where they hide neither one another nor the points."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["overlap", "place_labels"]

# Where a label's middle of the near edge goes, in points from its point, nearest first: right, left, above, below, and
# farther away.
_FAR = (7, 14, 22, 32, 44)
_WAYS = ((1, 0), (-1, 0), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7), (0, 1), (0, -1))
_AROUND = [(far * x, far * y) for far, (x, y) in itertools.product(_FAR, _WAYS)]
# A label that is so far from its point is tied to it by a line.
_TIED = 10
_MARKER = 5  # half its width, points
_APART = 4  # what is left between two labels, points
_ROUNDS = 3


def overlap(one: np.ndarray, others: np.ndarray) -> float:
    """The area that a box shares with others. one: [4]; others: [N, 4], of left, bottom, right, top."""
    width = np.minimum(one[2], others[:, 2]) - np.maximum(one[0], others[:, 0])
    height = np.minimum(one[3], others[:, 3]) - np.maximum(one[1], others[:, 1])
    return float((width.clip(0) * height.clip(0)).sum())


def place_labels(axes: Any, points: Sequence[tuple[float, float]], texts: Sequence[str], colours: Sequence[str]) -> Any:
    """Write texts[i] beside points[i], data coordinates; the limits of the axes must be final. Gives the labels' boxes
    in pixels, [N, 4]: left, bottom, right, top.

    Each label in turn goes where it covers least, some rounds long, since those placed first did not see the last.
    """
    page = axes.figure
    page.draw_without_rendering()  # where the axes come to lie is not known before
    renderer, pixels = page.canvas.get_renderer(), page.dpi / 72
    at = axes.transData.transform(np.asarray(points, float))
    notes = [
        axes.annotate(text, point, (0, 0), textcoords="offset points", color=colour, fontsize=8, va="bottom")
        for text, point, colour in zip(texts, points, colours, strict=True)
    ]
    sizes = [(box.width + _APART * pixels, box.height) for box in (note.get_window_extent(renderer) for note in notes)]
    for note in notes:
        note.set_in_layout(False)
    frame = axes.get_window_extent(renderer)
    markers = np.hstack([at - _MARKER * pixels, at + _MARKER * pixels])
    boxes = np.full((len(notes), 4), np.nan)
    offsets = [(0.0, 0.0)] * len(notes)
    for _ in range(_ROUNDS):
        for number, ((x, y), (width, height)) in enumerate(zip(at, sizes, strict=True)):
            boxes[number] = np.nan
            taken = np.vstack([markers, boxes[~np.isnan(boxes[:, 0])]])
            best = np.inf
            for rank, (right, up) in enumerate(_AROUND):
                left = x + right * pixels - width * (0.5 - 0.5 * np.sign(right))
                bottom = y + up * pixels - height * (0.5 - 0.5 * np.sign(up) * (right == 0))
                box = np.array([left, bottom, left + width, bottom + height])
                hidden = width * height - overlap(box, np.array([frame.extents]))
                # A little of the rank: of two free places the nearer.
                cost = overlap(box, taken) + 2 * hidden + rank
                if cost < best:
                    best, boxes[number], offsets[number] = cost, box, (right, up)
    for note, box, (x, y), (right, up) in zip(notes, boxes, at, offsets, strict=True):
        note.set_position(((box[0] - x) / pixels + _APART / 2, (box[1] - y) / pixels))
        if np.hypot(right, up) > _TIED:
            line = {"arrowstyle": "-", "color": "#8C8C8C", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
            tie = axes.annotate("", note.xy, (right, up), textcoords="offset points", arrowprops=line)
            tie.set_in_layout(False)
    return boxes
