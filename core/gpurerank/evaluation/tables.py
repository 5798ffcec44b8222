"""An evaluation as tables of at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gpurerank.evaluation.figures import duration, probability, signed
from gpurerank.evaluation.latency import Timing
from gpurerank.evaluation.measures import MAIN, recall_name
from gpurerank.evaluation.records import Evaluation, Point
from gpurerank.faults import Fault

COLOURS = {1: "green", 0: "yellow", -1: "red"}
EMBEDDED_AHEAD = "†"


def render(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Everything, in the order to read it; what to do comes last, where the eye is."""
    yield _machine(evaluation)
    if evaluation.points:
        yield Text()
        yield _contenders(evaluation)
        yield _legend(evaluation)
        yield Text()
        yield _others(evaluation)
        if len(evaluation.depths) > 1:
            yield Text()
            yield _depths(evaluation)
    yield Text()
    yield _advice(evaluation)


def fault_lines(faults: Sequence[Fault]) -> Text:
    """What was wrong with the data, a line a kind."""
    lines = ["the data has faults; what is usable is used:", *(f"- {fault}" for fault in faults)]
    return Text("\n".join(lines), style="yellow")


def _machine(evaluation: Evaluation) -> Text:
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    return Text("\n".join([*evaluation.hardware, versions]), style="dim")


def _contenders(evaluation: Evaluation) -> Table:
    count, judged = len(evaluation.queries), evaluation.judged
    taken = f"{count:,} queries" + (f" of {judged:,}, drawn at random" if count < judged else "")
    title = f"{evaluation.name}: {evaluation.first_stage} top {evaluation.depth} reranked, {taken}"
    table = _table(title, MAIN, "gain", "95% interval", "p", "up/down", "p50", "p95")
    first = f"{evaluation.first_quality.mean:.3f}"
    table.add_row(escape(evaluation.first_stage), first, *[""] * 6)
    embedding = {record.name for record in evaluation.contenders if record.embeds}
    for point in evaluation.shown():
        table.add_row(*_row(point, point.contender in embedding))
    ceiling = f"{evaluation.ceiling[evaluation.depth]:.3f}"
    table.add_row("perfect order", ceiling, *[""] * 6, style="dim")
    return table


def _table(title: str, *columns: str) -> Table:
    """A table without side lines, so that it fits 80 columns."""
    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _row(point: Point, embeds: bool) -> tuple[str, ...]:
    against = point.against_first
    colour = COLOURS[against.verdict]
    mark = EMBEDDED_AHEAD if embeds else ""
    return (
        escape(point.contender),
        f"{point.quality.mean:.3f}",
        f"[{colour}]{signed(against.difference)}[/]",
        f"{signed(against.low)} {signed(against.high)}",
        probability(against.p).removeprefix("p ").removeprefix("= ").replace(" ", ""),
        f"{against.wins}↑ {against.losses}↓",
        "–" if point.latency is None else f"{duration(point.latency.p50_ms)}{mark}",
        "–" if point.latency is None else tail(point.latency),
    )


def tail(timing: Timing) -> str:
    """The 95th percentile, or of few rounds the longest, marked as such."""
    if timing.p95_ms is None:
        return f"≤ {duration(max(timing.times_ms))}"
    return duration(timing.p95_ms)


def _legend(evaluation: Evaluation) -> Text:
    said = [f"gain: {MAIN} beside {evaluation.first_stage}; p: paired, corrected for all compared"]
    anew = {
        p.contender: p.latency_anew.p50_ms for p in evaluation.shown() if p.latency_anew is not None
    }
    if anew:
        times = ", ".join(f"{name} {duration(ms)}" for name, ms in anew.items())
        said.append(f"{EMBEDDED_AHEAD} passages embedded ahead; embedded in the call: {times}")
    return Text("\n".join(said), style="dim")


def _others(evaluation: Evaluation) -> Table:
    names = ("RR@10", recall_name(evaluation.depth), "Success@1", "Success@5")
    table = _table("Other measures", *names)
    first = [sum(evaluation.first[name]) / len(evaluation.queries) for name in names]
    table.add_row(escape(evaluation.first_stage), *(f"{mean:.3f}" for mean in first))
    for point in evaluation.shown():
        table.add_row(escape(point.contender), *(f"{point.mean(name):.3f}" for name in names))
    return table


def _depths(evaluation: Evaluation) -> Table:
    columns = [f"{depth:,}" for depth in evaluation.depths]
    table = _table(f"{MAIN} and p50 by candidates", *columns)
    for record in evaluation.contenders:
        found = {point.depth: point for point in evaluation.of(record.name)}
        cells = [_cell(found.get(depth)) for depth in evaluation.depths]
        table.add_row(escape(record.name), *cells)
    ceilings = [f"{evaluation.ceiling[depth]:.3f}" for depth in evaluation.depths]
    table.add_row("perfect order", *ceilings, style="dim")
    return table


def _cell(point: Point | None) -> str:
    if point is None:
        return ""
    colour = COLOURS[point.against_first.verdict]
    time = "" if point.p50_ms is None else f" [dim]{duration(point.p50_ms)}[/]"
    return f"[{colour}]{point.quality.mean:.3f}[/]{time}"


def _advice(evaluation: Evaluation) -> RenderableType:
    advice = evaluation.advice
    lines: list[RenderableType] = [Text(advice.headline, style=f"bold {COLOURS[advice.verdict]}")]
    for mark, said in (("+", advice.reasons), ("?", advice.doubts), ("!", evaluation.notes)):
        for each in said:
            grid = Table.grid(padding=(0, 1))
            grid.add_row(mark, Text(each))
            lines.append(Padding(grid, (0, 0, 0, 2)))
    return Group(*lines)
