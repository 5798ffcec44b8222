"""The result of an evaluation as one HTML file without external assets."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gpurerank.evaluation import report_charts
from gpurerank.evaluation.evaluation_result import Evaluation, Point
from gpurerank.evaluation.measures import MAIN_MEASURE, secondary_measures
from gpurerank.evaluation.number_format import (
    format_change,
    format_duration,
    format_p_value,
    format_tail_latency,
)
from gpurerank.evaluation.significance import SIGN_CHANGES
from gpurerank.plotting import chart_style


def write_page(evaluation: Evaluation, path: Path) -> None:
    """Writes the report.

    It opens in any browser, offline, in light and dark; text from the data is escaped.
    """
    # A lone surrogate in the data has no UTF-8 form; it must not cost the report.
    path.write_text(render_page(evaluation), encoding="utf-8", errors="replace")


def render_page(evaluation: Evaluation) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=PackageLoader("gpurerank.evaluation"),
        # Names, queries and passages come from the data.
        autoescape=True,
        # A renamed field is an error, not an empty cell.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": format_duration,
        "change": format_change,
        "p_value": format_p_value,
        "tail_latency": format_tail_latency,
    }
    subject = _subject(evaluation)
    created = datetime.fromisoformat(evaluation.created_at)
    with chart_style():
        charts = _draw_charts(evaluation, subject)
        swatches = [report_charts.series_swatch(i) for i in range(len(evaluation.contenders))]
    return environment.get_template("report.html.j2").render(
        e=evaluation,
        main=MAIN_MEASURE,
        other_measures=secondary_measures(evaluation.depth),
        date=f"{created.day} {created:%B %Y, %H:%M} UTC",
        sign_changes=SIGN_CHANGES,
        subject=subject,
        rows=[
            (swatch, record, evaluation.at(record.name, evaluation.depth))
            for swatch, record in zip(swatches, evaluation.contenders, strict=True)
        ],
        charts=charts,
        improved=[e for e in evaluation.examples if e.value_after > e.value_before],
        worse=[e for e in evaluation.examples if e.value_after < e.value_before],
        with_embedding=any(p.latency_with_embedding is not None for p in evaluation.points),
        unreachable=sum(not query.reachable for query in evaluation.queries),
    )


def _subject(evaluation: Evaluation) -> Point | None:
    """The point whose queries the page shows: the recommended one, or that of the best mean."""
    if evaluation.recommended is not None:
        return evaluation.recommended
    return max(evaluation.points, key=lambda p: p.quality.mean, default=None)


def _draw_charts(evaluation: Evaluation, subject: Point | None) -> dict[str, Markup]:
    """Charts by name; empty where there is nothing to draw."""
    if subject is None:
        return dict.fromkeys(("gains", "outcomes", "cost", "depth", "latency", "changes"), Markup())
    changes = evaluation.differences_from_first(subject)
    return {
        "gains": report_charts.gain_chart(evaluation),
        "outcomes": report_charts.outcome_chart(evaluation),
        "cost": report_charts.quality_latency_chart(evaluation),
        "depth": report_charts.quality_depth_chart(evaluation),
        "latency": report_charts.latency_depth_chart(evaluation),
        "changes": report_charts.query_change_chart(subject, changes),
    }
