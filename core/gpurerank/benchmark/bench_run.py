"""One benchmark run: measures, shows progress, and keeps the results when interrupted."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape

from gpurerank.benchmark.bench_options import BenchOptions
from gpurerank.benchmark.bench_report import BenchReport, ModelRecord
from gpurerank.benchmark.latency import measure_latency
from gpurerank.benchmark.model_under_test import ModelUnderTest, locate_model, summarize
from gpurerank.benchmark.result_tables import WIDTH, render_report
from gpurerank.models import embedded
from gpurerank.models.devices import resolve_device
from gpurerank.models.hardware import find_hardware, find_versions

Log = Callable[[str], None]
Render = Callable[[Any], Iterator[RenderableType]]


def run_bench(options: BenchOptions, out: Console, err: Console) -> BenchReport:
    """Measures all models; prints tables to ``out`` and progress to ``err``, and writes files.

    Raises:
        GPURerankError: The device is not available, or the first model cannot be loaded.
    """
    report = BenchReport(**describe_run(options))
    with (
        tempfile.TemporaryDirectory() as scratch,
        recorded_run(report, options.output, out, err, render_report) as log,
    ):
        for name in options.models:
            try:
                _measure_model(name, Path(scratch), options, report, log)
            except Exception as error:
                # The results of other models are kept.
                if not report.models:
                    raise
                report.notes.append(f"{name} stopped: {summarize(error)}")
    return report


def _measure_model(
    name: str, scratch: Path, options: BenchOptions, report: BenchReport, log: Log
) -> None:
    log(f"{name}: loading")
    shown_name, folder = locate_model(name, scratch)
    if name == embedded.NAME:
        report.notes.append("embedded: the cross-encoder alone, without the blend of Reranker")
    record = ModelRecord(shown_name)
    with closing(ModelUnderTest(folder, record, options, log, report.notes.append)) as model:
        model.load_reference()
        model.compare_scores()
        report.models.append(record)
        measure_latency(model)


def describe_run(options: BenchOptions) -> dict[str, Any]:
    """The fields of a report that are known before the first measurement."""
    device = resolve_device(options.device)
    private = ("models", "output")  # May be paths of this machine.
    return {
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": {k: str(v) for k, v in asdict(options).items() if k not in private},
        "hardware": find_hardware(device),
        "versions": find_versions(),
        "device": str(device),
    }


@contextmanager
def recorded_run(
    report: Any, output: Path | None, out: Console, err: Console, render: Render
) -> Iterator[Log]:
    """Shows progress during the block, then prints and writes the report, even after Ctrl-C.

    Yields a function that shows what is being measured.
    """
    with err.status("starting") as status:

        def log(text: str) -> None:
            status.update(escape(text))
            if not err.is_terminal:
                err.print(escape(text), soft_wrap=True)

        try:
            yield log
        except KeyboardInterrupt:
            report.interrupted = True
    can_plot = importlib.util.find_spec("matplotlib") is not None
    if output is not None and not can_plot:
        report.notes.append("no plots: matplotlib is missing; pip install 'gpurerank[bench]'")
    width = min(out.width, WIDTH) if out.is_terminal else WIDTH
    table_console = Console(file=out.file, width=width, highlight=False)
    for part in render(report):
        table_console.print(part)
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    stem = f"bench-{report.created_at[:19].replace(':', '').replace('-', '')}"
    path = output / f"{stem}.json"
    text = json.dumps(asdict(report), indent=1, allow_nan=False)
    path.write_text(f"{text}\n", encoding="utf-8")
    paths = [path]
    if can_plot:
        from gpurerank.benchmark.latency_plot import plot_latency

        paths += plot_latency(report, output, stem)
    for path in paths:
        out.print(f"written: {escape(str(path))}", soft_wrap=True)
