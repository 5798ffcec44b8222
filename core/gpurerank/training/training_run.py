"""A training run from data to model: mined, trained, judged before and after, told in a card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from gpurerank.bi_encoder import BiEncoder
from gpurerank.cross_encoder import CrossEncoder
from gpurerank.errors import InputError
from gpurerank.late_interaction import LateInteraction
from gpurerank.models.blend import Blend
from gpurerank.models.loading import ModelSpec, load_blend
from gpurerank.ranking import logit_of
from gpurerank.training import trainable_model as trainable
from gpurerank.training import trainer
from gpurerank.training import training_sources as sources
from gpurerank.training.held_out_evaluator import HeldOutEvaluator
from gpurerank.training.hyperparameters import TrainOptions
from gpurerank.training.model_card import write_card
from gpurerank.training.training_lists import TrainingList, read_lists, write_lists
from gpurerank.training.training_report import TrainReport
from gpurerank.types import PairScorer, TextEmbedder

Tell = Callable[[str], None]


def train(
    options: TrainOptions, *, embedder: TextEmbedder | None = None, tell: Tell = lambda _: None
) -> TrainReport:
    """Trains a cross-encoder on one's own data; a run that was stopped goes on where it was.

    The output folder then holds ``model/``, ``report.json``, the mined lists and the checkpoints.

    Args:
        options: What is asked.
        embedder: Mines the negatives, in place of ``options.bi_encoder``.
        tell: Called with what is going on, a line at a time.

    Raises:
        InputError: An option is wrong, or the output folder holds another run.
        DataError: The data cannot be read, or teaches nothing.
        ModelError: A model cannot be loaded.
    """
    options.check()
    _claim(options)
    report = options.output / "report.json"
    if report.is_file():
        tell(f"this run is finished; delete {options.output} to train again")
        return TrainReport.read(report)
    blend = _blend(options)
    lists = _compared(options, blend, lambda: _mined(options, embedder, tell), tell)
    seed, device = options.seed, options.resolved_device()
    torch.manual_seed(seed)
    model = trainable.load_trainable(
        options.base,
        device=device,
        max_length=options.max_length,
        new_head=options.new_head,
        trust_remote_code=options.trust_remote_code,
    )
    judge = HeldOutEvaluator(lists.held_out, blend) if lists.held_out else None
    before = _judged_before(options, judge, model, tell)
    if options.lora_rank is not None:
        trainable.add_lora(model, options.lora_rank)
    log = trainer.fit(model, lists.training, judge, options, blend)
    found = TrainReport(
        model=options.model_folder,
        training_lists=len(lists.training),
        held_out_lists=len(lists.held_out),
        bi_encoder=judge.of_the_bi_encoder() if judge else None,
        before=before,
        after=judge.judge(model) if judge else None,
        notes=lists.notes,
        log=log,
    )
    trainable.save(model, options.model_folder, blend)
    write_card(options, blend, found)
    _write(report, found.told())
    return found


def _claim(options: TrainOptions) -> None:
    """Marks the output folder as this run's, so that another one does not go on from it."""
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "options.json"
    shown = {name: str(value) for name, value in asdict(options).items() if name not in _LOCAL}
    if path.is_file():
        told = json.loads(path.read_text(encoding="utf-8"))
        # An option that is newer than the run was not asked for then.
        asked = {f.name: str(f.default) for f in fields(options)} | told
        changed = [n for n in shown if asked[n] != shown[n]]
        if changed:
            raise InputError(
                f"{options.output} holds a run with another {', '.join(changed)}; choose another"
                " output folder, or delete it"
            )
    _write(path, shown)


# What changes where or how a run is shown, and not what it comes to.
_LOCAL = ("output", "show_progress", "device")


def _blend(options: TrainOptions) -> Blend | None:
    """How the served logit is blended: as asked, else as the base was trained."""
    if options.blend_weight is not None:
        return Blend(
            bi_encoder=options.bi_encoder,
            weight=options.blend_weight,
            token_share=options.blend_token_share,
            center=options.blend_center,
            scale=min(1.0, 12.0 / options.blend_weight)
            if options.blend_scale is None
            else options.blend_scale,
        )
    own = None if options.new_head else load_blend(ModelSpec(name=options.base))
    if own is not None and own.bi_encoder != options.bi_encoder:
        raise InputError(
            f"{options.base!r} was trained on top of the bi-encoder {own.bi_encoder!r}, not of"
            f" {options.bi_encoder!r}; name that one"
        )
    return own


