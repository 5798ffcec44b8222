"""The command line; the only reader of the environment."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gpurerank.errors import DataError, GPURerankError, InputError

if TYPE_CHECKING:
    from gpurerank.demo.index import Changes, Index
    from gpurerank.demo.passages import SourcePassage
    from gpurerank.types import RankedPassage

QUESTIONS = (
    "run a command and capture its output",
    "how do I parse command line arguments",
    "unpack a zip archive",
)

app = typer.Typer(
    help="Rerank passages with a cross-encoder: on the GPU where there is one, without padding.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

Model = Annotated[
    str, typer.Option(envvar="GPURERANK_MODEL", help="'embedded', a folder or a hub id.")
]
Device = Annotated[
    str, typer.Option(envvar="GPURERANK_DEVICE", help="'auto', 'cpu', 'cuda', 'cuda:1' …")
]
Dtype = Annotated[
    str, typer.Option(envvar="GPURERANK_DTYPE", help="'auto', 'float32', 'bfloat16', 'float16'.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="GPURERANK_BASE_URL",
        help="A server in place of a model here; its key from GPURERANK_API_KEY.",
    ),
]
TopK = Annotated[int, typer.Option("--top-k", "-k", help="Passages shown.", min=1)]


@app.command()
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
        from gpurerank.demo.index import Index
        from gpurerank.demo.search import answer
        from gpurerank.demo.show import answer_table
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


@app.command()
def rank(
    query: Annotated[str, typer.Argument(help="What is asked.")],
    passages: Annotated[
        list[str] | None, typer.Argument(help="Passages; else --file, else standard input.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A passage a line: text, or JSON with 'text'."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")] = False,
    model: Model = "embedded",
    device: Device = "auto",
    dtype: Dtype = "auto",
    top_k: Annotated[
        int | None, typer.Option("--top-k", "-k", help="Passages shown.", min=0)
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Lowest score shown, 0 to 1.")] = None,
    base_url: BaseUrl = None,
) -> None:
    """Rank passages from arguments, a file or a pipe."""
    if passages and file:
        raise InputError("passages were given as arguments and with --file; give one of both")
    texts = passages or _read_passages(file)
    from gpurerank.reranker import Reranker

    # Not an option: what stands in a command line, every user of the machine can read.
    key = os.environ.get("GPURERANK_API_KEY") if base_url else None
    with Reranker(
        model, device=device, dtype=dtype, base_url=base_url or None, api_key=key or None
    ) as reranker:
        ranked = reranker.rank(query, texts, top_k, threshold)
    if as_json:
        for passage in ranked:
            sys.stdout.write(json.dumps(passage.to_dict()) + "\n")
    else:
        out.print(_ranking_table(query, ranked))


@app.command()
def doctor(model: Model = "embedded", device: Device = "auto", dtype: Dtype = "auto") -> None:
    """Say what this machine runs, what is wrong, and how to mend it."""
    from gpurerank.doctor import examine

    with err.status("looking"):
        findings = examine(model, device, dtype)
    marks = {
        "ok": "[green]ok[/green]",
        "note": "[yellow]note[/yellow]",
        "wrong": "[red]wrong[/red]",
    }
    table = Table("", "", "", show_header=False, box=None)
    for finding in findings:
        table.add_row(marks[finding.level], finding.subject, escape(finding.found))
    out.print(table)
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)


@app.command()
def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="'tinybert-l2', 'minilm-l6', 'bge-m3' (random), 'embedded', a hub id, a folder.",
        ),
    ] = None,
    candidates: Annotated[
        str, typer.Option(help="Passages of a call, between commas.")
    ] = "10,20,50,100,1000",
    lengths: Annotated[
        str, typer.Option(help="'realistic' and tokens a pair, between commas.")
    ] = "realistic,128,256,512",
    callers: Annotated[str, typer.Option(help="At the same time, between commas.")] = "1,8,64",
    sections: Annotated[
        str, typer.Option(help="Of latency, concurrency, scaling, overhead.")
    ] = "latency,concurrency",
    rounds: Annotated[
        int | None, typer.Option(help="Of a cell at most; 20 on a CPU, 50 on a GPU.")
    ] = None,
    limit_s: Annotated[
        float, typer.Option(help="A cell that takes longer is skipped; a section gets 8 times it.")
    ] = 45.0,
    soak: Annotated[float, typer.Option(help="Seconds of mixed calls at the end.")] = 0.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for JSON and pictures.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small set, about 2 minutes.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Compare with other ways to rerank, in one run, on this machine."""
    from gpurerank.benchmark import options as asked

    options = asked.BenchOptions(
        models=tuple(model or ()),
        candidates=asked.numbers(candidates, "--candidates"),
        lengths=asked.lengths(lengths),
        callers=asked.numbers(callers, "--callers", asked.MOST_CALLERS),
        sections=asked.sections(sections),
        rounds=rounds,
        limit_s=limit_s,
        soak_s=soak,
        output=output,
        quick=quick,
        device=device,
        dtype=dtype,
    )
    options.check()
    with err.status("loading"):
        from gpurerank.benchmark.command import run
    if run(options, out, err).interrupted:
        raise typer.Exit(130)


def main() -> None:
    """Runs the command line; every failure is one line on standard error."""
    try:
        app()
    except GPURerankError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader left, as with "| head": nothing more to say, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("GPURERANK_DEBUG"):
            raise
        reason = (str(error).splitlines() or [""])[0]
        _fail(f"{type(error).__name__}: {reason} (GPURERANK_DEBUG=1 shows where)")


def _fail(message: str) -> None:
    err.print(f"[red]gpurerank:[/red] {escape(' '.join(message.split()))}", soft_wrap=True)
    sys.exit(1)


def _corpus(docs: Path | None) -> tuple[list[SourcePassage], str]:
    from gpurerank.demo.passages import folder, standard_library

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


def _read_passages(file: Path | None) -> list[str]:
    if file is None and sys.stdin.isatty():
        raise InputError("no passages: give them as arguments, with --file, or through a pipe")
    try:
        text = sys.stdin.read() if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the passages cannot be read: {error}") from error
    passages = [_passage(line, number) for number, line in enumerate(text.split("\n"), 1)]
    found = [passage for passage in passages if passage.strip()]
    if not found:
        raise DataError(f"{file or 'standard input'} holds no passage")
    return found


def _passage(line: str, number: int) -> str:
    if not line.lstrip().startswith("{"):
        return line
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return line
    if not isinstance(row.get("text"), str):
        raise DataError(f"line {number} is JSON without a string 'text'")
    return str(row["text"])


def _ranking_table(query: str, ranked: list[RankedPassage]) -> Table:
    table = Table(title=f"“{escape(query)}”", title_justify="left", title_style="bold")
    for title in ("rank", "before", "score"):
        table.add_column(title, justify="right")
    table.add_column("passage")
    for passage in ranked:
        score = "-" if passage.score is None else f"{passage.score:.3f}"
        # A terminal takes no lone surrogate.
        text = " ".join(passage.passage.encode("utf-8", "replace").decode().split())
        shown = text if len(text) <= 200 else text[:199] + "…"
        table.add_row(str(passage.rank), str(passage.previous_rank), score, escape(shown))
    return table


if __name__ == "__main__":
    main()
