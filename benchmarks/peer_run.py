"""Runs a measurement on each model, and prints and writes the report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch
from platformdirs import user_cache_path
from rich.console import Console

from benchmarks.concurrency import measure_concurrency
from benchmarks.http_comparison import measure_http
from benchmarks.large_calls import measure_large_calls
from benchmarks.peer_report import PeerModelRecord, PeerReport
from benchmarks.peer_tables import render_peer_report
from benchmarks.peers import load_peers
from benchmarks.plugin_overhead import measure_overhead
from benchmarks.ray_comparison import measure_ray
from benchmarks.soak import run_soak
from benchmarks.stand_in_models import prepare_model
from gpurerank.benchmark.bench_options import BenchOptions
from gpurerank.benchmark.bench_run import describe_run, recorded_run
from gpurerank.benchmark.hardware_floor import shortest_s
from gpurerank.benchmark.latency import measure_latency
from gpurerank.benchmark.model_under_test import ModelUnderTest, summarize
from gpurerank.models.devices import resolve_device
from gpurerank.models.hardware import find_versions

# Measures a model that has the contender gpurerank, and fills its record.
Measure = Callable[[ModelUnderTest, PeerModelRecord], None]
COPIED_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}


def run_on_models(
    options: BenchOptions, measure: Measure, out: Console, err: Console
) -> PeerReport:
    """Measures all models; prints tables to ``out`` and progress to ``err``, and writes files.

    Raises:
        InputError: An option is wrong.
        ModelError: No model can be loaded.
    """
    report = _new_report(options)
    cache = user_cache_path("gpurerank") / "bench"
    errors: list[Exception] = []
    device = resolve_device(options.device)
    # The large model takes minutes per call on a CPU.
    default = ("minilm-l6", "bge-m3") if device.type == "cuda" else ("minilm-l6",)
    with (
        tempfile.TemporaryDirectory() as scratch,
        recorded_run(report, options.output, out, err, render_peer_report) as log,
    ):
        report.bandwidth_giga_bytes_s = measure_bandwidth(device)
        for name in options.models or default:
            log(f"{name}: preparing")
            try:
                folder, record = prepare_model(name, cache, Path(scratch))
                with closing(
                    ModelUnderTest(folder, record, options, log, report.notes.append)
                ) as model:
                    report.models.append(record)
                    measure(model, record)
            except Exception as error:
                errors.append(error)
                report.notes.append(f"{name} stopped: {summarize(error)}")
    # Raised after the report is written, which keeps what was measured before.
    if errors and len(errors) == len(options.models or default):
        raise errors[0]
    return report


def measure_bandwidth(device: torch.device) -> float:
    """Bytes that a large copy reads and writes per second, in 10^9."""
    size = COPIED_BYTES.get(device.type, 1 << 28)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return round(2 * size / shortest_s(lambda: target.copy_(source), device) / 1e9, 2)


def latency(model: ModelUnderTest, record: PeerModelRecord) -> None:
    """Latency of all peers."""
    load_peers(model, record)
    model.compare_scores()
    measure_latency(model)


def concurrency(callers: Sequence[int]) -> Measure:
    """Concurrent callers of gpurerank and of tuned sentence-transformers."""

    def measure(model: ModelUnderTest, record: PeerModelRecord) -> None:
        load_peers(model, record)
        model.compare_scores()
        measure_concurrency(model, record, callers)

    return measure


def http(model: ModelUnderTest, record: PeerModelRecord) -> None:
    """The HTTP server."""
    measure_http(model, record)


def ray(model: ModelUnderTest, record: PeerModelRecord) -> None:
    """A pool of Ray actors."""
    measure_ray(model, record)


def large_calls(model: ModelUnderTest, record: PeerModelRecord) -> None:
    """Large calls, of copies that are loaded for one measurement only."""
    model.close()
    measure_large_calls(model, record)


def soak(seconds: float) -> Measure:
    """A soak test."""

    def measure(model: ModelUnderTest, record: PeerModelRecord) -> None:
        record.soak = run_soak(model, seconds)

    return measure


def overhead(options: BenchOptions, out: Console, err: Console) -> PeerReport:
    """Measures the overhead of the plugins; prints and writes the report."""
    report = _new_report(options)
    with recorded_run(report, options.output, out, err, render_peer_report) as log:
        log("overhead of the plugins")
        report.overhead = measure_overhead(report.notes.append)
    return report


def _new_report(options: BenchOptions) -> PeerReport:
    report = PeerReport(**describe_run(options))
    report.versions |= find_versions("openvino", "optimum-intel")
    return report
