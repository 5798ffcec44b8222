"""How figures and tables look, the same for every section."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from gpurerank.benchmark.rounds import p95

WIDTH = 100


def number(value: float) -> str:
    """Three digits that matter, thousands apart: 0.123, 4.56, 78.9, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def percent(value: float | None) -> str:
    """A change, with its sign."""
    return "not measured" if value is None else f"{value:+.1f} %"


def skipped(seconds: float | None) -> str:
    """What stands in place of a figure; empty where there is one."""
    return "" if seconds is None else f"skipped, about {number(seconds)} s"


def tail(times_ms: Sequence[float]) -> str:
    """The 95th percentile, or "≤" and the longest where too few rounds tell it."""
    found = p95(times_ms)
    return f"≤{number(max(times_ms))}" if found is None else number(found)


def titled(title: str, *columns: str) -> Table:
    """An empty table; the first column is text, the others figures."""
    # A title wider than its table would be broken into lines.
    width = min(len(title), WIDTH)
    table = Table(title=title, title_justify="left", title_style="bold", min_width=width)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table
