"""An answer as a table that a person can read."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from gpurerank.demo.retrieval import Answer
from gpurerank.types import RankedPassage

TOP_K = 5


def answer_table(answer: Answer, top_k: int = TOP_K) -> Table:
    """The top after reranking, and below it what fell out of the top."""
    stages = ", ".join(f"{name} {ms:.0f} ms" for name, ms in answer.stages_ms.items())
    table = Table(
        title=f"“{escape(answer.query)}”",
        caption=stages,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        expand=True,
    )
    table.add_column("rank", justify="right", width=4)
    table.add_column("before", justify="right", width=6)
    table.add_column("move", justify="right", width=5)
    table.add_column("score", justify="right", width=6)
    table.add_column("passage", ratio=1, no_wrap=True, overflow="ellipsis")
    for passage in answer.ranked[:top_k]:
        table.add_row(*_cells(answer, passage))
    fallen = answer.fallen(top_k)
    if fallen:
        table.add_section()
        for passage in fallen:
            table.add_row(*_cells(answer, passage), style="dim")
    return table


def _cells(answer: Answer, passage: RankedPassage) -> tuple[str, str, str, str, str]:
    score = "-" if passage.score is None else f"{passage.score:.3f}"
    source = answer.candidates[passage.index].source
    text = " ".join(passage.passage.removeprefix(source).split())
    return (
        str(passage.rank),
        str(passage.previous_rank),
        move(passage.previous_rank - passage.rank),
        score,
        f"[bold]{escape(source)}[/bold]  {escape(text)}",
    )


def move(places: int) -> str:
    """How far a passage rose or fell, as a cell."""
    if places == 0:
        return "="
    return f"[green]↑{places}[/green]" if places > 0 else f"[red]↓{-places}[/red]"
