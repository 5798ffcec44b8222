"""``gpurerank demo``."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device, Dtype, Model, TopK
from gpurerank.errors import InputError

if TYPE_CHECKING:
    from gpurerank.demo.chroma_index import Changes, Index
    from gpurerank.demo.corpus import SourcePassage

QUESTIONS = (
    "run a command and capture its output",
    "how do I parse command line arguments",
    "unpack a zip archive",
)


def demo(
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", help="Your question; may be repeated.")
    ] = None,
    docs: Annotated[
        Path | None, typer.Option(help="Folder of .md and .txt files, in place of the docstrings.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(envvar="GPURERANK_INDEX", help="Folder of the Chroma index.")
    ] = None,
    model: Model = "embedded",
    device: Device = "auto",
    dtype: Dtype = "auto",
    top_k: TopK = 5,
) -> None:
    """Index a corpus in Chroma, retrieve 50, rerank to 5, and show what moved."""
    if query and any(not question.strip() for question in query):
        raise InputError("--query is blank; ask something")
    passages, name = _corpus(docs)
    started = time.perf_counter()
    with err.status("loading the models"):
        from gpurerank.chroma import GPUEmbeddingFunction
        from gpurerank.demo.chroma_index import Index
        from gpurerank.demo.results_table import answer_table
        from gpurerank.demo.retrieval import answer
        from gpurerank.reranker import Reranker

        reranker = Reranker(model, device=device, dtype=dtype)
        embedding = GPUEmbeddingFunction(device=device, dtype=dtype)
        chroma = Index(index or _default_index(), name, embedding)
        # The first pass warms both models up; it belongs to loading, not to the first question.
        reranker.score_pairs([("warm", "up")])
        chroma.embed("warm up")
    out.print(f"models loaded in {time.perf_counter() - started:.1f} s")
    changes = _update(chroma, passages)
    out.print(
        f"{len(passages):,} passages: {changes.added:,} embedded now, {changes.kept:,} already"
        f" there, {changes.removed:,} removed\n"
    )
    for question in query or QUESTIONS:
        out.print(answer_table(answer(question, chroma, reranker), top_k))
        out.print()


def _corpus(docs: Path | None) -> tuple[list[SourcePassage], str]:
    from gpurerank.demo.corpus import folder, standard_library

    if docs is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        passages = standard_library()
        out.print(f"corpus: docstrings of the standard library of Python {version}")
        return passages, f"python-{version}"
    passages, skipped = folder(docs)
    out.print(f"corpus: {escape(str(docs))}")
    for line in skipped:
        err.print(f"[yellow]left out[/yellow] {escape(line)}", soft_wrap=True)
    digest = hashlib.sha256(str(docs.resolve()).encode("utf-8", "replace")).hexdigest()
    return passages, f"folder-{digest[:16]}"


def _default_index() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("gpurerank") / "chroma"


def _update(index: Index, passages: list[SourcePassage]) -> Changes:
    columns = (
        TextColumn("embedding passages"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("embed", total=None)
        return index.update(
            passages, lambda done, total: progress.update(task, completed=done, total=total)
        )
