"""Reports of ``python -m benchmarks`` as tables of at most 100 columns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmarks.peer_report import (
    ConcurrencyCell,
    HttpRecord,
    OverheadRecord,
    OverloadRecord,
    PeerContenderRecord,
    PeerModelRecord,
    PeerReport,
    RayRecord,
    SoakRecord,
)
from gpurerank.benchmark.bench_report import Agreement, LatencyCell
from gpurerank.benchmark.implementations import GPURERANK
from gpurerank.benchmark.latency import describe_lengths
from gpurerank.benchmark.result_tables import (
    format_number,
    format_skipped,
    format_tail,
    new_table,
    render_notes,
)


def render_peer_report(report: PeerReport) -> Iterator[RenderableType]:
    """Everything that was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield Text("\n".join([*report.hardware.lines, versions]))
    for model in report.models:
        yield from _render_model(model, report.bandwidth_giga_bytes_s)
    if report.overhead:
        yield _overhead_table(report.overhead)
    yield from render_notes(report.notes, report.interrupted)


def _render_model(model: PeerModelRecord, bandwidth: float) -> Iterator[RenderableType]:
    yield Text(f"\n{model.name}", style="bold underline")
    if model.weights == "random":
        tokenizer = "a stand-in" if model.tokenizer == "stand-in" else "the real model's"
        yield Text(
            f"Random weights (seeded); the tokenizer is {tokenizer}. Times are valid, ranks are"
            " not.",
            style="yellow",
        )
    if model.contenders:
        yield _contender_table(model)
    if model.rates:
        yield _rate_line(model, bandwidth)
    for lengths in dict.fromkeys(cell.lengths for cell in model.latency):
        yield latency_table(model, lengths)
    if model.latency and model.disagreeing():
        names = ", ".join(sorted(model.disagreeing()))
        yield Text(f"In brackets: not comparable, because the scores differ ({names}).", "red")
    if model.concurrency:
        yield _concurrency_table(model.concurrency)
    yield from _single_figures(model)


def latency_table(model: PeerModelRecord, lengths: str) -> Table:
    """Median, tail and share of the floor: contenders down, candidates across."""
    cells = [cell for cell in model.latency if cell.lengths == lengths]
    cells.sort(key=lambda cell: cell.candidates)
    title = f"Latency in ms, {describe_lengths(lengths)}: median; p95 (≤: maximum), share of floor"
    table = new_table(title, "candidates\n[dim]tokens[/]", *map(_latency_heading, cells))
    disagreeing = model.disagreeing()
    for contender in model.contenders:
        texts = [_latency_text(cell, contender.name, disagreeing) for cell in cells]
        if any(texts):
            table.add_row(contender.name, *texts)
    if any(cell.floor_ms for cell in cells):
        floors = [format_number(cell.floor_ms) if cell.floor_ms else "" for cell in cells]
        table.add_row("floor", *floors, style="dim")
    return table


def _latency_heading(cell: LatencyCell) -> str:
    below = f"[dim]{cell.tokens:,.0f}[/]" if cell.timings else format_skipped(cell.skipped_s)
    return f"{cell.candidates:,}\n{below}"


def _latency_text(cell: LatencyCell, contender: str, disagreeing: set[str]) -> str:
    timing = next((t for t in cell.timings if t.contender == contender), None)
    if timing is None:
        return ""
    median = format_number(timing.median_ms)
    if contender in disagreeing:
        return f"[red]({median})\ndisagrees[/]"
    if contender.startswith(GPURERANK):
        median = f"[bold]{median}[/]"
    share = f" {cell.floor_ms / timing.median_ms:.0%}" if cell.floor_ms else ""
    return f"{median}\n[dim]{format_tail(timing.times_ms)}{share}[/]"


def _contender_table(model: PeerModelRecord) -> Table:
    title = "Contenders, and their scores against sentence-transformers in float32"
    table = new_table(title, "", "setting", "max diff.", "rank corr.")
    table.columns[1].justify = "left"
    agreements = {agreement.contender: agreement for agreement in model.agreement}
    for contender in model.contenders:
        cells = _agreement_cells(agreements.get(contender.name))
        table.add_row(contender.name, _describe_setting(contender), *cells)
    return table


def _describe_setting(contender: PeerContenderRecord) -> str:
    text = contender.setting
    if contender.searched:
        dtypes = dict.fromkeys(setting.dtype for setting in contender.searched)
        sizes = sorted({setting.batch_size for setting in contender.searched})
        text += f" (tried: {', '.join(dtypes)}; {', '.join(map(str, sizes))})"
    return escape(text)


def _agreement_cells(agreement: Agreement | None) -> tuple[str, str]:
    if agreement is None:
        return "not compared", ""
    style = "green" if agreement.agrees else "bold red"
    top = "" if agreement.same_top else "\nother first passage"
    return (
        f"[{style}]{agreement.max_difference:.1e}[/]",
        f"[{style}]{agreement.rank_correlation:.4f}{top}[/]",
    )


def _rate_line(model: PeerModelRecord, bandwidth: float) -> Text:
    best: dict[str, float] = {}
    for rate in model.rates:
        best[rate.dtype] = max(best.get(rate.dtype, 0.0), rate.giga_operations_s)
    rates = [f"{dtype} {format_number(rate / 1e3)} TFLOP/s" for dtype, rate in best.items()]
    return Text(
        f"Device: {', '.join(rates)}, memory {format_number(bandwidth)} GB/s. The floor is the time"
        " of the model's operations, without padding, at the best of these rates.",
        style="dim",
    )


