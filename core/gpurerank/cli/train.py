"""``gpurerank train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device
from gpurerank.errors import InputError

if TYPE_CHECKING:
    from gpurerank.training.training_report import TrainReport


def train(
    data: Annotated[
        list[str],
        typer.Argument(
            help="PATH[@SPLIT][:QUERIES[:PASSAGES]]: a folder in BEIR layout, or a .jsonl or .tsv"
            " file of (query, passage)."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    base: Annotated[str, typer.Option(help="What is tuned: 'embedded', a folder or a hub id.")] = (
        "embedded"
    ),
    new_head: Annotated[
        bool, typer.Option("--new-head", help="Begin anew from the embedded bi-encoder.")
    ] = False,
    bi_encoder: Annotated[str, typer.Option(help="Mines negatives, and teaches.")] = "embedded",
    teacher: Annotated[
        str | None, typer.Option(help="A stronger cross-encoder that teaches.")
    ] = None,
    blend_weight: Annotated[
        float | None, typer.Option(help="Train on top of the bi-encoder: its weight.")
    ] = None,
    token_share: Annotated[
        float, typer.Option(help="Of that weight, late interaction's share.", min=0, max=1)
    ] = 0.0,
    blend_center: Annotated[
        float, typer.Option(help="The similarity that says nothing either way.")
    ] = 0.55,
    blend_scale: Annotated[
        float | None, typer.Option(help="Of the blended logit; else so that scores stay apart.")
    ] = None,
    loss: Annotated[str, typer.Option(help="'listwise', 'lambda' or 'pairwise'.")] = "listwise",
    hard: Annotated[int, typer.Option(help="Hard negatives of a query.", min=0)] = 3,
    lexical: Annotated[int, typer.Option(help="Negatives by BM25.", min=0)] = 1,
    middling: Annotated[int, typer.Option(help="Middling negatives.", min=0)] = 2,
    random: Annotated[int, typer.Option(help="Random negatives.", min=0)] = 1,
    easy_share: Annotated[
        float, typer.Option(help="Share kept of queries that are easy already.", min=0, max=1)
    ] = 1.0,
    positive_depth: Annotated[
        int | None, typer.Option(help="Leave out queries whose answer is found no better.")
    ] = None,
    unlabelled: Annotated[int, typer.Option(help="Lists of short texts.", min=0)] = 0,
    teacher_weight: Annotated[float, typer.Option(help="Weight of the teacher.", min=0)] = 0.3,
    held_out: Annotated[float, typer.Option(help="Share of queries to judge by.")] = 0.1,
    held_out_limit: Annotated[int, typer.Option(help="Queries held out at most.", min=0)] = 200,
    epochs: Annotated[float, typer.Option(help="Passes over the lists.")] = 1.0,
    lists_per_step: Annotated[int, typer.Option(help="Lists of one step.", min=1)] = 16,
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 2e-5,
    max_length: Annotated[int, typer.Option(help="Tokens of a pair.", min=8)] = 256,
    lora: Annotated[int | None, typer.Option(help="Rank of LoRA; else all weights.")] = None,
    patience: Annotated[
        int, typer.Option(help="Judgements without a better one that end it; 0 for never.", min=0)
    ] = 3,
    save_steps: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    seed: Annotated[int, typer.Option(help="Decides every draw.")] = 20261121,
    bfloat16: Annotated[
        bool | None, typer.Option(help="Multiply in bfloat16; else where the hardware does.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Tune a cross-encoder to your data; started again it goes on where it was stopped."""
    with err.status("loading"):
        try:
            from gpurerank.training.hyperparameters import LOSSES, Source, TrainOptions
            from gpurerank.training.negative_mining import Mining
            from gpurerank.training.training_run import train as run
        except ImportError as error:
            raise InputError(
                f"training needs the package {error.name}: pip install 'gpurerank[train]'"
            ) from error
    named = next((each for each in LOSSES if each == loss), None)
    if named is None:
        raise InputError(f"--loss is {loss!r}; it must be one of {', '.join(LOSSES)}")
    mining = Mining(
        hard=hard,
        lexical=lexical,
        middling=middling,
        random=random,
        easy_share=easy_share,
        positive_depth=positive_depth,
    )
    options = TrainOptions(
        sources=tuple(Source.parse(text) for text in data),
        output=output,
        base=base,
        new_head=new_head,
        bi_encoder=bi_encoder,
        teacher=teacher,
        blend_weight=blend_weight,
        blend_token_share=token_share,
        blend_center=blend_center,
        blend_scale=blend_scale,
        loss=named,
        teacher_weight=teacher_weight,
        unlabelled=unlabelled,
        mining=mining,
        held_out_share=held_out,
        held_out_limit=held_out_limit,
        epochs=epochs,
        lists_per_step=lists_per_step,
        learning_rate=learning_rate,
        max_length=max_length,
        lora_rank=lora,
        patience=patience or None,
        save_steps=save_steps,
        seed=seed,
        bfloat16=bfloat16,
        device=device,
    )
    try:
        report = run(options, tell=lambda line: err.print(escape(line), soft_wrap=True))
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on from the last checkpoint")
        raise typer.Exit(130) from None
    out.print(_table(report))
    out.print(f"the model: {escape(str(report.model))}", soft_wrap=True)


def _table(report: TrainReport) -> Table:
    title = f"nDCG@10 over {report.held_out_lists:,} held-out queries"
    table = Table("bi-encoder", "before", "after", title=title)
    values = (report.bi_encoder, report.before, report.after)
    table.add_row(*("-" if value is None else f"{value:.4f}" for value in values))
    return table
