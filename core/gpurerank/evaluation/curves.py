"""Quality and latency by the number of candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from gpurerank.evaluation.figures import duration
from gpurerank.evaluation.labels import Labels
from gpurerank.evaluation.measures import MAIN
from gpurerank.evaluation.plot import Frame, quality_range
from gpurerank.evaluation.records import Evaluation, Point
from gpurerank.evaluation.svg import Scale, colour, line, mark, path, words

Value = Callable[[Point], float]


def quality_by_depth(evaluation: Evaluation, *, narrow: bool) -> Markup:
    """How quality grows with depth, below the perfect order of as many candidates."""
    if len(evaluation.depths) < 2:
        return Markup("")
    frame = Frame(narrow=narrow, wide_width=376, wide_height=320, narrow_height=300)
    x = _depth_scale(evaluation, frame)
    low, high = quality_range(evaluation, evaluation.points)
    y = Scale(low, high, frame.bottom, frame.top)
    labels = frame.labels()
    for record in evaluation.contenders:
        places = [(x(p.depth), y(p.quality.mean)) for p in evaluation.of(record.name)]
        labels.keep_free_along(places)
        for place in places:
            labels.keep_free(*place, 4)
    first = y(evaluation.first_quality.mean)
    parts = [
        *frame.rows(y, MAIN),
        *_columns(evaluation, x, frame),
        *_curves(evaluation, x, y, lambda p: p.quality.mean, lambda v: f"{v:.3f}"),
        *_ceiling(evaluation, x, y, frame, labels),
        frame.across(first, f"{evaluation.first_stage} alone", "first", labels),
    ]
    return frame.picture(f"{MAIN} by the number of candidates", *parts)


def latency_by_depth(evaluation: Evaluation, *, narrow: bool) -> Markup:
    """How latency grows with depth."""
    times = [p.p50_ms for p in evaluation.points if p.p50_ms is not None]
    if len(evaluation.depths) < 2 or not times:
        return Markup("")
    frame = Frame(narrow=narrow, wide_width=376, wide_height=320, narrow_height=300, left=54)
    x = _depth_scale(evaluation, frame)
    y = Scale(min(times) / 1.4, max(times) * 1.4, frame.bottom, frame.top, log=True)
    parts = [words(14, frame.top - 10, "p50 a query", "axis"), *_columns(evaluation, x, frame)]
    for value in y.ticks(4):
        parts.append(line(frame.left, y(value), frame.stop, y(value), "grid"))
        parts.append(words(frame.left - 6, y(value) + 4, duration(value), "tick", "end"))
    parts += _curves(evaluation, x, y, lambda p: p.p50_ms or 0.0, duration)
    return frame.picture("Latency by the number of candidates", *parts)


def _ceiling(
    evaluation: Evaluation, x: Scale, y: Scale, frame: Frame, labels: Labels
) -> list[Markup]:
    """The best that so many candidates can give; in words where it lies above the picture."""
    best = [evaluation.ceiling[depth] for depth in evaluation.depths]
    if max(best) > y.high:
        said = f"perfect order: {best[0]:.3f} to {best[-1]:.3f} ↑"
        top = frame.top + 8
        return [
            labels.place([(frame.left + 6, top, "start"), (frame.stop, top, "end")], said, "small")
        ]
    places = [(x(d), y(mean)) for d, mean in zip(evaluation.depths, best, strict=True)]
    above = [(px, py - 7, anchor) for px, py in reversed(places) for anchor in ("end", "middle")]
    return [path(places, "ceiling"), labels.place(above, "perfect order", "small")]


def _depth_scale(evaluation: Evaluation, frame: Frame) -> Scale:
    low, high = evaluation.depths[0], evaluation.depths[-1]
    return Scale(low, high, frame.left + 16, frame.stop - 16, log=True)


def _columns(evaluation: Evaluation, x: Scale, frame: Frame) -> list[Markup]:
    parts = [line(frame.left, frame.bottom, frame.stop, frame.bottom, "base")]
    for depth in evaluation.depths:
        parts.append(line(x(depth), frame.bottom, x(depth), frame.bottom + 5, "base"))
        parts.append(words(x(depth), frame.bottom + 18, f"{depth:,}", "tick", "middle"))
    middle = (frame.left + frame.stop) / 2
    return [*parts, words(middle, frame.bottom + 37, "candidates", "axis", "middle")]


def _curves(
    evaluation: Evaluation, x: Scale, y: Scale, value: Value, said: Callable[[float], str]
) -> list[Markup]:
    parts: list[Markup] = []
    for index, record in enumerate(evaluation.contenders):
        points = [p for p in evaluation.of(record.name) if value(p) > 0]
        places = [(x(p.depth), y(value(p))) for p in points]
        if len(places) > 1:
            parts.append(path(places, f"curve strong {colour(index)}"))
        parts += _marks(points, places, index, value, said)
    return parts


def _marks(
    points: Sequence[Point],
    places: Sequence[tuple[float, float]],
    index: int,
    value: Value,
    said: Callable[[float], str],
) -> list[Markup]:
    return [
        mark(
            index,
            px,
            py,
            4.2,
            f"solid {colour(index)}",
            f"{p.contender} on {p.depth}: {said(value(p))}",
        )
        for p, (px, py) in zip(points, places, strict=True)
    ]
