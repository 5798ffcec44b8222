"""Figures as people write them."""

from __future__ import annotations

from gpurerank.evaluation.records import Point
from gpurerank.evaluation.significance import LEVEL


def interval(point: Point) -> str:
    """A difference with its interval and p-value."""
    against = point.against_first
    return (
        f"{signed(against.difference)}, 95% interval {signed(against.low)} to"
        f" {signed(against.high)}, {probability(against.p)}"
    )


def signed(difference: float) -> str:
    """A difference as "+0.081", with a true minus."""
    return f"{difference:+.3f}".replace("-", "−")


def probability(p: float) -> str:
    """A p-value as people write it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < LEVEL else f"p = {p:.2f}"


def duration(milliseconds: float) -> str:
    """A time in three digits, with its unit."""
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:,.0f} s"
    if milliseconds >= 1_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
