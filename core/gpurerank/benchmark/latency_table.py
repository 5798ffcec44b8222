"""The latency cells of one kind of lengths as a table: contenders down, candidates across."""

from __future__ import annotations

from rich.table import Table

from gpurerank.benchmark.contenders import OURS, SEEN
from gpurerank.benchmark.layout import number, skipped, tail, titled
from gpurerank.benchmark.records import LatencyCell, Timing
from gpurerank.benchmark.report import ModelRecord
from gpurerank.benchmark.texts import REALISTIC


def latency_table(model: ModelRecord, lengths: str) -> Table:
    """Median, tail and share of the floor of every contender; the floor below them."""
    cells = sorted(
        (cell for cell in model.latency if cell.lengths == lengths),
        key=lambda cell: cell.candidates,
    )
    what = "realistic lengths" if lengths == REALISTIC else f"{lengths} tokens a pair"
    table = titled(
        f"ms from strings to ranks, {what}: median, p95 (≤: max), share of the floor",
        "candidates\n[dim]tokens[/]",
        *(_heading(cell) for cell in cells),
    )
    wrong = model.disagreeing()
    for contender in model.contenders:
        texts = [_figure(cell, contender.name, contender.name in wrong) for cell in cells]
        if any(texts):
            table.add_row(contender.name, *texts)
    if any(cell.floor_ms for cell in cells):
        floors = [number(cell.floor_ms) if cell.floor_ms else "" for cell in cells]
        table.add_row("floor", *floors, style="dim")
    return table


def _heading(cell: LatencyCell) -> str:
    below = f"{skipped(cell.skipped_s)}" or f"[dim]{cell.tokens:,.0f}[/]"
    return f"{cell.candidates:,}\n{below}"


def _figure(cell: LatencyCell, contender: str, wrong: bool) -> str:
    timing = next((each for each in cell.timings if each.contender == contender), None)
    if timing is None:
        return ""
    middle = number(timing.median_ms)
    if wrong:
        return f"[red]({middle})\ndisagrees[/]"
    shown = f"[bold]{middle}[/]" if contender in (OURS, SEEN) else middle
    return f"{shown}\n[dim]{tail(timing.times_ms)}{_share(cell, timing)}[/]"


def _share(cell: LatencyCell, timing: Timing) -> str:
    if not cell.floor_ms:
        return ""
    share = cell.floor_ms / timing.median_ms
    return f" {share:.0%}" if share >= 0.1 else f" {share:.1%}"
