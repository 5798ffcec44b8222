"""The charts of the HTML report, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from gpurerank.evaluation.advice import pareto_frontier
from gpurerank.evaluation.evaluation_result import Evaluation, Point
from gpurerank.evaluation.measures import MAIN_MEASURE
from gpurerank.evaluation.number_format import format_change, format_duration, format_interval
from gpurerank.plotting import (
    THEME,
    LabelPlacer,
    format_duration_axis,
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


def series_swatch(index: int) -> Markup:
    """The marker of a contender, 14 by 14 pixels, for legends and tables."""
    figure, axes = new_figure(14, 14)
    # The layout engine would reserve margins that are larger than the picture.
    figure.set_layout_engine("none")
    axes.set_axis_off()
    axes.set_position((0, 0, 1, 1))
    axes.plot(0, 0, **series_style(index, size=10))
    return inline_svg(figure, title="", css_class="swatch")


def quality_latency_chart(evaluation: Evaluation) -> Markup:
    """Quality over latency, for a desk and for a phone; empty without a latency."""
    if all(point.p50_ms is None for point in evaluation.points):
        return Markup()
    wide = _quality_latency(evaluation, FULL_WIDTH, 400, "wide")
    return wide + _quality_latency(evaluation, PHONE_WIDTH, 330, "narrow")


def _quality_latency(evaluation: Evaluation, width: int, height: int, css_class: str) -> Markup:
    figure, axes = new_figure(width, height)
    timed = [point for point in evaluation.points if point.p50_ms is not None]
    times = [_latency(point) for point in timed]
    times += [p.latency_with_embedding.p50_ms for p in timed if p.latency_with_embedding]
    axes.set_xscale("log")
    # Limits before lines: the frontier and the references reach from edge to edge.
    axes.set_xlim(min(times) / 1.4, max(times) * 1.4)
    axes.set_ylim(*_quality_limits(evaluation, timed))
    # One label per decade on a phone, three elsewhere.
    format_duration_axis(axes.xaxis, (1, 2, 5) if width == FULL_WIDTH else (1,))
    axes.set_xlabel("latency per query (p50)")
    axes.set_title(MAIN_MEASURE)
    _draw_frontier(axes, evaluation, timed)
    _draw_embedding_costs(axes, evaluation)
    _draw_series(axes, evaluation, timed, _latency, _mean)
    best = evaluation.recommended
    if best is not None and best.p50_ms is not None:
        ring: dict[str, Any] = {"color": THEME["up"], "fillstyle": "none", "markeredgewidth": 2.2}
        axes.plot(_latency(best), _mean(best), "o", markersize=19, **ring)
    labels = _draw_references(axes, evaluation, ceiling_line=True)
    for point in timed:
        # Clear of the ring around the recommended point.
        distance = 12 if point is best else 7
        labels.place(_latency(point), _mean(point), f"{point.depth}", distance=distance, **SMALL)
    title = f"{MAIN_MEASURE} over latency of {len(timed)} combinations of contender and depth"
    description = "The tables of this report have the same numbers."
    return inline_svg(figure, title=title, description=description, css_class=css_class)


def _draw_frontier(axes: Axes, evaluation: Evaluation, timed: Sequence[Point]) -> None:
    """Draws the best mean for each latency as a step line with its area."""
    frontier = pareto_frontier(timed, evaluation.first_quality.mean)
    x = [axes.get_xlim()[0], *map(_latency, frontier), axes.get_xlim()[1]]
    y = [evaluation.first_quality.mean, *map(_mean, frontier)]
    y.append(y[-1])
    axes.step(x, y, where="post", color=THEME["up"], linewidth=2.2)
    bottom = axes.get_ylim()[0]
    axes.fill_between(x, y, bottom, step="post", color=THEME["up"], alpha=0.07, linewidth=0)


def _draw_embedding_costs(axes: Axes, evaluation: Evaluation) -> None:
    """Draws latencies with passages embedded in the call as hollow markers to the right."""
    for index, record in enumerate(evaluation.contenders):
        for point in evaluation.points_of(record.name):
            if point.latency_with_embedding is not None and point.p50_ms is not None:
                ms = point.latency_with_embedding.p50_ms
                text = (
                    f"{_tooltip(point)}, {format_duration(ms)} with passages embedded in the call"
                )
                style = series_style(index, hollow=True, tooltip=text)
                line = {"color": style["color"], "linewidth": 1.4}
                axes.plot([point.p50_ms, ms], [_mean(point)] * 2, ":", **line)
                axes.plot(ms, _mean(point), **style)


def quality_depth_chart(evaluation: Evaluation) -> Markup:
    """Quality by the number of candidates, up to the ideal order; empty for one depth."""
    if len(evaluation.depths) < 2:
        return Markup()
    figure, axes = _depth_figure(evaluation.depths, MAIN_MEASURE)
    axes.set_ylim(*_quality_limits(evaluation, evaluation.points))
    _draw_series(axes, evaluation, evaluation.points, lambda p: p.depth, _mean)
    ceiling = [evaluation.ceiling[depth] for depth in evaluation.depths]
    if max(ceiling) <= axes.get_ylim()[1]:
        axes.plot(evaluation.depths, ceiling, ":", color=THEME["quiet"])
    _draw_references(axes, evaluation, ceiling_line=False)
    return inline_svg(figure, title=f"{MAIN_MEASURE} by the number of candidates")


def latency_depth_chart(evaluation: Evaluation) -> Markup:
    """Latency by the number of candidates; empty for one depth or without a latency."""
    timed = [point for point in evaluation.points if point.p50_ms is not None]
    if len(evaluation.depths) < 2 or not timed:
        return Markup()
    figure, axes = _depth_figure(evaluation.depths, "latency per query (p50)")
    axes.set_yscale("log")
    format_duration_axis(axes.yaxis)
    _draw_series(axes, evaluation, timed, lambda p: p.depth, _latency)
    return inline_svg(figure, title="Latency by the number of candidates")


def gain_chart(evaluation: Evaluation) -> Markup:
    """Gain over the first stage with its 95% interval, a row for each contender."""
    points = evaluation.main_points()
    figure, axes = _rows_of_contenders(points, "gain with its 95% interval")
    names = [record.name for record in evaluation.contenders]
    for row, point in enumerate(points):
        gain = point.against_first
        style = series_style(names.index(point.contender), tooltip=format_interval(point))
        axes.plot([gain.low, gain.high], [row, row], color=style["color"], linewidth=2.4)
        axes.plot(gain.difference, row, **style)
    axes.axvline(0, color=THEME["quiet"], linestyle="--", linewidth=1)
    axes.margins(x=0.06)
    axes.xaxis.set_major_formatter(FuncFormatter(_change_tick))
    axes.locator_params(axis="x", nbins=5)
    return inline_svg(figure, title=f"Change of {MAIN_MEASURE} from {evaluation.first_stage} alone")


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
    description = "; ".join(f"{p.contender}: {_outcomes(p)}" for p in points)
    return inline_svg(figure, title=title, description=description)


def query_change_chart(point: Point, changes: Sequence[float]) -> Markup:
    """The changes of a point, one per query, largest gain first, for a desk and for a phone."""
    wide = _query_changes(point, changes, FULL_WIDTH, 250, "wide")
    return wide + _query_changes(point, changes, PHONE_WIDTH, 220, "narrow")


def _query_changes(
    point: Point, changes: Sequence[float], width: int, height: int, css_class: str
) -> Markup:
    figure, axes = new_figure(width, height)
    ordered = np.sort(np.asarray(changes))[::-1]  # (queries,), largest gain first
    for colour, part in (("up", np.maximum(ordered, 0)), ("down", np.minimum(ordered, 0))):
        # One outline for all queries: a bar each makes megabytes of SVG for a large collection.
        axes.stairs(part, fill=True, color=THEME[colour])
    axes.axhline(0, color=THEME["quiet"], linewidth=1)
    axes.set_xlim(0, len(ordered))
    axes.margins(y=0.05)
    axes.xaxis.set_major_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)
    axes.yaxis.set_major_formatter(FuncFormatter(_change_tick))
    axes.set_title(f"change of {MAIN_MEASURE}")
    axes.set_xlabel(f"{len(ordered):,} queries")
    title = f"Change of {MAIN_MEASURE} for every query"
    return inline_svg(figure, title=title, description=_outcomes(point), css_class=css_class)


def _rows_of_contenders(points: Sequence[Point], title: str) -> tuple[Figure, Axes]:
    """Axes with a row for each contender; its name is above the row, which suits any length."""
    figure, axes = new_figure(HALF_WIDTH, 62 + ROW_HEIGHT * len(points))
    axes.set_title(title)
    # Downwards, the first contender at the top, as in the table.
    axes.set_ylim(len(points) - 0.6, -0.7)
    axes.yaxis.set_major_locator(NullLocator())
    for row, point in enumerate(points):
        name = printable(point.contender, 44)
        axes.text(0, row - 0.22, name, transform=axes.get_yaxis_transform(), va="bottom")
    return figure, axes


def _depth_figure(depths: Sequence[int], title: str) -> tuple[Figure, Axes]:
    figure, axes = new_figure(HALF_WIDTH, 320)
    axes.set_title(title)
    axes.set_xscale("log")
    axes.set_xlim(depths[0] / 1.15, depths[-1] * 1.15)
    axes.set_xticks(list(depths), [f"{depth:,}" for depth in depths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("candidates")
    return figure, axes


def _draw_series(
    axes: Axes,
    evaluation: Evaluation,
    points: Sequence[Point],
    x: Callable[[Point], float],
    y: Callable[[Point], float],
) -> None:
    """Draws a line for each contender, with a marker and a tooltip for each of its points."""
    for index, record in enumerate(evaluation.contenders):
        series = sorted((p for p in points if p.contender == record.name), key=lambda p: p.depth)
        colour = series_style(index)["color"]
        axes.plot([*map(x, series)], [*map(y, series)], color=colour, alpha=0.6, linewidth=2)
        for point in series:
            axes.plot(x(point), y(point), **series_style(index, tooltip=_tooltip(point)))


def _draw_references(axes: Axes, evaluation: Evaluation, *, ceiling_line: bool) -> LabelPlacer:
    """Draws the first stage alone and the ideal order, between which every contender lies.

    Call it after everything else is drawn; further labels go to the placer that it returns.
    """
    ceiling = evaluation.ceiling[evaluation.depth]
    first_stage = f"{printable(evaluation.first_stage, 24)} alone"
    lines = [(evaluation.first_quality.mean, first_stage, "--")]
    if ceiling > axes.get_ylim()[1]:
        above = f"ideal order: {ceiling:.3f} ↑"
        axes.text(0.01, 0.99, above, transform=axes.transAxes, va="top", **SMALL)
    elif ceiling_line:
        lines.append((ceiling, f"ideal order of {evaluation.depth}", ":"))
    for y, _, dashes in lines:
        axes.axhline(y, color=THEME["ink"], linestyle=dashes, linewidth=1.3, alpha=0.7)
    labels = LabelPlacer(axes)
    left, right = axes.get_xlim()
    for y, text, _ in lines:
        # Along the line, wherever there is room; the axis is logarithmic.
        for share in (0.5, 0.2, 0.8, 0.35, 0.65):
            if labels.place(left ** (1 - share) * right**share, y, text, distance=3, **SMALL):
                break
    return labels


def _quality_limits(evaluation: Evaluation, points: Sequence[Point]) -> tuple[float, float]:
    """Ends of the axis of quality: all points, the first stage, and the ideal order if near."""
    values = [evaluation.first_quality.mean, *map(_mean, points)]
    low, high = min(values), max(values)
    room = max(high - low, 0.02)
    ceiling = evaluation.ceiling[evaluation.depth]
    # A far ideal order would press the differences between contenders together.
    if ceiling <= high + 0.8 * room:
        high = max(ceiling, high)
    return max(low - 0.16 * room, 0.0), high + 0.14 * room


def _change_tick(value: float, _position: int | None) -> str:
    # A tick at zero is off by rounding.
    return f"{value:+.2g}".replace("-", "−") if abs(value) > 1e-9 else "0"


def _mean(point: Point) -> float:
    return point.quality.mean


def _latency(point: Point) -> float:
    """Median latency in milliseconds of a point that has one."""
    return point.p50_ms or 0.0


def _outcomes(point: Point) -> str:
    gain = point.against_first
    return f"{gain.wins} improve, {gain.ties} stay the same, {gain.losses} get worse"


def _tooltip(point: Point) -> str:
    change = format_change(point.against_first.difference)
    quality = f"{MAIN_MEASURE} {_mean(point):.3f} ({change})"
    time = "" if point.p50_ms is None else f", {format_duration(point.p50_ms)}"
    return f"{point.contender} on {point.depth}: {quality}{time}"
