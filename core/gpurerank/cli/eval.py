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
        Path,
        typer.Argument(
            help="Folder in the BEIR layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv."
        ),
    ],
    split: Annotated[
        str, typer.Option(help="Relevance judgements to use: the name of qrels/<split>.tsv.")
    ] = "test",
    run: Annotated[
        Path | None,
        typer.Option(help="TREC run file with the candidates, in place of a first stage."),
    ] = None,
    first_stage: Annotated[
        str,
        typer.Option(help="How candidates are retrieved: 'bm25' or 'bi-encoder' (embedded model)."),
    ] = "bm25",
    language: Annotated[
        str,
        typer.Option(
            help="Language of BM25's stop words and stemmer, such as 'german'; 'none' keeps words"
            " as they are."
        ),
    ] = "english",
    contender: Annotated[
        list[str] | None,
        typer.Option(
            "--contender",
            "-c",
            help="Ranker to compare; repeat for several: bi-encoder, cross-encoder, cascade:20,"
            " rrf, weighted:PART=1+PART=2, http://SERVER. A model is named as in"
            " cross-encoder:MODEL. By default bi-encoder, cross-encoder, cascade:20 and rrf.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option(help="Candidates per query that each contender reranks.", min=1)
    ] = 50,
    depths: Annotated[
        str | None,
        typer.Option(
            help="Further numbers of candidates to compare, comma-separated. By default 10 and 20,"
            " as far as they are below --depth.",
            show_default=False,
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(
            help="Number of queries, drawn at random. By default all that have judgements.",
            min=1,
            show_default=False,
        ),
    ] = None,
    model: Model = "embedded",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the HTML report and the JSON file.")
    ] = Path("gpurerank-eval"),
    seed: Annotated[
        int,
        typer.Option(help="Random seed of the query sample, the significance test and intervals."),
    ] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Compare rerankers on your own judged queries, and recommend one.

    Prints tables and a recommendation, and writes an HTML report and a JSON file.
    """
    # The imports take seconds; --help and mistakes in the options do not wait for them.
    with err.status("loading"):
        from gpurerank.evaluation.eval_options import EvalOptions
        from gpurerank.evaluation.folder_evaluation import FolderEvaluation, evaluate_folder

    arguments = FolderEvaluation(
        folder=folder,
        split=split,
        run=run,
        first_stage=first_stage,
        language=language,
        contenders=tuple(contender or ()),
        queries=queries,
        output=output,
        options=EvalOptions(
            depth=depth,
            depths=_parse_depths(depths),
            model=model,
            device=device,
            dtype=dtype,
            seed=seed,
        ),
    )
    try:
        result = evaluate_folder(arguments, out, err)
    except KeyboardInterrupt:
        err.print("interrupted before the first queries were finished")
        raise typer.Exit(130) from None
    # An interrupted run writes a report, and still has the exit status of Ctrl-C for scripts.
    if result.interrupted:
        raise typer.Exit(130)


def _parse_depths(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(
            f"--depths is {text!r}; it must be whole numbers separated by commas"
        ) from None
