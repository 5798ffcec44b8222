"""Latency over candidates as a picture: a line a contender, the floor dashed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpurerank.benchmark.contenders import (
    BEST,
    OPENVINO,
    OURS,
    OURS_FLOAT32,
    PLAIN,
    REFERENCE,
    SEEN,
)
from gpurerank.benchmark.records import LatencyCell
from gpurerank.benchmark.report import ModelRecord, Report

# Okabe and Ito's palette, which all eyes tell apart; the marker says it again.
STYLES = {
    OURS: ("#D55E00", "o"),
    SEEN: ("#E69F00", "D"),
    OURS_FLOAT32: ("#CC79A7", "s"),
    BEST: ("#0072B2", "^"),
    REFERENCE: ("#56B4E9", "v"),
    OPENVINO: ("#009E73", "P"),
    PLAIN: ("#7F7F7F", "X"),
}
FORMATS = ("png", "svg")


def draw(report: Report, folder: Path, stem: str) -> list[Path]:
    """Writes one picture a model and kind of lengths that has two cells or more.

    Raises:
        ImportError: matplotlib is not installed.
    """
    written: list[Path] = []
    for model in report.models:
        for lengths in dict.fromkeys(cell.lengths for cell in model.latency):
            cells = [c for c in model.latency if c.lengths == lengths and c.timings]
            cells.sort(key=lambda cell: cell.candidates)
            if len(cells) > 1:
                name = "".join(c if c.isalnum() or c in "-." else "-" for c in model.name).strip(
                    "-"
                )
                written += _draw(report, model, cells, folder / f"{stem}-{name}-{lengths}")
    return written


def _draw(
    report: Report, model: ModelRecord, cells: Sequence[LatencyCell], target: Path
) -> list[Path]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    _plot(axes, model, cells)
    _label(axes, report, model, cells)
    written = [target.with_name(f"{target.name}.{suffix}") for suffix in FORMATS]
    for path in written:
        figure.savefig(path, dpi=160)
    return written


def _plot(axes: Any, model: ModelRecord, cells: Sequence[LatencyCell]) -> None:
    wrong = model.disagreeing()
    ends: list[tuple[float, float, str, str]] = []
    for contender in model.contenders:
        name = contender.name
        points = [
            (cell.candidates, timing.median_ms)
            for cell in cells
            for timing in cell.timings
            if timing.contender == name
        ]
        if not points or name in wrong:
            continue
        colour, marker = STYLES.get(name, ("#000000", "o"))
        wide = 2.6 if name in (OURS, SEEN) else 1.6
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linewidth=wide)
        ends.append((*points[-1], name, colour))
    floors = [(cell.candidates, cell.floor_ms) for cell in cells if cell.floor_ms]
    if floors:
        axes.plot(*zip(*floors, strict=True), color="#000000", linestyle="--", linewidth=1.2)
        ends.append((*floors[-1], "floor", "#000000"))
    axes.set_xscale("log")
    axes.set_yscale("log")
    _name_ends(axes, ends)


def _name_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each name beside its line's end, moved apart where two would lie on each other."""
    # The scale is settled lazily, and the places below are those of now.
    axes.autoscale_view()
    # In the axes' own height, where letters have a height too.
    place = axes.transData + axes.transAxes.inverted()
    last = -1.0
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        height = max(float(place.transform((x, y))[1]), last + 0.052)
        last = height
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.02, height),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=10,
            fontweight="bold" if name in (OURS, SEEN) else "normal",
            annotation_clip=False,
        )


def _label(axes: Any, report: Report, model: ModelRecord, cells: Sequence[LatencyCell]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    lengths = cells[0].lengths
    what = "realistic lengths" if lengths == "realistic" else f"{lengths} tokens a pair"
    where = report.hardware.gpu or f"{report.hardware.cpu}, {report.hardware.threads} threads"
    axes.set_title(f"{model.name}, {what}\n{where}", loc="left", fontsize=11)
    axes.set_xlabel("candidates")
    axes.set_ylabel("ms from strings to ranks (median)")
    axes.set_xticks([cell.candidates for cell in cells])
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="major", color="#DDDDDD", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
