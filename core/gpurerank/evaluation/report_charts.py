"""The charts of the HTML report, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gpurerank.evaluation.evaluation_result import Evaluation, Point
from gpurerank.evaluation.measures import MAIN_MEASURE
from gpurerank.evaluation.number_format import format_change, format_duration, format_interval
from gpurerank.plotting import (
    SERIES_COLOURS,
    THEME,
    LabelPlacer,
    inline_svg,
    new_figure,
    printable,
    series_style,
)

# CSS pixels: the text column of the report, half of it, and a phone's.
FULL_WIDTH = 840
HALF_WIDTH = 400
PHONE_WIDTH = 330
ROW_HEIGHT = 42
SMALL: dict[str, Any] = {"fontsize": 11, "color": THEME["quiet"]}


def pareto_frontier(points: Sequence[Point], first_stage_mean: float) -> list[Point]:
    """The points with a better mean than every point that is as fast, fastest first.

    Args:
        points: Those without a latency are left out.
        first_stage_mean: Mean of the first stage, which costs nothing more; points below it are
            never on the frontier.
    """
    timed = [(p.p50_ms, -p.quality.mean, p) for p in points if p.p50_ms is not None]
    frontier: list[Point] = []
    for _, _, point in sorted(timed, key=lambda entry: entry[:2]):
        best = frontier[-1].quality.mean if frontier else first_stage_mean
        if point.quality.mean > best:
            frontier.append(point)
    return frontier


def series_swatch(index: int) -> Markup:
    """The marker of a contender, 14 by 14 pixels, for legends and tables."""
    figure, axes = new_figure(14, 14)
    figure.set_layout_engine("none")
    axes.set_axis_off()
    axes.set_position((0, 0, 1, 1))
    axes.plot(0, 0, **series_style(index, size=10))
    return inline_svg(figure, title="", css_class="swatch")


def quality_latency_chart(evaluation: Evaluation) -> Markup:
    """Quality over latency with the Pareto frontier, for a desk and for a phone.

    Empty without a latency.
    """
    if all(point.p50_ms is None for point in evaluation.points):
        return Markup()
    wide = _quality_latency(evaluation, FULL_WIDTH, 400, "wide")
    return wide + _quality_latency(evaluation, PHONE_WIDTH, 330, "narrow")


def _quality_latency(evaluation: Evaluation, width: int, height: int, css_class: str) -> Markup:
    figure, axes = new_figure(width, height)
    tooltips: dict[str, str] = {}
    timed = [point for point in evaluation.points if point.p50_ms is not None]
    times = [point.p50_ms or 0.0 for point in timed]
    times += [p.latency_with_embedding.p50_ms for p in timed if p.latency_with_embedding]
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.4, max(times) * 1.4)
    axes.set_ylim(*_quality_limits(evaluation, timed))
    # One label per decade on a phone, three elsewhere.
    _duration_ticks(axes.xaxis, (1, 2, 5) if width == FULL_WIDTH else (1,))
    axes.set_xlabel("latency per query (p50)")
    axes.set_title(MAIN_MEASURE)
    frontier = _draw_frontier(axes, evaluation, timed)
    for index, record in enumerate(evaluation.contenders):
        points = [p for p in evaluation.points_of(record.name) if p.p50_ms is not None]
        _draw_series(axes, points, lambda p: p.p50_ms or 0.0, _mean, index, tooltips)
        for point in points:
            _draw_embedding_cost(axes, point, index, tooltips)
    best = evaluation.recommended
    if best is not None and best.p50_ms is not None:
        axes.plot(
            best.p50_ms,
            _mean(best),
            marker="o",
            markersize=19,
            markeredgewidth=2.2,
            color=THEME["up"],
            fillstyle="none",
        )
    labels = LabelPlacer(axes)
    labels.avoid(*frontier)
    for record in evaluation.contenders:
        points = [p for p in evaluation.points_of(record.name) if p.p50_ms is not None]
        _avoid(labels, [p.p50_ms or 0.0 for p in points], [_mean(p) for p in points])
    for point in timed:
        # Clear of the ring around the recommended point.
        distance = 12 if point is best else 7
        labels.place(
            point.p50_ms or 0.0, _mean(point), f"{point.depth}", distance=distance, **SMALL
        )
    _draw_references(axes, evaluation, labels)
    title = f"{MAIN_MEASURE} over latency of {len(timed)} combinations of contender and depth"
    return inline_svg(
        figure,
        title=title,
        description="The table of all depths has the same numbers.",
        css_class=css_class,
        tooltips=tooltips,
    )


def _draw_frontier(
    axes: Axes, evaluation: Evaluation, timed: Sequence[Point]
) -> tuple[list[float], list[float]]:
    """Draws the best mean for each latency as a step line; returns its corners."""
    left, right = axes.get_xlim()
    x, y = [left], [evaluation.first_quality.mean]
    for point in pareto_frontier(timed, y[0]):
        x += [point.p50_ms or left] * 2
        y += [y[-1], point.quality.mean]
    x, y = [*x, right], [*y, y[-1]]
    axes.plot(x, y, color=THEME["up"], linewidth=2.2)
    axes.fill_between(x, y, axes.get_ylim()[0], color=THEME["up"], alpha=0.07, linewidth=0)
    return x, y


def _draw_embedding_cost(axes: Axes, point: Point, index: int, tooltips: dict[str, str]) -> None:
    """Draws the latency with passages embedded in the call as a hollow marker to the right."""
    if point.latency_with_embedding is None:
        return
    ms, name = point.latency_with_embedding.p50_ms, f"embedding-{index}-{point.depth}"
    colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
    axes.plot([point.p50_ms or ms, ms], [_mean(point)] * 2, ":", color=colour, linewidth=1.4)
    axes.plot(ms, _mean(point), gid=name, **series_style(index, hollow=True))
    tooltips[name] = f"{_tooltip(point)}, {format_duration(ms)} with passages embedded in the call"


def quality_depth_chart(evaluation: Evaluation) -> Markup:
    """Quality by the number of candidates, up to the ideal order; empty for one depth."""
    if len(evaluation.depths) < 2:
        return Markup()
    figure, axes = new_figure(HALF_WIDTH, 320)
    tooltips: dict[str, str] = {}
    axes.set_ylim(*_quality_limits(evaluation, evaluation.points))
    axes.set_title(MAIN_MEASURE)
    _depth_axis(axes, evaluation.depths)
    for index, record in enumerate(evaluation.contenders):
        points = evaluation.points_of(record.name)
        _draw_series(axes, points, lambda p: p.depth, _mean, index, tooltips)
    ceiling = [evaluation.ceiling[depth] for depth in evaluation.depths]
    if max(ceiling) <= axes.get_ylim()[1]:
        axes.plot(evaluation.depths, ceiling, ":", color=THEME["quiet"])
    labels = LabelPlacer(axes)
    for record in evaluation.contenders:
        points = evaluation.points_of(record.name)
        _avoid(labels, [p.depth for p in points], [_mean(p) for p in points])
    _draw_references(axes, evaluation, labels, ceiling_line=False)
    title = f"{MAIN_MEASURE} by the number of candidates"
    return inline_svg(figure, title=title, tooltips=tooltips)


def latency_depth_chart(evaluation: Evaluation) -> Markup:
    """Latency by the number of candidates; empty for one depth or without a latency."""
    timed = [point for point in evaluation.points if point.p50_ms is not None]
    if len(evaluation.depths) < 2 or not timed:
        return Markup()
    figure, axes = new_figure(HALF_WIDTH, 320)
    tooltips: dict[str, str] = {}
    axes.set_yscale("log")
    _duration_ticks(axes.yaxis, (1, 2, 5))
    axes.set_title("latency per query (p50)")
    _depth_axis(axes, evaluation.depths)
    for index, record in enumerate(evaluation.contenders):
        points = [p for p in evaluation.points_of(record.name) if p.p50_ms is not None]
        _draw_series(axes, points, lambda p: p.depth, lambda p: p.p50_ms or 0.0, index, tooltips)
    return inline_svg(figure, title="Latency by the number of candidates", tooltips=tooltips)


def gain_chart(evaluation: Evaluation) -> Markup:
    """Gain over the first stage with its 95% interval, a row for each contender."""
    points = evaluation.main_points()
    figure, axes = _rows_of_contenders(points, "gain with its 95% interval")
    tooltips = {}
    for index, record in enumerate(evaluation.contenders):
        for row, point in enumerate(points):
            if point.contender != record.name:
                continue
            gain, style = point.against_first, series_style(index)
            axes.plot([gain.low, gain.high], [row, row], color=style["color"], linewidth=2.4)
            axes.plot(gain.difference, row, gid=f"gain-{row}", **style)
            tooltips[f"gain-{row}"] = format_interval(point)
    axes.axvline(0, color=THEME["quiet"], linestyle="--", linewidth=1)
    axes.margins(x=0.06)
    axes.xaxis.set_major_formatter(FuncFormatter(_change_tick))
    axes.locator_params(axis="x", nbins=5)
    title = f"Change of {MAIN_MEASURE} from {evaluation.first_stage} alone"
    return inline_svg(figure, title=title, tooltips=tooltips)


def outcome_chart(evaluation: Evaluation) -> Markup:
    """Shares of the queries that improve, stay the same and get worse, a row per contender."""
    points = evaluation.main_points()
    figure, axes = _rows_of_contenders(points, "queries improved, unchanged, worse")
    for row, point in enumerate(points):
        gain, start = point.against_first, 0
        for count, colour in ((gain.wins, "up"), (gain.ties, "same"), (gain.losses, "down")):
            axes.barh(row, count, left=start, height=0.34, color=THEME[colour])
            start += count
        counts = f"{gain.wins:,} ↑   {gain.ties:,} =   {gain.losses:,} ↓"
        axes.text(start, row - 0.22, counts, ha="right", va="bottom", **SMALL)
    axes.set_xlim(0, len(evaluation.queries))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.set_major_locator(NullLocator())
    title = f"Queries whose {MAIN_MEASURE} improves, stays the same and gets worse"
    description = "; ".join(
        f"{p.contender}: {p.against_first.wins} improve, {p.against_first.ties} stay the same,"
        f" {p.against_first.losses} get worse"
        for p in points
    )
    return inline_svg(figure, title=title, description=description)


def query_change_chart(point: Point, changes: Sequence[float]) -> Markup:
    """The change of every query, largest gain first, for a desk and for a phone.

    Args:
        point: The combination that is shown.
        changes: Its differences from the first stage, one per query.
    """
    wide = _query_changes(point, changes, FULL_WIDTH, 250, "wide")
    return wide + _query_changes(point, changes, PHONE_WIDTH, 220, "narrow")


def _query_changes(
    point: Point, changes: Sequence[float], width: int, height: int, css_class: str
) -> Markup:
    figure, axes = new_figure(width, height)
    ordered = np.sort(np.asarray(changes))[::-1]  # (queries,), largest gain first
    edges = np.arange(len(ordered) + 1)
    for colour, part in (("up", np.maximum(ordered, 0)), ("down", np.minimum(ordered, 0))):
        # One outline for all queries: a bar each makes megabytes of SVG for a large collection.
        axes.stairs(part, edges, fill=True, color=THEME[colour])
    axes.axhline(0, color=THEME["quiet"], linewidth=1)
    highest, lowest = max(float(ordered[0]), 0.0), min(float(ordered[-1]), 0.0)
    room = 0.05 * max(highest - lowest, 0.01)
    axes.set_ylim(lowest - room, highest + room)
    axes.set_xlim(0, len(ordered))
    axes.xaxis.set_major_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)
    axes.yaxis.set_major_formatter(FuncFormatter(_change_tick))
    axes.set_title(f"change of {MAIN_MEASURE}")
    axes.set_xlabel(f"{len(ordered):,} queries")
    gain = point.against_first
    description = f"{gain.wins} improve, {gain.ties} stay the same, {gain.losses} get worse."
    title = f"Change of {MAIN_MEASURE} for every query"
    return inline_svg(figure, title=title, description=description, css_class=css_class)


def _rows_of_contenders(points: Sequence[Point], title: str) -> tuple[Figure, Axes]:
    """Axes with a row for each contender, whose name is above the row, at any length."""
    figure, axes = new_figure(HALF_WIDTH, 62 + ROW_HEIGHT * len(points))
    axes.set_title(title)
    axes.set_ylim(len(points) - 0.6, -0.7)
    axes.yaxis.set_major_locator(NullLocator())
    for row, point in enumerate(points):
        name = printable(point.contender, 44)
        axes.text(0, row - 0.22, name, transform=axes.get_yaxis_transform(), va="bottom")
    return figure, axes


def _draw_series(
    axes: Axes,
    points: Sequence[Point],
    x: Callable[[Point], float],
    y: Callable[[Point], float],
    index: int,
    tooltips: dict[str, str],
) -> None:
    """Draws a line with a marker for each point; every marker has its own tooltip."""
    style = series_style(index)
    axes.plot(
        [x(p) for p in points], [y(p) for p in points], color=style["color"], alpha=0.6, linewidth=2
    )
    for point in points:
        name = f"point-{index}-{point.depth}"
        axes.plot(x(point), y(point), gid=name, **style)
        tooltips[name] = _tooltip(point)


def _draw_references(
    axes: Axes, evaluation: Evaluation, labels: LabelPlacer, *, ceiling_line: bool = True
) -> None:
    """Draws the first stage alone and the ideal order, between which every contender lies."""
    first, ceiling = evaluation.first_quality.mean, evaluation.ceiling[evaluation.depth]
    lines = [(first, f"{printable(evaluation.first_stage, 24)} alone", "--")]
    high = axes.get_ylim()[1]
    if ceiling > high:
        above = f"ideal order: {ceiling:.3f} ↑"
        axes.text(0.01, 0.99, above, transform=axes.transAxes, va="top", **SMALL)
    elif ceiling_line:
        lines.append((ceiling, f"ideal order of {evaluation.depth}", ":"))
    left, right = axes.get_xlim()
    for y, text, dashes in lines:
        axes.axhline(y, color=THEME["ink"], linestyle=dashes, linewidth=1.3, alpha=0.7)
        # Along the line, wherever there is room; the axis is logarithmic.
        for share in (0.5, 0.2, 0.8, 0.35, 0.65):
            if labels.place(left ** (1 - share) * right**share, y, text, distance=3, **SMALL):
                break


def _avoid(labels: LabelPlacer, x: Sequence[float], y: Sequence[float]) -> None:
    if x:
        labels.avoid(x, y)
    for place in zip(x, y, strict=True):
        labels.avoid([place[0]], [place[1]], radius=4.5)


def _quality_limits(evaluation: Evaluation, points: Sequence[Point]) -> tuple[float, float]:
    """Ends of the axis of quality: all points, the first stage, and the ideal order if near."""
    values = [evaluation.first_quality.mean, *(p.quality.mean for p in points)]
    low, high = min(values), max(values)
    room = max(high - low, 0.02)
    ceiling = evaluation.ceiling[evaluation.depth]
    # A far ideal order would press the differences between contenders together.
    if ceiling <= high + 0.8 * room:
        high = max(ceiling, high)
    return max(low - 0.16 * room, 0.0), high + 0.14 * room


def _depth_axis(axes: Axes, depths: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(depths[0] / 1.15, depths[-1] * 1.15)
    axes.set_xticks(list(depths), [f"{depth:,}" for depth in depths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("candidates")


def _duration_ticks(axis: Axis, factors: Sequence[int]) -> None:
    axis.set_major_locator(LogLocator(subs=factors))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda ms, _: _short_duration(ms)))


def _change_tick(value: float, _position: int | None) -> str:
    return f"{value:+.2g}".replace("-", "−") if abs(value) > 1e-9 else "0"


def _short_duration(ms: float) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"


def _mean(point: Point) -> float:
    return point.quality.mean


def _tooltip(point: Point) -> str:
    change = format_change(point.against_first.difference)
    quality = f"{MAIN_MEASURE} {point.quality.mean:.3f} ({change})"
    time = "" if point.p50_ms is None else f", {format_duration(point.p50_ms)}"
    return f"{point.contender} on {point.depth}: {quality}{time}"
