"""The frame that pictures share: margins, grid, axes and the two lines everything lies between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gpurerank.evaluation.labels import Labels
from gpurerank.evaluation.records import Evaluation, Point
from gpurerank.evaluation.svg import Scale, line, picture, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where the axes lie; every picture is drawn twice, for a desk and for a phone."""

    narrow: bool
    wide_width: float = 760.0
    wide_height: float = 400.0
    narrow_height: float = 330.0
    right: float = 16.0
    left: float = 46.0
    top: float = 22.0

    @property
    def width(self) -> float:
        """Of the whole picture."""
        return 360.0 if self.narrow else self.wide_width

    @property
    def height(self) -> float:
        """Of the whole picture."""
        return self.narrow_height if self.narrow else self.wide_height

    @property
    def stop(self) -> float:
        """Where the axes end at the right."""
        return self.width - self.right

    @property
    def bottom(self) -> float:
        """Where the axes end below."""
        return self.height - 44.0

    def picture(self, label: str, *parts: str) -> Markup:
        """The whole picture, shown on screens of its width alone."""
        return picture(self.width, self.height, label, "narrow" if self.narrow else "wide", *parts)

    def rows(self, y: Scale, name: str) -> list[Markup]:
        """Grid lines with their values at the left, and what they count above them."""
        decimals = 2 if y.high - y.low > 0.05 else 3
        parts = [words(self.left - 40, self.top - 10, name, "axis")]
        for value in y.ticks(5):
            parts.append(line(self.left, y(value), self.stop, y(value), "grid"))
            parts.append(words(self.left - 6, y(value) + 4, f"{value:.{decimals}f}", "tick", "end"))
        return parts

    def columns(self, x: Scale, name: str, said: Callable[[float], str]) -> list[Markup]:
        """Values below the axis, and what they count."""
        parts = [line(self.left, self.bottom, self.stop, self.bottom, "base")]
        for value in x.ticks(3 if self.narrow else 5):
            parts.append(line(x(value), self.bottom, x(value), self.bottom + 5, "base"))
            parts.append(words(x(value), self.bottom + 18, said(value), "tick", "middle"))
        middle = (self.left + self.stop) / 2
        parts.append(words(middle, self.bottom + 37, name, "axis", "middle"))
        return parts

    def labels(self) -> Labels:
        """Places words inside the axes."""
        return Labels(self.left, self.top - 6, self.stop, self.bottom)

    def across(self, y: float, said: str, css: str, labels: Labels) -> Markup:
        """A line from side to side with its name on it, where that is free."""
        start, end = self.left + 6, self.stop - 4
        along = [(start, "start"), (end, "end")]
        along += [(start + share / 8 * (end - start), "middle") for share in (4, 2, 6, 3, 5)]
        places = [(x, y + below, anchor) for below in (13.0, -5.0) for x, anchor in along]
        return line(self.left, y, self.stop, y, css) + labels.place(places, said, "small")


def quality_range(evaluation: Evaluation, points: Sequence[Point]) -> tuple[float, float]:
    """Ends of the axis of quality: all points, the first stage, and the ceiling if it is near."""
    values = [evaluation.first_quality.mean, *(p.quality.mean for p in points)]
    low, high = min(values), max(values)
    room = max(high - low, 0.02)
    ceiling = evaluation.ceiling[evaluation.depth]
    near = ceiling <= high + 0.8 * room
    return max(low - 0.16 * room, 0.0), (max(ceiling, high) if near else high) + 0.14 * room
