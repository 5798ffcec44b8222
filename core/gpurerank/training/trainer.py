"""Setup of sentence-transformers' trainer: data set, loss, checkpoints and early stopping."""

from __future__ import annotations

from collections.abc import Iterable
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

from gpurerank.models import devices
from gpurerank.models.blend import Blend
from gpurerank.training.held_out_evaluator import METRIC, HeldOutEvaluator
from gpurerank.training.hyperparameters import TrainOptions
from gpurerank.training.listwise_loss import ListwiseDistillationLoss
from gpurerank.training.training_lists import TrainingList

_PAIRS_PER_PASS = 16
_CHECKPOINTS_PER_EPOCH = 10


def build_dataset(
    lists: Iterable[TrainingList], *, blend: Blend | None = None, grades_only: bool = False
) -> Dataset:
    """Builds a data set with the columns ``query``, ``passages`` and ``labels``.

    A passage's label is (grade, similarity as the blend weighs it, teacher's logit) for
    ``ListwiseDistillationLoss``, and the grade alone for sentence-transformers' losses.
    """
    rows = []
    for training_list in lists:
        labels: list[Any] = list(training_list.grades)
        if not grades_only:
            similarities = training_list.blend_similarities(blend).tolist()
            columns = zip(training_list.grades, similarities, training_list.teacher, strict=True)
            labels = [list(label) for label in columns]
        passages = list(training_list.passages)
        rows.append({"query": training_list.query, "passages": passages, "labels": labels})
    return Dataset.from_list(rows)


def build_loss(options: TrainOptions, model: CrossEncoder, blend: Blend | None) -> nn.Module:
    """Builds the loss that the options name; only "listwise" takes a blend."""
    if options.loss == "listwise":
        return ListwiseDistillationLoss(
            model,
            blend=blend,
            teacher_weight=options.teacher_weight,
            pointwise_weight=options.pointwise_weight,
            pairs_per_pass=_PAIRS_PER_PASS,
        )
    if options.loss == "lambda":
        return losses.LambdaLoss(model, mini_batch_size=_PAIRS_PER_PASS)
    return losses.RankNetLoss(model, mini_batch_size=_PAIRS_PER_PASS)


def fit(
    model: CrossEncoder,
    lists: list[TrainingList],
    evaluator: HeldOutEvaluator | None,
    options: TrainOptions,
    blend: Blend | None,
) -> list[dict[str, Any]]:
    """Trains a model in place, from the last checkpoint in the output folder if there is one.

    With an evaluator, ``model`` ends up with the weights of the best checkpoint.

    Returns:
        The trainer's log: loss, learning rate and nDCG@10 by step.
    """
    is_listwise = options.loss == "listwise"
    steps_per_epoch = max(1, -(-len(lists) // options.lists_per_step))
    callbacks: list[Any] = []
    if evaluator is not None and options.patience:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=options.patience))
    trainer = CrossEncoderTrainer(
        model=model,
        args=_training_arguments(options, steps_per_epoch, evaluate=evaluator is not None),
        train_dataset=build_dataset(lists, blend=blend, grades_only=not is_listwise),
        loss=build_loss(options, model, blend),
        evaluator=evaluator,
        callbacks=callbacks,
    )
    checkpoints = options.checkpoints
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    return list(trainer.state.log_history)


def _training_arguments(
    options: TrainOptions, steps_per_epoch: int, *, evaluate: bool
) -> CrossEncoderTrainingArguments:
    save_steps = options.save_steps or max(1, steps_per_epoch // _CHECKPOINTS_PER_EPOCH)
    return CrossEncoderTrainingArguments(
        output_dir=str(options.checkpoints),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.lists_per_step,
        learning_rate=options.learning_rate,
        warmup_steps=0.05,  # below 1: a share of all steps
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        bf16=_multiplies_in_bfloat16(options),
        use_cpu=str(devices.resolve_device(options.device)) == "cpu",
        save_steps=save_steps,
        eval_strategy="steps" if evaluate else "no",
        # The best checkpoint can only be loaded if every evaluated state was saved.
        eval_steps=save_steps if evaluate else None,
        load_best_model_at_end=evaluate,
        metric_for_best_model=METRIC if evaluate else None,
        greater_is_better=True if evaluate else None,
        # The best checkpoint, and the last one, from which a stopped run continues.
        save_total_limit=2,
        logging_steps=max(1, save_steps // 5),
        seed=options.seed,
        disable_tqdm=not options.show_progress,
        report_to="none",
    )


def _multiplies_in_bfloat16(options: TrainOptions) -> bool:
    if options.bfloat16 is not None:
        return options.bfloat16
    dtype = devices.resolve_dtype("auto", devices.resolve_device(options.device))
    return devices.dtype_name(dtype) == "bfloat16"
