"""One run: what was asked for, measured, shown and written, also where it is interrupted."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gpurerank.benchmark.concurrency import measure_concurrency
from gpurerank.benchmark.latency import measure_latency
from gpurerank.benchmark.layout import WIDTH
from gpurerank.benchmark.options import BenchOptions
from gpurerank.benchmark.over_http import measure_http
from gpurerank.benchmark.over_ray import measure_ray
from gpurerank.benchmark.overhead import measure_overhead
from gpurerank.benchmark.pictures import draw
from gpurerank.benchmark.rates import bandwidth_giga_bytes_s
from gpurerank.benchmark.report import Report
from gpurerank.benchmark.scaling import measure_scaling
from gpurerank.benchmark.soak import soak
from gpurerank.benchmark.stand_ins import prepare
from gpurerank.benchmark.subject import load_subject
from gpurerank.benchmark.tables import render
from gpurerank.models.devices import resolve_device
from gpurerank.models.hardware import find_hardware, find_versions

Say = Callable[[str], None]


def run(options: BenchOptions, out: Console, err: Console) -> Report:
    """Measures, prints the tables to ``out`` and the progress to ``err``, and writes the files.

    Raises:
        InputError: An option is wrong.
        ModelError: A model cannot be loaded.
    """
    options = options.as_quick() if options.quick else options
    options.check()
    device = resolve_device(options.device)
    report = Report(
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command={
            each.name: str(getattr(options, each.name))
            for each in fields(options)
            # Places on this machine; the models stand in the report by name.
            if each.name not in ("models", "output")
        },
        hardware=find_hardware(device),
        versions=find_versions(),
        device=str(device),
    )
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("measuring", total=None)
        try:
            _measure(options, device, report, _sayer(progress, task, err))
        except KeyboardInterrupt:
            report.interrupted = True
    if options.output is not None and importlib.util.find_spec("matplotlib") is None:
        report.notes.append("no pictures: matplotlib is not installed")
    _show(report, out)
    if options.output is not None:
        for path in _write(report, options.output):
            out.print(f"written: {escape(str(path))}", soft_wrap=True)
    return report


def _sayer(progress: Progress, task: object, err: Console) -> Say:
    """Says what is going on: as one moving line, or a line each where nobody watches."""

    def say(what: str) -> None:
        progress.update(task, description=what)  # type: ignore[arg-type]
        if not err.is_terminal:
            err.print(escape(what), soft_wrap=True)

    return say


def _measure(options: BenchOptions, device: torch.device, report: Report, say: Say) -> None:
    say("measuring the memory")
    report.bandwidth_giga_bytes_s = bandwidth_giga_bytes_s(device)
    if "overhead" in options.sections:
        say("overhead of the plugins")
        report.overhead = measure_overhead(report.notes.append)
    # The large stand-in takes minutes a call on a CPU.
    suited = ("minilm-l6", "bge-m3") if device.type == "cuda" else ("minilm-l6",)
    if options.soak_s or set(options.sections) - {"overhead"}:
        for name in options.models or suited:
            try:
                _measure_model(name, options, device, report, say)
            except Exception as error:
                # What was measured before is not lost.
                if not report.models:
                    raise
                reason = " ".join(str(error).split())[:200]
                report.notes.append(f"{name} stopped: {type(error).__name__}: {reason}")


def _measure_model(
    name: str, options: BenchOptions, device: torch.device, report: Report, say: Say
) -> None:
    say(f"preparing {name}")
    model = prepare(name, _cache())

    def say_of(what: str) -> None:
        say(f"{name}: {what}")

    subject = load_subject(model, options, device, say_of, report.notes.append)
    report.models.append(subject.record)
    try:
        if "latency" in options.sections:
            measure_latency(subject)
        if "concurrency" in options.sections:
            measure_concurrency(subject)
        if "http" in options.sections:
            measure_http(subject)
        if "ray" in options.sections:
            measure_ray(subject)
        subject.close()
        if "scaling" in options.sections:
            measure_scaling(subject)
        if options.soak_s:
            subject.record.soak = soak(subject)
    finally:
        subject.close()


def _show(report: Report, out: Console) -> None:
    narrow = Console(
        file=out.file, width=min(out.width, WIDTH) if out.is_terminal else WIDTH, highlight=False
    )
    for part in render(report):
        narrow.print(part)


def _write(report: Report, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"bench-{report.created_at[:19].replace(':', '').replace('-', '')}"
    path = folder / f"{stem}.json"
    path.write_text(report.to_json() + "\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is None:
        return [path]
    return [path, *draw(report, folder, stem)]


def _cache() -> Path:
    try:
        from platformdirs import user_cache_path

        return user_cache_path("gpurerank") / "bench"
    except ImportError:
        return Path.home() / ".cache" / "gpurerank" / "bench"