def _compared(
    options: TrainOptions, blend: Blend | None, mine: Callable[[], sources.Lists], tell: Tell
) -> sources.Lists:
    """The lists with late interaction, where the blend asks for it."""
    if blend is None or not blend.token_share:
        return mine()
    # Before the mining, which takes long: a bi-encoder that cannot be read so is refused here.
    with closing(LateInteraction(blend.bi_encoder, device=options.device)) as late_interaction:
        lists = mine()
        if all(each.late for each in [*lists.training, *lists.held_out]):
            return lists
        tell("reading the lists token by token")
        training, held_out = (
            compared(each, late_interaction) for each in (lists.training, lists.held_out)
        )
    write_lists(options.output / "lists.jsonl", training)
    write_lists(options.output / "held_out.jsonl", held_out)
    return replace(lists, training=training, held_out=held_out)


def _mined(options: TrainOptions, embedder: TextEmbedder | None, tell: Tell) -> sources.Lists:
    """The lists of this run: mined now, or by an earlier start of it."""
    folder = options.output
    paths = [folder / name for name in ("lists.jsonl", "held_out.jsonl", "notes.json")]
    if all(path.is_file() for path in paths):
        tell("the lists are mined already")
        notes = json.loads(paths[2].read_text(encoding="utf-8"))
        return sources.Lists(list(read_lists(paths[0])), list(read_lists(paths[1])), notes)
    tell("mining negatives")
    lists = _mine(options, embedder)
    for note in lists.notes:
        tell(note)
    write_lists(paths[0], lists.training)
    write_lists(paths[1], lists.held_out)
    _write(paths[2], lists.notes)
    return lists


def _mine(options: TrainOptions, embedder: TextEmbedder | None) -> sources.Lists:
    if embedder is not None:
        lists = sources.mine(options, embedder)
    else:
        own = BiEncoder(options.bi_encoder, device=options.device)
        try:
            lists = sources.mine(options, own)
        finally:
            own.close()
    if options.teacher is None:
        return lists
    with_teacher = CrossEncoder(options.teacher, device=options.device)
    try:
        return replace(lists, training=taught(lists.training, with_teacher))
    finally:
        with_teacher.close()


def compared(
    lists: Sequence[TrainingList], late_interaction: LateInteraction
) -> list[TrainingList]:
    """The lists with the similarities that a blend with late interaction serves.

    The cosines are replaced too: late interaction reads more of a long passage than the bi-encoder.
    """
    pairs = [(each.query, passage) for each in lists for passage in each.passages]
    rows = late_interaction.similarities(pairs)  # two arrays, (pairs,)
    cosines, late = (iter(row.tolist()) for row in rows)
    return [
        replace(
            each,
            similarities=tuple(islice(cosines, len(each.passages))),
            late=tuple(islice(late, len(each.passages))),
        )
        for each in lists
    ]


def taught(lists: Sequence[TrainingList], teacher: PairScorer) -> list[TrainingList]:
    """The lists with a cross-encoder's logits in place of the bi-encoder's."""
    pairs = [(each.query, passage) for each in lists for passage in each.passages]
    logits = iter([logit_of(score) for score in teacher.score_pairs(pairs)])
    return [replace(each, teacher=tuple(next(logits) for _ in each.passages)) for each in lists]


def _judged_before(
    options: TrainOptions, judge: HeldOutEvaluator | None, model: Any, tell: Tell
) -> float | None:
    """What the base reaches; remembered, because a run that goes on has no base any more."""
    if judge is None:
        return None
    path = options.output / "before.json"
    if path.is_file():
        return float(json.loads(path.read_text(encoding="utf-8")))
    tell("judging the base")
    before = judge.judge(model)
    _write(path, before)
    return before


def _write(path: Path, value: object) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
