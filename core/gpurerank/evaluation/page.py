"""The report as one HTML file."""

from pathlib import Path

from gpurerank.evaluation.records import Evaluation


def write_page(evaluation: Evaluation, path: Path) -> None:
    """Writes the page."""
    path.write_text("")
