"""The report of ``gpurerank bench`` as tables of at most 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from gpurerank.benchmark.bench_report import BenchReport, ModelRecord
from gpurerank.benchmark.latency import describe_lengths
from gpurerank.benchmark.timing import p95

WIDTH = 100


def render_report(report: BenchReport) -> Iterator[RenderableType]:
    """The machine, the results of each model, and the notes."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield Text("\n".join([*report.hardware.lines, versions]))
    for model in report.models:
        yield Text(f"\n{model.name}", style="bold underline")
        for agreement in model.agreement[:1]:
            yield Text(
                f"Scores {'agree' if agreement.agrees else 'DISAGREE'} with sentence-transformers:"
                f" maximum difference {agreement.max_difference:.1e}, rank correlation"
                f" {agreement.rank_correlation:.4f}",
                style="green" if agreement.agrees else "bold red",
            )
        for lengths in dict.fromkeys(cell.lengths for cell in model.latency):
            yield _latency_table(model, lengths)
        if any(cell.floor_ms for cell in model.latency):
            rate = max(rate.giga_operations_s for rate in model.rates) / 1e3
            yield Text(
                "Floor: the least time for the model's operations, without padding, at the"
                f" {format_number(rate)} TFLOP/s of matrix products on this device. Floor share:"
                " floor / median; it exceeds 100% only if the machine was busy at that moment.",
                style="dim",
            )
    yield from render_notes(report.notes, report.interrupted)


def render_notes(notes: Sequence[str], interrupted: bool) -> Iterator[RenderableType]:
    """What was left out, and whether the run is incomplete."""
    for note in notes:
        yield Text(f"- {note}", style="yellow")
    if interrupted:
        yield Text("Interrupted: the measurements that follow are missing.", style="bold red")


def format_number(value: float) -> str:
    """Three significant digits: 0.123, 4.56, 78.9, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def format_skipped(seconds: float | None) -> str:
    """Stands in place of a measurement that did not run."""
    return "not measured" if seconds is None else f"needs --limit-s {math.ceil(seconds)}"


def format_tail(times_ms: Sequence[float]) -> str:
    """The 95th percentile, or "≤" and the maximum for fewer than 20 rounds."""
    percentile = p95(times_ms)
    return f"≤{format_number(max(times_ms))}" if percentile is None else format_number(percentile)


def new_table(title: str, *columns: str) -> Table:
    """An empty table whose first column is text and whose other columns are numbers."""
    # Without a minimum width rich breaks a title that is wider than its table.
    table = Table(title=title, title_justify="left", min_width=min(len(title), WIDTH))
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _latency_table(model: ModelRecord, lengths: str) -> Table:
    title = f"Latency in ms from strings to ranks, {describe_lengths(lengths)} (≤: maximum)"
    columns = ("candidates", "tokens", "median", "p95", "pairs/s", "floor", "floor share")
    table = new_table(title, "", *columns)
    cells = [cell for cell in model.latency if cell.lengths == lengths]
    for cell in sorted(cells, key=lambda cell: cell.candidates):
        size = (f"{cell.candidates:,}", f"{cell.tokens:,.0f}")
        if not cell.timings:
            table.add_row(format_skipped(cell.skipped_s), *size)
        for timing in cell.timings:
            median_ms = timing.median_ms
            row = [format_number(median_ms), format_tail(timing.times_ms)]
            row.append(format_number(cell.candidates / median_ms * 1e3))
            if cell.floor_ms:
                row += [format_number(cell.floor_ms), f"{cell.floor_ms / median_ms:.0%}"]
            table.add_row(timing.contender, *size, *row)
        table.add_section()
    return table