def _concurrency_table(cells: Sequence[ConcurrencyCell]) -> Table:
    title = "Concurrent callers, 20 passages of realistic lengths each; waits in ms (≤: maximum)"
    table = new_table(title, "", "callers", "pairs/s", "tokens/s", "median wait", "p95 wait")
    for cell in cells:
        texts = [format_skipped(cell.skipped_s)]
        if cell.wall_s:
            wall_s = statistics.median(cell.wall_s)
            numbers = (cell.pairs / wall_s, cell.tokens / wall_s, statistics.median(cell.caller_ms))
            texts = [*map(format_number, numbers), format_tail(cell.caller_ms)]
        table.add_row(cell.way, f"{cell.callers:,}", *texts)
    return table


def _single_figures(model: PeerModelRecord) -> Iterator[Text]:
    interference, split = model.beside, model.split
    if interference is not None:
        text = format_skipped(interference.skipped_s)
        if interference.beside_ms:
            waits = map(format_tail, (interference.alone_ms, interference.beside_ms))
            text = "p95 wait {} ms alone, {} ms next to it".format(*waits)
        large_call = f"one call of {interference.pairs_beside:,} pairs"
        yield Text(f"{interference.callers} callers next to {large_call}: {text}")
    for peak in model.peaks:
        is_skipped = peak.skipped_s is not None
        growth = f"{peak.growth_bytes / 2**20:,.0f} MiB"
        text = format_skipped(peak.skipped_s) if is_skipped else growth
        yield Text(f"Peak {peak.kind} of {peak.candidates:,} candidates: {text}")
    if split is not None:
        text = format_skipped(split.skipped_s)
        if split.one_call_s and split.many_calls_s:
            one, many = map(statistics.median, (split.one_call_s, split.many_calls_s))
            text = f"{format_number(one)} s in one call, {format_number(many)} s in {split.calls}"
        yield Text(f"{split.candidates:,} candidates: {text}")
    if model.http is not None:
        yield from http_lines(model.http)
    if model.ray is not None:
        yield Text(ray_line(model.ray))
    if model.soak is not None:
        yield Text(_soak_line(model.soak))


def http_lines(http: HttpRecord) -> Iterator[Text]:
    """Throughput over HTTP and in this process, and the overload."""
    name = f"HTTP, {http.connections} connections of {http.passages} passages"
    if not http.http_s or not http.in_process_s:
        yield Text(f"{name}: {format_skipped(http.skipped_s)}")
        return
    over_http, in_process = (
        format_number(http.pairs / statistics.median(times_s))
        for times_s in (http.http_s, http.in_process_s)
    )
    yield Text(
        f"{name}: {over_http} pairs/s, {http.share:.0%} of the {in_process} of threads in one"
        f" process; wait: median {format_number(statistics.median(http.http_ms))} ms, p95"
        f" {format_tail(http.http_ms)} ms"
    )
    if http.overload is not None:
        yield Text(_overload_line(http.overload))


def _overload_line(overload: OverloadRecord) -> str:
    factor = overload.offered_per_s / overload.peak_per_s
    recovered_s = overload.recovered_s
    parts = [
        f"HTTP, {factor:.0f} times that load for {overload.seconds:g} s, at most"
        f" {overload.queued_s:g} s of work queued: goodput"
        f" {overload.goodput_per_s / overload.peak_per_s:.0%} of the peak",
        f"{overload.accepted} answered (p95 {_format_ms(overload.accepted_p95_ms)})",
        f"{overload.refused} refused with 429 (p95 {_format_ms(overload.refused_p95_ms)})",
        f"{overload.other_statuses} other statuses",
        f"resident memory {_format_percent(overload.growth_percent)}",
        "not recovered" if recovered_s is None else f"recovered in {recovered_s:.1f} s",
    ]
    if overload.without_retry_after:
        parts.append(f"{overload.without_retry_after} of 429 without Retry-After")
    return "; ".join(parts)


def ray_line(record: RayRecord) -> str:
    """The overhead of Ray."""
    name = f"Ray, {record.pairs:,} pairs in one call to {record.replicas} replicas"
    if not record.ray_s or not record.in_process_s or record.started_s is None:
        return f"{name}: {format_skipped(record.skipped_s)}"
    on_ray, in_process = map(statistics.median, (record.ray_s, record.in_process_s))
    return (
        f"{name}: {format_number(on_ray)} s, {_format_percent(record.overhead * 100)} compared with"
        f" {format_number(in_process)} s in this process; started in"
        f" {format_number(record.started_s)} s; largest difference of two scores"
        f" {record.largest_difference:.1e}"
    )


def _soak_line(soak: SoakRecord) -> str:
    text = (
        f"Soak test of {soak.seconds:g} s: {soak.calls:,} calls, {soak.pairs:,} pairs,"
        f" {soak.errors} errors, resident memory {_format_percent(soak.resident_growth_percent)},"
        f" GPU memory {_format_percent(soak.gpu_growth_percent)}"
    )
    return f"{text}; first error: {soak.first_error}" if soak.errors else text


def _overhead_table(records: Sequence[OverheadRecord]) -> Table:
    title = "Time in ms that a plugin adds to the core, with a scorer that takes no time"
    table = new_table(title, "", "core", "plugin", "added")
    for record in records:
        table.add_row(
            f"{record.plugin}, {record.documents} documents",
            format_number(record.core.median_ms),
            format_number(record.through_plugin.median_ms),
            format_number(record.added_ms),
        )
    return table


def _format_percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:+.1f}%"


def _format_ms(value: float | None) -> str:
    return "not measured" if value is None else f"{format_number(value)} ms"
