"""``gpurerank rank``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gpurerank.cli.console import out
from gpurerank.cli.options import BaseUrl, Device, Dtype, Model
from gpurerank.errors import DataError, InputError
from gpurerank.text_files import decode_lines, read_lines

if TYPE_CHECKING:
    from gpurerank.types import RankedPassage


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
    if passages:
        _check_no_file(passages)
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


def _check_no_file(passages: list[str]) -> None:
    """A lone argument that names a file was meant to be read: one passage has no rank."""
    lone = passages[0] if len(passages) == 1 else ""
    try:
        is_file = Path(lone).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null byte
        return
    if is_file:
        raise InputError(f"{lone!r} is a file; give it with --file to rank what it holds")


def _read_passages(file: Path | None) -> list[str]:
    if file is None and sys.stdin.isatty():
        raise InputError("no passages: give them as arguments, with --file, or through a pipe")
    lines = _read_stdin() if file is None else read_lines(file)
    passages = [_passage(line, number) for number, line in enumerate(lines, 1)]
    found = [passage for passage in passages if passage.strip()]
    if not found:
        raise DataError(f"{file or 'standard input'} holds no passage")
    return found


def _read_stdin() -> Iterable[str]:
    # As bytes, so that the encoding does not depend on the terminal's.
    binary = getattr(sys.stdin, "buffer", None)
    if binary is None:
        return sys.stdin.read().split("\n")
    return decode_lines(binary, "standard input")


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
