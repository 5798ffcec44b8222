"""Quality over latency, with the efficient frontier."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gpurerank.evaluation.figures import duration, signed
from gpurerank.evaluation.labels import Labels
from gpurerank.evaluation.measures import MAIN
from gpurerank.evaluation.plot import Frame, quality_range
from gpurerank.evaluation.records import Evaluation, Point
from gpurerank.evaluation.svg import Scale, colour, line, mark, path

RADIUS = 5.0


def efficient(points: Sequence[Point], first: float) -> list[Point]:
    """Points with more quality than all that are as fast, the first stage too; fastest first."""
    timed = [(p.p50_ms, -p.quality.mean, p) for p in points if p.p50_ms is not None]
    found: list[Point] = []
    for _, _, point in sorted(timed, key=lambda each: each[:2]):
        if point.quality.mean > (found[-1].quality.mean if found else first):
            found.append(point)
    return found


def frontier(evaluation: Evaluation, *, narrow: bool) -> Markup:
    """The picture; empty where nothing was timed."""
    timed = [p for p in evaluation.points if p.p50_ms is not None]
    if not timed:
        return Markup("")
    times = [p.p50_ms or 0.0 for p in timed]
    times += [p.latency_anew.p50_ms for p in timed if p.latency_anew is not None]
    frame = Frame(narrow=narrow)
    x = Scale(min(times) / 1.35, max(times) * 1.35, frame.left, frame.stop, log=True)
    y = Scale(*quality_range(evaluation, timed), frame.bottom, frame.top)
    labels = frame.labels()
    steps = _steps(evaluation, timed, x, y)
    labels.keep_free_along(steps)
    for record in evaluation.contenders:
        points = [p for p in evaluation.of(record.name) if p.p50_ms is not None]
        places = [(x(p.p50_ms or 1.0), y(p.quality.mean)) for p in points]
        labels.keep_free_along(places)
        for place in places:
            labels.keep_free(*place, RADIUS)
    parts = [
        *frame.rows(y, MAIN),
        *frame.columns(x, "latency of a query (p50), from strings to a ranking", _tick),
        path([*steps, (frame.stop, frame.bottom), (frame.left, frame.bottom)], "frontier-area"),
        path(steps, "frontier"),
        *_contenders(evaluation, x, y, labels),
        *_recommended(evaluation, x, y),
        *_names(evaluation, x, y, labels, shown=not narrow),
        *_limits(evaluation, y, frame, labels),
    ]
    label = f"{MAIN} over latency of {len(timed)} combinations; the table has the same figures"
    return frame.picture(label, *parts)


def _limits(evaluation: Evaluation, y: Scale, frame: Frame, labels: Labels) -> list[Markup]:
    """What lies below and above: the first stage alone, and the best order there can be."""
    first = frame.across(
        y(evaluation.first_quality.mean), f"{evaluation.first_stage} alone", "first", labels
    )
    ceiling = evaluation.ceiling[evaluation.depth]
    said = f"perfect order of {evaluation.depth}"
    if ceiling <= y.high:
        return [first, frame.across(y(ceiling), said, "ceiling", labels)]
    above = [(frame.left + 6, frame.top + 8, "start"), (frame.stop - 4, frame.top + 8, "end")]
    return [first, labels.place(above, f"{said}: {ceiling:.3f} ↑", "small")]


def _steps(
    evaluation: Evaluation, timed: Sequence[Point], x: Scale, y: Scale
) -> list[tuple[float, float]]:
    """The corners of the frontier: what is had for so much time, from the first stage alone up."""
    first = evaluation.first_quality.mean
    corners = [(x.start, y(first))]
    for point in efficient(timed, first):
        place = (x(point.p50_ms or 1.0), y(point.quality.mean))
        corners += [(place[0], corners[-1][1]), place]
    return [*corners, (x.stop, corners[-1][1])]


def _contenders(evaluation: Evaluation, x: Scale, y: Scale, labels: Labels) -> list[Markup]:
    curves, marks, depths = [], [], []
    for index, record in enumerate(evaluation.contenders):
        css = colour(index)
        timed = [(p, p.p50_ms) for p in evaluation.of(record.name) if p.p50_ms is not None]
        if len(timed) > 1:
            curves.append(path([(x(ms), y(p.quality.mean)) for p, ms in timed], f"curve {css}"))
        for point, ms in timed:
            px, py = x(ms), y(point.quality.mean)
            marks += _anew(point, px, py, index, x)
            marks.append(mark(index, px, py, RADIUS, f"solid {css}", told(point, ms)))
            depths.append(labels.beside(px, py, str(point.depth), "small"))
    return [*curves, *marks, *depths]


def _anew(point: Point, px: float, py: float, index: int, x: Scale) -> list[Markup]:
    if point.latency_anew is None:
        return []
    ms = point.latency_anew.p50_ms
    said = f"{told(point, ms)}, embedding in the call"
    return [
        line(px, py, x(ms), py, f"anew-line {colour(index)}"),
        mark(index, x(ms), py, RADIUS - 0.8, f"hollow {colour(index)}", said),
    ]


def told(point: Point, ms: float) -> str:
    """A point in words."""
    gain = signed(point.against_first.difference)
    quality = f"{MAIN} {point.quality.mean:.3f} ({gain})"
    return f"{point.contender} on {point.depth}: {quality}, {duration(ms)}"


def _recommended(evaluation: Evaluation, x: Scale, y: Scale) -> list[Markup]:
    point = evaluation.recommended
    if point is None or point.p50_ms is None:
        return []
    said = f"recommended: {told(point, point.p50_ms)}"
    return [mark(0, x(point.p50_ms), y(point.quality.mean), RADIUS + 6, "ring", said)]


def _names(
    evaluation: Evaluation, x: Scale, y: Scale, labels: Labels, *, shown: bool
) -> list[Markup]:
    """Each contender's name beside where its line ends, in its colour; the legend has all."""
    parts = []
    for index, record in enumerate(evaluation.contenders):
        timed = [(p, p.p50_ms) for p in evaluation.of(record.name) if p.p50_ms is not None]
        if timed and shown:
            point, ms = timed[-1]
            css = f"name {colour(index)}"
            px, py = x(ms), y(point.quality.mean)
            parts.append(labels.beside(px, py, record.name, css, radius=RADIUS + 6))
    return parts


def _tick(ms: float) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"
