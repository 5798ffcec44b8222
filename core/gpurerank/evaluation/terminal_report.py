"""The result of an evaluation as tables for a terminal, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gpurerank.evaluation.evaluation_result import Evaluation, Point
from gpurerank.evaluation.measures import MAIN_MEASURE, secondary_measures
from gpurerank.evaluation.number_format import (
    format_change,
    format_duration,
    format_p_value,
    format_tail_latency,
)
from gpurerank.faults import Fault

VERDICT_COLOURS = {1: "green", 0: "yellow", -1: "red"}
EMBEDDED_AHEAD = "†"


def render_tables(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Yields the parts in reading order.

    The recommendation comes last, where a terminal has scrolled to.
    """
    yield _machine_lines(evaluation)
    if evaluation.points:
        yield Text()
        yield _main_table(evaluation)
        yield _legend(evaluation)
        yield Text()
        yield _measures_table(evaluation)
        if len(evaluation.depths) > 1:
            yield Text()
            yield _depths_table(evaluation)
    yield Text()
    yield _advice_lines(evaluation)


def data_issue_lines(faults: Sequence[Fault]) -> Text:
    """The problems in the data, a line for each kind."""
    lines = ["the data has problems; the rest of it is used:", *(f"- {fault}" for fault in faults)]
    return Text("\n".join(lines), style="yellow")


def _machine_lines(evaluation: Evaluation) -> Text:
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    return Text("\n".join([*evaluation.hardware, versions]), style="dim")


def _main_table(evaluation: Evaluation) -> Table:
    count, available = len(evaluation.queries), evaluation.available
    sample = f" of {available:,}, drawn at random" if count < available else ""
    title = (
        f"{evaluation.name}: top {evaluation.depth} of {evaluation.first_stage} reranked,"
        f" {count:,} queries{sample}"
    )
    table = _table(title, MAIN_MEASURE, "gain", "95% interval", "p", "up/down", "p50", "p95")
    first = f"{evaluation.first_quality.mean:.3f}"
    table.add_row(escape(evaluation.first_stage), first, *[""] * 6)
    embedding = {record.name for record in evaluation.contenders if record.embeds}
    for point in evaluation.main_points():
        table.add_row(*_main_row(point, point.contender in embedding))
    ceiling = f"{evaluation.ceiling[evaluation.depth]:.3f}"
    table.add_row("ideal order", ceiling, *[""] * 6, style="dim")
    return table


def _table(title: str, *columns: str) -> Table:
    # Without outer lines it fits 80 columns.
    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    # A long name is folded, never cut: it may be the URL that tells two servers apart.
    table.add_column("contender", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _main_row(point: Point, embeds: bool) -> tuple[str, ...]:
    gain = point.against_first
    # Yellow, not green, for a gain that is not significant.
    colour = VERDICT_COLOURS[gain.verdict]
    mark = EMBEDDED_AHEAD if embeds else ""
    latency = point.latency
    return (
        escape(point.contender),
        f"{point.quality.mean:.3f}",
        f"[{colour}]{format_change(gain.difference)}[/]",
        f"{format_change(gain.low)} {format_change(gain.high)}",
        format_p_value(gain.p).removeprefix("p ").removeprefix("= ").replace(" ", ""),
        f"{gain.wins}↑ {gain.losses}↓",
        "–" if latency is None else f"{format_duration(latency.p50_ms)}{mark}",
        "–" if latency is None else format_tail_latency(latency),
    )


def _legend(evaluation: Evaluation) -> Text:
    lines = [
        f"gain: change of {MAIN_MEASURE} from {evaluation.first_stage} alone; p: paired test,"
        " corrected for all comparisons",
        "up/down: queries that improve and get worse; p50, p95: latency per query",
    ]
    costs = [
        f"{p.contender} {format_duration(p.latency_with_embedding.p50_ms)}"
        for p in evaluation.main_points()
        if p.latency_with_embedding is not None
    ]
    if costs:
        lines.append(
            f"{EMBEDDED_AHEAD} passages embedded ahead; embedded in the call: {', '.join(costs)}"
        )
    return Text("\n".join(lines), style="dim")


def _measures_table(evaluation: Evaluation) -> Table:
    names = secondary_measures(evaluation.depth)
    table = _table("Other measures", *names)
    first = [sum(evaluation.first[name]) / len(evaluation.queries) for name in names]
    table.add_row(escape(evaluation.first_stage), *(f"{mean:.3f}" for mean in first))
    for point in evaluation.main_points():
        table.add_row(escape(point.contender), *(f"{point.mean(name):.3f}" for name in names))
    return table


def _depths_table(evaluation: Evaluation) -> Table:
    columns = [f"{depth:,}" for depth in evaluation.depths]
    table = _table(f"{MAIN_MEASURE} and p50 latency by number of candidates", *columns)
    for record in evaluation.contenders:
        points = {point.depth: point for point in evaluation.points_of(record.name)}
        cells = [_depth_cell(points.get(depth)) for depth in evaluation.depths]
        table.add_row(escape(record.name), *cells)
    ceilings = [f"{evaluation.ceiling[depth]:.3f}" for depth in evaluation.depths]
    table.add_row("ideal order", *ceilings, style="dim")
    return table


def _depth_cell(point: Point | None) -> str:
    if point is None:
        return ""
    colour = VERDICT_COLOURS[point.against_first.verdict]
    time = "" if point.p50_ms is None else f" [dim]{format_duration(point.p50_ms)}[/]"
    return f"[{colour}]{point.quality.mean:.3f}[/]{time}"


def _advice_lines(evaluation: Evaluation) -> RenderableType:
    advice = evaluation.advice
    style = f"bold {VERDICT_COLOURS[advice.verdict]}"
    lines: list[RenderableType] = [Text(advice.headline, style=style)]
    for mark, sentences in (("+", advice.reasons), ("?", advice.doubts), ("!", evaluation.notes)):
        for sentence in sentences:
            # A grid indents the second line of a long sentence.
            grid = Table.grid(padding=(0, 1))
            grid.add_row(mark, Text(sentence))
            lines.append(Padding(grid, (0, 0, 0, 2)))
    return Group(*lines)
