"""What the section over HTTP found, in lines."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from rich.text import Text

from gpurerank.benchmark.layout import number, percent, skipped, tail
from gpurerank.benchmark.records import HttpRecord, OverloadRecord


def http_lines(http: HttpRecord) -> Iterator[Text]:
    """Throughput beside the model in the process, and what more than that does."""
    name = f"HTTP, {http.connections} connections of {http.passages} passages"
    if http.skipped_s is not None:
        yield Text(f"{name}: {skipped(http.skipped_s)}")
        return
    if not http.http_s or not http.in_process_s:
        return
    per_s = [http.pairs / statistics.median(taken) for taken in (http.http_s, http.in_process_s)]
    yield Text(
        f"{name}: {number(per_s[0])} pairs/s, {http.share:.0%} of the {number(per_s[1])} of threads"
        f" in this process; waits p50 {number(statistics.median(http.http_ms))},"
        f" p95 {tail(http.http_ms)} ms"
    )
    if http.overload is not None:
        yield _overload(http.overload)


def _overload(found: OverloadRecord) -> Text:
    times = found.offered_per_s / found.peak_per_s
    said = [
        f"HTTP, {times:.0f} times that for {found.seconds:g} s, {found.queued_s:g} s of work may"
        f" wait: goodput {found.goodput_per_s / found.peak_per_s:.0%} of it",
        f"{found.accepted} answered (p95 {_ms(found.accepted_p95_ms)})",
        f"{found.refused} refused with 429 (p95 {_ms(found.refused_p95_ms)})",
        f"{found.other_statuses} otherwise",
        f"resident memory {percent(found.growth_percent)}",
        "not recovered" if found.recovered_s is None else f"recovered in {found.recovered_s:.1f} s",
    ]
    if found.without_retry_after:
        said.append(f"{found.without_retry_after} of 429 without Retry-After")
    return Text("; ".join(said))


def _ms(value: float | None) -> str:
    return "not measured" if value is None else f"{number(value)} ms"
