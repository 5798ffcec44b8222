"""sentence-transformers' trainer over training lists, with checkpoints and early stopping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import (
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    losses,
)
from torch import nn
from transformers import EarlyStoppingCallback
from transformers.trainer_utils import get_last_checkpoint

from gpurerank.errors import InputError
from gpurerank.models.blend import Blend
from gpurerank.training.held_out_evaluator import METRIC, HeldOutEvaluator
from gpurerank.training.hyperparameters import TrainOptions
from gpurerank.training.listwise_loss import ListwiseDistillationLoss
from gpurerank.training.training_lists import TrainingList

_PAIRS_PER_PASS = 16


def as_dataset(
    lists: Iterable[TrainingList], *, blend: Blend | None = None, grades_only: bool = False
) -> Dataset:
    """Columns ``query``, ``passages`` and ``labels``, as the losses of this package read them.

    A label is (grade, similarity as the blend takes it, teacher's logit), or for
    sentence-transformers' own losses the grade alone.
    """

    def rows() -> Iterator[dict[str, object]]:
        for each in lists:
            labels: list[Any] = list(each.grades)
            if not grades_only:
                similarities = each.blended(blend).tolist()
                columns = zip(each.grades, similarities, each.teacher, strict=True)
                labels = [list(label) for label in columns]
            yield {"query": each.query, "passages": list(each.passages), "labels": labels}

    return Dataset.from_list(list(rows()))


def loss_of(options: TrainOptions, model: CrossEncoder, blend: Blend | None) -> nn.Module:
    """The loss that the options name.

    Raises:
        InputError: A blend is to be trained with a loss that knows no blends.
    """
    if options.loss == "listwise":
        return ListwiseDistillationLoss(
            model,
            blend=blend,
            teacher_weight=options.teacher_weight,
            pointwise_weight=options.pointwise_weight,
            pairs_per_pass=_PAIRS_PER_PASS,
        )
    if blend is not None:
        raise InputError(
            f"the loss {options.loss!r} cannot train a blend with the bi-encoder; take 'listwise'"
        )
    if options.loss == "lambda":
        return losses.LambdaLoss(model, mini_batch_size=_PAIRS_PER_PASS)
    return losses.RankNetLoss(model, mini_batch_size=_PAIRS_PER_PASS)


def fit(
    model: CrossEncoder,
    lists: list[TrainingList],
    held_out: HeldOutEvaluator | None,
    options: TrainOptions,
    blend: Blend | None,
) -> list[dict[str, Any]]:
    """Trains; goes on from the last checkpoint in the output folder.

    With held-out lists the best checkpoint's weights are in ``model`` at the end.

    Returns:
        The trainer's log: loss, learning rate and held-out measure by step.
    """
    listwise = options.loss == "listwise"
    steps = max(1, -(-len(lists) // options.lists_per_step))
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments(options, steps, judged=held_out is not None),
        train_dataset=as_dataset(lists, blend=blend, grades_only=not listwise),
        loss=loss_of(options, model, blend),
        evaluator=held_out,
        callbacks=_callbacks(options, judged=held_out is not None),
    )
    checkpoints = options.checkpoints
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    return list(trainer.state.log_history)


def arguments(
    options: TrainOptions, steps_per_epoch: int, *, judged: bool
) -> CrossEncoderTrainingArguments:
    """The trainer's own options; about ten checkpoints an epoch."""
    save_steps = options.save_steps or max(1, steps_per_epoch // 10)
    return CrossEncoderTrainingArguments(
        output_dir=str(options.checkpoints),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.lists_per_step,
        learning_rate=options.learning_rate,
        warmup_steps=0.05,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        bf16=options.in_bfloat16(),
        use_cpu=options.resolved_device() == "cpu",
        save_steps=save_steps,
        eval_strategy="steps" if judged else "no",
        eval_steps=save_steps if judged else None,
        load_best_model_at_end=judged,
        metric_for_best_model=METRIC if judged else None,
        greater_is_better=True if judged else None,
        save_total_limit=2,
        logging_steps=max(1, save_steps // 5),
        seed=options.seed,
        disable_tqdm=not options.show_progress,
        report_to="none",
    )


def _callbacks(options: TrainOptions, *, judged: bool) -> list[Any]:
    if not judged or options.patience is None:
        return []
    return [EarlyStoppingCallback(early_stopping_patience=options.patience)]
