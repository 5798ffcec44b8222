"""``gpurerank train``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device
from gpurerank.errors import InputError
from gpurerank.training.hyperparameters import LOSSES, MiningOptions, TrainingSource, TrainOptions

if TYPE_CHECKING:
    from gpurerank.training.training_report import TrainReport


def _option(panel: str, help_text: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel, **settings)


Data = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        help="Training data: a folder in BEIR layout, or a .jsonl or .tsv file of (query, passage)"
        " pairs. FOLDER@SPLIT names a split, PATH:2000 takes 2,000 queries, PATH:2000:50000 also"
        " limits the passages.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the model, report and checkpoints.")
]

_MODELS = "Models"
Base = Annotated[str, _option(_MODELS, "Base cross-encoder: 'embedded', a folder or a hub id.")]
NewHead = Annotated[
    bool, _option(_MODELS, "Put a new head on the embedded bi-encoder.", "--new-head")
]
BiEncoder = Annotated[str, _option(_MODELS, "Bi-encoder that mines negatives and teaches.")]
Teacher = Annotated[
    str | None, _option(_MODELS, "Cross-encoder to distill.", show_default="the bi-encoder")
]
LoraRank = Annotated[
    int | None, _option(_MODELS, "Rank of LoRA adapters.", "--lora", show_default="all weights")
]

_LISTS = "Training lists"
Hard = Annotated[int, _option(_LISTS, "Hard negatives per query, by the bi-encoder.")]
Lexical = Annotated[int, _option(_LISTS, "Hard negatives per query, by BM25.")]
Medium = Annotated[int, _option(_LISTS, "Medium-hard negatives per query, ranks 21 to 200.")]
Random = Annotated[int, _option(_LISTS, "Random negatives per query.")]
EasyShare = Annotated[float, _option(_LISTS, "Share of easy queries to keep, 0 to 1.")]
PositiveDepth = Annotated[
    int | None,
    _option(_LISTS, "Maximum passages ranked above the positive.", show_default="no limit"),
]
Unlabelled = Annotated[int, _option(_LISTS, "Extra lists of short texts, with the teacher only.")]

_EVALUATION = "Held-out evaluation"
HeldOutShare = Annotated[
    float, _option(_EVALUATION, "Share of queries to hold out, 0 for none.", "--held-out")
]
HeldOutLimit = Annotated[int, _option(_EVALUATION, "Maximum held-out queries.")]
Patience = Annotated[
    int, _option(_EVALUATION, "Evaluations without improvement before stopping, 0 for no limit.")
]
SaveSteps = Annotated[
    int | None,
    _option(_EVALUATION, "Steps between checkpoints.", show_default="a tenth of an epoch"),
]

_OPTIMIZATION = "Optimization"
Loss = Annotated[str, _option(_OPTIMIZATION, f"Loss function: {', '.join(LOSSES)}.")]
TeacherWeight = Annotated[float, _option(_OPTIMIZATION, "Weight of distillation in the loss.")]
Epochs = Annotated[float, _option(_OPTIMIZATION, "Passes over the training lists.")]
ListsPerStep = Annotated[int, _option(_OPTIMIZATION, "Lists per optimizer step.")]
LearningRate = Annotated[float, _option(_OPTIMIZATION, "Peak learning rate.")]
MaxLength = Annotated[int, _option(_OPTIMIZATION, "Maximum tokens per pair.")]
Seed = Annotated[int, _option(_OPTIMIZATION, "Seed of all random choices.")]
Bfloat16 = Annotated[
    bool | None, _option(_OPTIMIZATION, "Multiply in bfloat16.", show_default="if supported")
]

_BLEND = "Blend with the bi-encoder"
BlendWeight = Annotated[
    float | None, _option(_BLEND, "Logits per unit of similarity.", show_default="as the base")
]
BlendTokenShare = Annotated[
    float, _option(_BLEND, "Share of late interaction in the similarity, 0 to 1.", "--token-share")
]
BlendCenter = Annotated[float, _option(_BLEND, "Similarity that adds nothing to the logit.")]
BlendScale = Annotated[
    float | None, _option(_BLEND, "Factor of the logit.", show_default="limits it to about 12")
]

_TRAIN = TrainOptions(sources=(), output=Path())
_MINING = _TRAIN.mining


def train(
    context: typer.Context,
    data: Data,
    output: Output,
    base: Base = _TRAIN.base,
    new_head: NewHead = _TRAIN.new_head,
    bi_encoder: BiEncoder = _TRAIN.bi_encoder,
    teacher: Teacher = _TRAIN.teacher,
    lora_rank: LoraRank = _TRAIN.lora_rank,
    device: Device = _TRAIN.device,
    hard: Hard = _MINING.hard,
    lexical: Lexical = _MINING.lexical,
    medium: Medium = _MINING.medium,
    random: Random = _MINING.random,
    easy_share: EasyShare = _MINING.easy_share,
    positive_depth: PositiveDepth = _MINING.positive_depth,
    unlabelled: Unlabelled = _TRAIN.unlabelled,
    held_out_share: HeldOutShare = _TRAIN.held_out_share,
    held_out_limit: HeldOutLimit = _TRAIN.held_out_limit,
    patience: Patience = _TRAIN.patience,
    save_steps: SaveSteps = _TRAIN.save_steps,
    loss: Loss = _TRAIN.loss,
    teacher_weight: TeacherWeight = _TRAIN.teacher_weight,
    epochs: Epochs = _TRAIN.epochs,
    lists_per_step: ListsPerStep = _TRAIN.lists_per_step,
    learning_rate: LearningRate = _TRAIN.learning_rate,
    max_length: MaxLength = _TRAIN.max_length,
    seed: Seed = _TRAIN.seed,
    bfloat16: Bfloat16 = _TRAIN.bfloat16,
    blend_weight: BlendWeight = _TRAIN.blend_weight,
    blend_token_share: BlendTokenShare = _TRAIN.blend_token_share,
    blend_center: BlendCenter = _TRAIN.blend_center,
    blend_scale: BlendScale = _TRAIN.blend_scale,
) -> None:
    """Train a cross-encoder on your data; the same command continues a run that was stopped."""
    # The parameters are named as the fields: what a field gets is declared in one place.
    values = context.params | {"sources": tuple(map(TrainingSource.parse, data)), "output": output}
    options = TrainOptions(
        mining=MiningOptions(**_only_fields(MiningOptions, values)),
        **_only_fields(TrainOptions, values),
    )
    options.check()
    try:
        report = _run(options)
    except KeyboardInterrupt:
        err.print("stopped; the same command continues from the last checkpoint")
        raise typer.Exit(130) from None
    out.print(_table(report))
    out.print(f"trained model: {escape(str(report.model))}", soft_wrap=True)


def _only_fields(options_class: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    return {f.name: values[f.name] for f in fields(options_class) if f.name in values}


def _run(options: TrainOptions) -> TrainReport:
    with err.status("loading"):
        try:
            from gpurerank.training.training_run import train as run_training
        except ImportError as error:
            raise InputError(
                f"training needs the package {error.name}: pip install 'gpurerank[train]'"
            ) from error
    return run_training(options, on_message=lambda line: err.print(escape(line), soft_wrap=True))


def _table(report: TrainReport) -> Table:
    title = f"nDCG@10 over {report.held_out_lists:,} held-out queries"
    table = Table("bi-encoder", "base", "trained", title=title)
    values = (report.bi_encoder, report.before, report.after)
    table.add_row(*("-" if value is None else f"{value:.4f}" for value in values))
    return table
