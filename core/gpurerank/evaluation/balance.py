"""Query by query: what rose, what fell, by how much, and how sure the mean is."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gpurerank.evaluation.figures import interval
from gpurerank.evaluation.plot import Frame
from gpurerank.evaluation.records import Evaluation, Point
from gpurerank.evaluation.svg import (
    Scale,
    colour,
    line,
    mark,
    path,
    picture,
    rectangle,
    title,
    words,
)

WIDTH = 180.0
HEIGHT = 26.0
MOST_STEPS = 400


def whisker(evaluation: Evaluation, point: Point, index: int) -> Markup:
    """The difference from the first stage and its interval; the same scale for all."""
    against = point.against_first
    shown = [p.against_first for p in evaluation.shown()]
    ends = [0.0, *(each.low for each in shown), *(each.high for each in shown)]
    x = Scale(min(ends), max(ends), 8, WIDTH - 8)
    middle = HEIGHT / 2
    return picture(
        WIDTH,
        HEIGHT,
        interval(point),
        "inline",
        line(x(0), 0, x(0), HEIGHT, "zero"),
        line(x(against.low), middle, x(against.high), middle, f"whisker {colour(index)}"),
        mark(index, x(against.difference), middle, 4.6, f"solid {colour(index)}", interval(point)),
    )


def balance_bar(point: Point) -> Markup:
    """Queries that rose, stayed and fell, as one bar."""
    against = point.against_first
    total = max(against.wins + against.ties + against.losses, 1)
    parts, start = [], 0.0
    for count, css, what in (
        (against.wins, "up", "rise"),
        (against.ties, "same", "stay"),
        (against.losses, "down", "fall"),
    ):
        width = count / total * 400
        parts.append(rectangle(start, 0, width, 20, css, title(f"{count} queries {what}")))
        start += width
    label = f"{against.wins} queries rise, {against.ties} stay, {against.losses} fall"
    return picture(400, 20, label, "bar", *parts, stretched=True)


def sorted_differences(point: Point, differences: Sequence[float], *, narrow: bool) -> Markup:
    """Every query's difference, the largest gain first: a landscape with two coasts."""
    ordered = sorted(differences, reverse=True)
    most = max(abs(ordered[0]), abs(ordered[-1]), 0.01)
    frame = Frame(narrow=narrow, wide_height=250, narrow_height=220)
    x = Scale(0, len(ordered), frame.left, frame.stop)
    y = Scale(-most if ordered[-1] < 0 else -0.1 * most, most, frame.bottom, frame.top)
    parts = [words(6, frame.top - 10, "change of nDCG@10", "axis")]
    for value in y.ticks(4):
        parts.append(line(frame.left, y(value), frame.stop, y(value), "grid"))
        parts.append(words(frame.left - 6, y(value) + 4, _change(value), "tick", "end"))
    against = point.against_first
    parts += [
        _coast(ordered[: against.wins], 0, x, y, "up"),
        _coast(
            ordered[len(ordered) - against.losses :], len(ordered) - against.losses, x, y, "down"
        ),
        line(frame.left, y(0), frame.stop, y(0), "base"),
    ]
    said = f"{against.wins:,} rise · {against.ties:,} stay · {against.losses:,} fall"
    middle = (frame.left + frame.stop) / 2
    parts.append(
        words(middle, frame.bottom + 30, f"{len(ordered):,} queries: {said}", "axis", "middle")
    )
    return frame.picture(f"Change of nDCG@10, query by query: {said}", *parts)


def _coast(values: Sequence[float], start: int, x: Scale, y: Scale, css: str) -> Markup:
    """An area of steps, one a query; of very many every so many-th is drawn."""
    if not values:
        return Markup("")
    step = max(1, len(values) // MOST_STEPS)
    corners = [(x(start), y(0))]
    for row in range(0, len(values), step):
        end = min(row + step, len(values))
        corners += [(x(start + row), y(values[row])), (x(start + end), y(values[row]))]
    corners.append((x(start + len(values)), y(0)))
    return path(corners, f"coast {css}", closed=True)


def _change(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−") if value else "0"
