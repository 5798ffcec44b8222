"""``gpurerank eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device, Dtype, Model
from gpurerank.errors import InputError


def evaluate(
    folder: Annotated[
        Path, typer.Argument(help="corpus.jsonl, queries.jsonl and qrels/*.tsv, as BEIR has them.")
    ],
    split: Annotated[str, typer.Option(help="Which qrels/<split>.tsv.")] = "test",
    run: Annotated[
        Path | None, typer.Option(help="Candidates from a TREC run file, not from a first stage.")
    ] = None,
    first_stage: Annotated[
        str, typer.Option(help="What finds the candidates: 'bm25' or 'bi-encoder'.")
    ] = "bm25",
    language: Annotated[
        str, typer.Option(help="Whose stop words and stems BM25 knows, such as 'german'; 'none'.")
    ] = "english",
    contender: Annotated[
        list[str] | None,
        typer.Option(
            "--contender",
            "-c",
            help="May be repeated: bi-encoder, cross-encoder, cascade:20, rrf,"
            " weighted:bi-encoder=1+cross-encoder=2, http://SERVER; ':MODEL' names a model.",
        ),
    ] = None,
    depth: Annotated[int, typer.Option(help="Candidates that are reranked.", min=1)] = 50,
    depths: Annotated[
        str | None, typer.Option(help="For the depth curve, between commas: 10,20,50,100.")
    ] = None,
    queries: Annotated[
        int | None, typer.Option(help="So many, drawn at random with a fixed seed.", min=1)
    ] = None,
    model: Model = "embedded",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report and the JSON.")
    ] = Path("gpurerank-eval"),
    seed: Annotated[int, typer.Option(help="Of the sample, the test and the intervals.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Does reranking help your data, which kind, and how deep?"""
    with err.status("loading"):
        from gpurerank.evaluation.command import Asked
        from gpurerank.evaluation.command import run as compare
        from gpurerank.evaluation.options import EvalOptions

    options = EvalOptions(
        depth=depth, depths=_numbers(depths), model=model, device=device, dtype=dtype, seed=seed
    )
    asked = Asked(
        folder=folder,
        split=split,
        run=run,
        first_stage=first_stage,
        language=language,
        contenders=tuple(contender or ()),
        queries=queries,
        output=output,
        options=options,
    )
    try:
        found = compare(asked, out, err)
    except KeyboardInterrupt:
        err.print("interrupted before the first queries were finished")
        raise typer.Exit(130) from None
    if found.interrupted:
        raise typer.Exit(130)


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--depths is {text!r}; it must be numbers between commas") from None
