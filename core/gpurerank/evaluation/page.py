"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gpurerank.evaluation.advice import differences_from_first
from gpurerank.evaluation.balance import balance_bar, sorted_differences, whisker
from gpurerank.evaluation.curves import latency_by_depth, quality_by_depth
from gpurerank.evaluation.figures import duration, interval, probability, signed
from gpurerank.evaluation.frontier import frontier
from gpurerank.evaluation.measures import MAIN, recall_name
from gpurerank.evaluation.records import Evaluation, Point
from gpurerank.evaluation.significance import FLIPS
from gpurerank.evaluation.svg import colour, mark, picture
from gpurerank.evaluation.tables import tail


def write_page(evaluation: Evaluation, path: Path) -> None:
    """Writes the page; whatever comes from data is escaped, and nothing is fetched."""
    path.write_text(render_page(evaluation), encoding="utf-8", errors="replace")


def render_page(evaluation: Evaluation) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("gpurerank.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "signed": signed,
        "probability": probability,
        "interval": interval,
        "tail": tail,
    }
    shown = _subject(evaluation)
    created = datetime.fromisoformat(evaluation.created_at)
    return environment.get_template("report.html.j2").render(
        e=evaluation,
        main=MAIN,
        others=("RR@10", recall_name(evaluation.depth), "Success@1", "Success@5"),
        day=f"{created.day} {created:%B %Y, %H:%M} UTC",
        flips=FLIPS,
        subject=shown,
        rows=[
            (index, record, evaluation.at(record.name, evaluation.depth))
            for index, record in enumerate(evaluation.contenders)
        ],
        swatch=swatch,
        whisker=lambda point, index: whisker(evaluation, point, index),
        balance_bar=balance_bar,
        pictures=_pictures(evaluation, shown),
        risen=[e for e in evaluation.examples if e.value_after > e.value_before],
        fallen=[e for e in evaluation.examples if e.value_after < e.value_before],
        anew=any(p.latency_anew is not None for p in evaluation.points),
        unreachable=sum(not query.reachable for query in evaluation.queries),
    )


def swatch(index: int) -> Markup:
    """A contender's mark, for legends and tables."""
    return picture(14, 14, "", "swatch", mark(index, 7, 7, 5, f"solid {colour(index)}", ""))


def _subject(evaluation: Evaluation) -> Point | None:
    """The point that the page looks at query by query: what is advised, or the best mean."""
    if evaluation.recommended is not None:
        return evaluation.recommended
    return max(evaluation.points, key=lambda p: p.quality.mean, default=None)


def _pictures(evaluation: Evaluation, subject: Point | None) -> dict[str, list[Markup]]:
    """Every picture twice: for a desk and for a phone."""
    drawn: dict[str, list[Markup]] = {"frontier": [], "depth": [], "latency": [], "changes": []}
    for narrow in (False, True):
        drawn["frontier"].append(frontier(evaluation, narrow=narrow))
        drawn["depth"].append(quality_by_depth(evaluation, narrow=narrow))
        drawn["latency"].append(latency_by_depth(evaluation, narrow=narrow))
        if subject is not None:
            changes = differences_from_first(evaluation, subject)
            drawn["changes"].append(sorted_differences(subject, changes, narrow=narrow))
    return {name: [each for each in found if each] for name, found in drawn.items()}
