"""Small pieces of SVG: marks, scales and axes; every text escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

SHAPES = 6
COLOURS = 8


def element(name: str, attributes: Mapping[str, str | float], *children: str) -> Markup:
    """One element; children that are no Markup are escaped, numbers rounded to a hundredth."""
    said = "".join(f' {key}="{escape(_value(value))}"' for key, value in attributes.items())
    inside = Markup("").join(children)
    # Only names that stand in this package reach the two places that are not escaped.
    return Markup(f"<{name}{said}>{inside}</{name}>")


def picture(
    width: float, height: float, label: str, css: str, *children: str, stretched: bool = False
) -> Markup:
    """A whole picture, as wide as its place; a stretched one fills it in both directions."""
    attributes: dict[str, str | float] = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "role": "img",
        "aria-label": label,
        "class": css,
        **({"preserveAspectRatio": "none"} if stretched else {}),
    }
    return element("svg", attributes, *children)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": css})


def rectangle(x: float, y: float, width: float, height: float, css: str, *inside: str) -> Markup:
    """A bar; a negative width or height is none."""
    size: dict[str, str | float] = {"width": max(width, 0.0), "height": max(height, 0.0)}
    return element("rect", {"x": x, "y": y, **size, "class": css}, *inside)


def path(points: Sequence[tuple[float, float]], css: str, *, closed: bool = False) -> Markup:
    """A line through points."""
    steps = " L".join(f"{x:.2f} {y:.2f}" for x, y in points)
    return element("path", {"d": f"M{steps}{'Z' if closed else ''}", "class": css})


def words(x: float, y: float, said: str, css: str = "", anchor: str = "start") -> Markup:
    """A line of text."""
    return element("text", {"x": x, "y": y, "class": css, "text-anchor": anchor}, said)


def title(said: str) -> Markup:
    """What a pointer that rests on a mark is told."""
    return element("title", {}, said)


def mark(index: int, x: float, y: float, radius: float, css: str, said: str) -> Markup:
    """The mark of the contender at a place in the list: shapes tell apart what colours may not."""
    return element("path", {"d": _outline(index % SHAPES, x, y, radius), "class": css}, title(said))


def colour(index: int) -> str:
    """The class that colours what belongs to the contender at a place in the list."""
    return f"c{index % COLOURS}"


def _outline(shape: int, x: float, y: float, r: float) -> str:
    if shape == 0:
        return f"M{x - r:.2f} {y:.2f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    corners = {
        1: ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
        2: ((0, -1.15), (1.1, 0.8), (-1.1, 0.8)),
        3: ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        4: ((0, 1.15), (1.1, -0.8), (-1.1, -0.8)),
        5: ((-0.6, -1.1), (0.6, -1.1), (1.2, 0), (0.6, 1.1), (-0.6, 1.1), (-1.2, 0)),
    }[shape]
    return "M" + "L".join(f"{x + r * dx:.2f} {y + r * dy:.2f}" for dx, dy in corners) + "Z"


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places; ``log`` spaces them by their ratio."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.stop - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values inside, about so many."""
        if self.log:
            return self._log_ticks(wanted)
        step = _round_step((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]

    def _log_ticks(self, wanted: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for factors in ((1,), (1, 3), (1, 2, 5)):
            every = [factor * 10.0**power for power in powers for factor in factors]
            found = [value for value in every if self.low <= value <= self.high]
            if len(found) >= wanted - 1:
                break
        return found


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 0.01
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough - 1e-12)


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"
