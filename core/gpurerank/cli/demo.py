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
    from gpurerank.demo.chroma_index import ChromaIndex
    from gpurerank.demo.corpus import SourcePassage
    from gpurerank.reranker import Reranker

QUERIES = (
    "run a command and capture its output",
    "how do I parse command line arguments",
    "unpack a zip archive",
)

Query = Annotated[
    list[str] | None,
    typer.Option("--query", "-q", help="Query; repeatable.", show_default="three examples"),
]
Docs = Annotated[
    Path | None,
    typer.Option(
        help="Folder of .md and .txt files to search.", show_default="Python's docstrings"
    ),
]
Index = Annotated[
    Path | None,
    typer.Option(
        envvar="GPURERANK_INDEX",
        help="Folder of the Chroma index.",
        show_default="in the user's cache folder",
    ),
]


def demo(
    query: Query = None,
    docs: Docs = None,
    index: Index = None,
    model: Model = "embedded",
    device: Device = "auto",
    dtype: Dtype = "auto",
    top_k: TopK = 5,
) -> None:
    """Index a corpus in Chroma, retrieve 50 passages, rerank them, and show what moved."""
    if query and any(not text.strip() for text in query):
        raise InputError("--query is blank; give a question")
    passages, collection = _read_corpus(docs)
    reranker, chroma_index = _load(index or _default_index(), collection, model, device, dtype)
    _update(chroma_index, passages)
    from gpurerank.demo.results_table import results_table
    from gpurerank.demo.retrieval import search

    for text in query or QUERIES:
        out.print(results_table(search(text, chroma_index, reranker), top_k))
        out.print()


def _read_corpus(docs: Path | None) -> tuple[list[SourcePassage], str]:
    """The passages, and the name of their collection in the index."""
    from gpurerank.demo.corpus import read_folder, read_standard_library

    if docs is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        out.print(f"corpus: docstrings of the standard library of Python {version}")
        return read_standard_library(), f"python-{version}"
    passages, skipped = read_folder(docs)
    out.print(f"corpus: {escape(str(docs))}")
    for message in skipped:
        err.print(f"[yellow]skipped[/yellow] {escape(message)}", soft_wrap=True)
    # Chroma restricts the characters of a name, so the path itself cannot be one.
    digest = hashlib.sha256(str(docs.resolve()).encode("utf-8", "replace")).hexdigest()
    return passages, f"folder-{digest[:16]}"


def _default_index() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("gpurerank") / "chroma"


def _load(
    folder: Path, collection: str, model: str, device: str, dtype: str
) -> tuple[Reranker, ChromaIndex]:
    started = time.perf_counter()
    with err.status("loading models"):
        try:
            from gpurerank.chroma import GPUEmbeddingFunction
            from gpurerank.demo.chroma_index import ChromaIndex
        except ImportError as error:
            raise InputError(
                f"the demo needs the package {error.name}: pip install 'gpurerank[chroma]'"
            ) from error
        from gpurerank.reranker import Reranker

        reranker = Reranker(model, device=device, dtype=dtype)
        embedding = GPUEmbeddingFunction(device=device, dtype=dtype)
        index = ChromaIndex(folder, collection, embedding)
        # Warm-up, so that the first query is timed like the others.
        reranker.score_pairs([("warm", "up")])
        index.embed("warm up")
    out.print(f"models loaded in {time.perf_counter() - started:.1f} s")
    return reranker, index


def _update(index: ChromaIndex, passages: list[SourcePassage]) -> None:
    columns = (
        TextColumn("embedding passages"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=err) as bar:
            task = bar.add_task("", total=None)
            changes = index.update(
                passages, lambda done, total: bar.update(task, completed=done, total=total)
            )
    except KeyboardInterrupt:
        err.print("stopped; the same command continues with the passages that are not embedded")
        raise typer.Exit(130) from None
    out.print(
        f"{len(passages):,} passages: {changes.added:,} embedded now, {changes.kept:,} embedded"
        f" before, {changes.removed:,} removed\n"
    )
