"""The report as tables of at most 100 columns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gpurerank.benchmark.http_lines import http_lines
from gpurerank.benchmark.latency_table import latency_table
from gpurerank.benchmark.layout import number, percent, skipped, tail, titled
from gpurerank.benchmark.records import (
    Agreement,
    ConcurrencyCell,
    ContenderRecord,
    RayRecord,
    SoakRecord,
)
from gpurerank.benchmark.report import ModelRecord, Report


def render(report: Report) -> Iterator[RenderableType]:
    """Everything that was measured, in the order to read it."""
    yield _machine(report)
    for model in report.models:
        yield Text()
        yield _heading(model)
        yield _contenders(model)
        yield _rates(model, report.bandwidth_giga_bytes_s)
        for lengths in dict.fromkeys(cell.lengths for cell in model.latency):
            yield latency_table(model, lengths)
        if model.latency and model.disagreeing():
            names = ", ".join(sorted(model.disagreeing()))
            yield Text(f"In brackets: not comparable, other scores than float32 ({names}).", "red")
        if model.concurrency:
            yield _concurrency(model.concurrency)
        yield from _lines(model)
    if report.overhead:
        yield _overhead(report)
    for note in report.notes:
        yield Text(f"- {note}", style="yellow")
    if report.interrupted:
        yield Text("interrupted: what was not measured is missing", style="bold red")


def _machine(report: Report) -> Text:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return Text("\n".join([*report.hardware.lines, versions]))


def _heading(model: ModelRecord) -> Text:
    heading = Text(model.name, style="bold underline")
    if model.weights == "random":
        kind = "a stand-in" if model.tokenizer == "stand-in" else "the real model's"
        heading.append(
            f"\nRandom weights (seeded); the tokenizer is {kind}: times hold, ranks mean nothing.",
            style="not bold not underline yellow",
        )
    return heading


def _contenders(model: ModelRecord) -> Table:
    title = "Contenders (ST: sentence-transformers), and their scores against ST in float32"
    table = titled(title, "", "setting", "max diff.", "rank corr.")
    table.columns[1].justify = "left"
    found = {each.contender: each for each in model.agreement}
    for contender in model.contenders:
        agreement = found.get(contender.name)
        table.add_row(contender.name, _setting(contender), *_agreement(agreement))
    return table


def _setting(contender: ContenderRecord) -> str:
    said = contender.setting
    if contender.searched:
        formats = dict.fromkeys(each.dtype for each in contender.searched)
        sizes = sorted({each.batch_size for each in contender.searched})
        said += f" (tried: {', '.join(formats)}; {', '.join(map(str, sizes))})"
    return escape(said)


def _agreement(found: Agreement | None) -> tuple[str, str]:
    if found is None:
        return "left out", ""
    colour = "green" if found.agrees else "bold red"
    top = "" if found.same_top else "\nother top 1"
    return (
        f"[{colour}]{found.max_difference:.1e}[/]",
        f"[{colour}]{found.rank_correlation:.4f}{top}[/]",
    )


def _rates(model: ModelRecord, bandwidth: float) -> Text:
    best: dict[str, float] = {}
    for rate in model.rates:
        best[rate.dtype] = max(best.get(rate.dtype, 0.0), rate.giga_operations_s)
    said = ", ".join(f"{dtype} {number(rate / 1e3)} TFLOP/s" for dtype, rate in best.items())
    return Text(
        f"device: {said or 'not measured'}; memory {number(bandwidth)} GB/s. The floor is the"
        " operations of the unpadded tokens at the best of these rates.",
        style="dim",
    )


def _concurrency(cells: Sequence[ConcurrencyCell]) -> Table:
    title = "Callers at the same time, 20 passages each, realistic lengths; waits in ms (≤: max)"
    table = titled(title, "", "callers", "pairs/s", "tokens/s", "wait p50", "wait p95")
    for cell in cells:
        if not cell.wall_s:
            said = skipped(cell.skipped_s) or "not measured"
            table.add_row(cell.way, str(cell.callers), said, "", "", "")
            continue
        wall_s = statistics.median(cell.wall_s)
        table.add_row(
            cell.way,
            str(cell.callers),
            number(cell.pairs / wall_s),
            number(cell.tokens / wall_s),
            number(statistics.median(cell.caller_ms)),
            tail(cell.caller_ms),
        )
    return table


def _lines(model: ModelRecord) -> Iterator[Text]:
    """What is one figure and needs no table."""
    beside, split = model.beside, model.split
    if beside is not None:
        said = skipped(beside.skipped_s) or (
            f"p95 {tail(beside.alone_ms)} ms alone, {tail(beside.beside_ms)} ms beside"
            f" ({beside.p95_ratio or 0:.1f} times)"
        )
        yield Text(f"{beside.callers} callers beside one of {beside.pairs_beside:,} pairs: {said}")
    for peak in model.peaks:
        said = skipped(peak.skipped_s) or f"{peak.growth_bytes / 2**20:,.0f} MiB"
        yield Text(f"peak {peak.kind} of {peak.candidates:,} candidates: {said}")
    if split is not None:
        said = skipped(split.skipped_s)
        if not said:
            one, many = (statistics.median(t) for t in (split.one_call_s, split.many_calls_s))
            said = f"{number(one)} s in one call, {number(many)} s in {split.calls} calls"
        yield Text(f"{split.candidates:,} candidates: {said}")
    if model.http is not None:
        yield from http_lines(model.http)
    if model.ray is not None and (said := _ray(model.ray)):
        yield Text(said)
    if model.soak is not None:
        yield _soak(model.soak)


def _ray(found: RayRecord) -> str:
    name = f"Ray, {found.pairs:,} pairs in one call to {found.replicas} replicas"
    if found.skipped_s is not None:
        return f"{name}: {skipped(found.skipped_s)}"
    if not found.ray_s or not found.in_process_s or found.started_s is None:
        return ""
    taken = [statistics.median(times) for times in (found.ray_s, found.in_process_s)]
    return (
        f"{name}: {number(taken[0])} s, {percent(found.overhead * 100)} beside the"
        f" {number(taken[1])} s in this process; started in {number(found.started_s)} s; scores"
        f" differ by {found.largest_difference:.1e} at most"
    )


def _soak(soak: SoakRecord) -> Text:
    said = (
        f"soak of {soak.seconds:g} s: {soak.calls:,} calls, {soak.pairs:,} pairs,"
        f" {soak.errors} errors, resident memory {percent(soak.resident_growth_percent)},"
        f" GPU memory {percent(soak.gpu_growth_percent)}"
    )
    return Text(f"{said}; first error: {soak.first_error}" if soak.errors else said)


def _overhead(report: Report) -> Table:
    title = "What a plugin adds to the core, model time nil, ms"
    table = titled(title, "", "core", "through", "added")
    for found in report.overhead:
        table.add_row(
            f"{found.plugin}, {found.documents} documents",
            number(found.core.median_ms),
            number(found.through_plugin.median_ms),
            number(found.added_ms),
        )
    return table
