"""Latency over candidates as a plot: one line per contender, the floor dashed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gpurerank.benchmark.bench_report import BenchReport, LatencyCell, ModelRecord
from gpurerank.benchmark.latency import describe_lengths
from gpurerank.plotting import THEME, chart_style, new_figure, series_style

SIZE = (640, 400)  # points
DPI = 160


def plot_latency(report: BenchReport, folder: Path, stem: str) -> list[Path]:
    """Writes a plot per model and kind of lengths that has two measurements or more."""
    paths: list[Path] = []
    for model in report.models:
        for lengths in dict.fromkeys(cell.lengths for cell in model.latency):
            cells = [c for c in model.latency if c.lengths == lengths and c.timings]
            if len(cells) < 2:
                continue
            machine = (
                report.hardware.gpu or f"{report.hardware.cpu}, {report.hardware.threads} threads"
            )
            title = f"{model.name}, {describe_lengths(lengths)}\n{machine}"
            name = re.sub(r"[^\w.-]+", "-", model.name).strip("-")
            with chart_style():
                figure, axes = new_figure(*SIZE)
                _draw(axes, model, sorted(cells, key=lambda c: c.candidates), title)
                for suffix in ("png", "svg"):
                    paths.append(folder / f"{stem}-{name}-{lengths}.{suffix}")
                    figure.savefig(paths[-1], dpi=DPI)
    return paths


def _draw(axes: Any, model: ModelRecord, cells: Sequence[LatencyCell], title: str) -> None:
    for index, name in enumerate(contender.name for contender in model.contenders):
        points = [
            (c.candidates, t.median_ms) for c in cells for t in c.timings if t.contender == name
        ]
        # Times of contenders whose scores differ are not comparable.
        if points and name not in model.disagreeing():
            axes.plot(*zip(*points, strict=True), label=name, **series_style(index))
    floors = [(cell.candidates, cell.floor_ms) for cell in cells if cell.floor_ms]
    if floors:
        label = "floor of this device"
        axes.plot(*zip(*floors, strict=True), "--", color=THEME["ink"], label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="candidates", ylabel="median latency in ms", title=title
    )
    axes.set_xticks([cell.candidates for cell in cells])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_locator(NullLocator())
    axes.figure.legend(loc="outside right upper")
