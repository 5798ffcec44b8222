"""Words in a picture, put where nothing else lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from gpurerank.evaluation.svg import words

LETTER = 6.3
LINE = 12.0
# Between the points that stand for a line.
STEP = 5.0

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Labels:
    """Places words one after another; what was placed first stays.

    Args:
        left: Where the picture's plane begins; nothing is placed outside.
        top: Likewise.
        right: Where it ends.
        bottom: Likewise.
    """

    def __init__(self, left: float, top: float, right: float, bottom: float) -> None:
        self._plane = (left, top, right, bottom)
        self._taken: list[Box] = []

    def keep_free(self, x: float, y: float, radius: float) -> None:
        """Keeps a mark free of words."""
        self._taken.append((x - radius, y - radius, x + radius, y + radius))

    def keep_free_along(self, points: Sequence[tuple[float, float]]) -> None:
        """Keeps a line through points free of words."""
        for (x1, y1), (x2, y2) in pairwise(points):
            steps = max(1, round(math.hypot(x2 - x1, y2 - y1) / STEP))
            for step in range(steps + 1):
                share = step / steps
                self.keep_free(x1 + share * (x2 - x1), y1 + share * (y2 - y1), 1.0)

    def beside(self, x: float, y: float, said: str, css: str, *, radius: float = 7.0) -> Markup:
        """Words at a mark: above, below, right or left of it; none where there is no room."""
        away = radius + 2
        return self.place(
            [
                (x, y - away, "middle"),
                (x, y + away + 8, "middle"),
                (x + away, y + 4, "start"),
                (x - away, y + 4, "end"),
            ],
            said,
            css,
        )

    def place(self, places: Sequence[tuple[float, float, str]], said: str, css: str) -> Markup:
        """Words at the first place (x, baseline, anchor) that is free; none where none is."""
        for x, y, anchor in places:
            box = _box(x, y, anchor, said)
            if self._inside(box) and not any(_overlap(box, taken) for taken in self._taken):
                self._taken.append(box)
                return words(x, y, said, css, anchor)
        return Markup("")

    def _inside(self, box: Box) -> bool:
        left, top, right, bottom = self._plane
        return box[0] >= left and box[1] >= top and box[2] <= right and box[3] <= bottom


def _box(x: float, y: float, anchor: str, said: str) -> Box:
    width = LETTER * len(said)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return (left, y - LINE + 2, left + width, y + 2)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
