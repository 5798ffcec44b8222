"""Numbers as the reports print them."""

from __future__ import annotations

from gpurerank.evaluation.evaluation_result import Point
from gpurerank.evaluation.query_latency import Timing
from gpurerank.evaluation.significance import SIGNIFICANCE_LEVEL


def format_interval(point: Point) -> str:
    """The gain of a point over the first stage, with its interval and p-value."""
    gain = point.against_first
    return (
        f"{format_change(gain.difference)}, 95% interval {format_change(gain.low)} to"
        f" {format_change(gain.high)}, {format_p_value(gain.p)}"
    )


def format_change(difference: float) -> str:
    """A difference with its sign, such as "+0.081"; the minus is U+2212, as wide as the plus."""
    return f"{difference:+.3f}".replace("-", "−")


def format_p_value(p: float) -> str:
    """A p-value, such as "p = 0.031"; three digits only below the significance level."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < SIGNIFICANCE_LEVEL else f"p = {p:.2f}"


def format_duration(milliseconds: float) -> str:
    """A time of about three digits with its unit, such as "9.5 ms" or "1.2 s"."""
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:,.0f} s"
    if milliseconds >= 1_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def format_tail_latency(timing: Timing) -> str:
    """The 95th percentile; "≤" and the maximum where the rounds are too few for one."""
    if timing.p95_ms is None:
        return f"≤ {format_duration(max(timing.times_ms))}"
    return format_duration(timing.p95_ms)
