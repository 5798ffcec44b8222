"""A search result as a terminal table."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from gpurerank.demo.retrieval import SearchResult
from gpurerank.types import RankedPassage


def results_table(result: SearchResult, top_k: int) -> Table:
    """Shows the top after reranking, and below it the passages that dropped out of the top."""
    stages = ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in result.stages_ms.items())
    table = Table(
        title=f"“{escape(result.query)}”",
        caption=stages,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        expand=True,
    )
    for heading, width in (("rank", 4), ("before", 6), ("move", 5), ("score", 6)):
        table.add_column(heading, justify="right", width=width)
    table.add_column("passage", ratio=1, no_wrap=True, overflow="ellipsis")
    for passage in result.ranked[:top_k]:
        table.add_row(*_cells(result, passage))
    table.add_section()
    for passage in result.dropped(top_k):
        table.add_row(*_cells(result, passage), style="dim")
    return table


def _cells(result: SearchResult, passage: RankedPassage) -> tuple[str, str, str, str, str]:
    score = "-" if passage.score is None else f"{passage.score:.3f}"
    source = result.candidates[passage.index].source
    # A docstring's passage begins with its source, which is shown in bold instead.
    text = " ".join(passage.passage.removeprefix(source).split())
    return (
        str(passage.rank),
        str(passage.previous_rank),
        _format_move(passage.previous_rank - passage.rank),
        score,
        f"[bold]{escape(source)}[/bold]  {escape(text)}",
    )


def _format_move(places: int) -> str:
    if places == 0:
        return "="
    return f"[green]↑{places}[/green]" if places > 0 else f"[red]↓{-places}[/red]"
