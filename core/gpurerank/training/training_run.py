"""A training run: mines lists, trains, evaluates before and after, and writes a model card."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from sentence_transformers import CrossEncoder

from gpurerank.bi_encoder import BiEncoder
from gpurerank.errors import InputError
from gpurerank.late_interaction import LateInteraction
from gpurerank.models import devices
from gpurerank.models.blend import Blend
from gpurerank.models.loading import ModelSpec, load_blend
from gpurerank.reranker import Reranker
from gpurerank.training.held_out_evaluator import HeldOutEvaluator
from gpurerank.training.hyperparameters import TrainOptions
from gpurerank.training.model_card import write_model_card
from gpurerank.training.run_folder import RunFolder
from gpurerank.training.trainable_model import add_lora, load_trainable, save_trained
from gpurerank.training.trainer import fit
from gpurerank.training.training_data import TrainingData, mine_training_data
from gpurerank.training.training_lists import with_late_interaction, with_teacher_logits
from gpurerank.training.training_report import TrainReport
from gpurerank.types import TextEmbedder

MessageCallback = Callable[[str], None]

# Blended logits beyond this saturate the sigmoid: good passages would all score 1.
_LARGEST_BLENDED_LOGIT = 12.0


def train(
    options: TrainOptions,
    *,
    embedder: TextEmbedder | None = None,
    on_message: MessageCallback = lambda message: None,
) -> TrainReport:
    """Trains a cross-encoder on your data; called again, it continues a run that was stopped.

    The output folder then holds ``model/``, ``report.json``, the mined lists and the checkpoints.

    Args:
        options: The options of the run.
        embedder: Mines the negatives in place of ``options.bi_encoder``.
        on_message: Called with one line of text at the start of each phase.

    Raises:
        InputError: An option is wrong, or the output folder holds another run.
        DataError: The data cannot be read, or no query has both a positive and a negative.
        ModelError: A model cannot be loaded.
    """
    options.check()
    folder = RunFolder(options.output)
    folder.claim(options)
    report_path = options.output / "report.json"
    if report_path.is_file():
        on_message(f"this run is finished; delete {options.output} to train again")
        return TrainReport.read(report_path)
    run = _Run(options, folder, choose_blend(options), on_message)
    # Before mining, which takes long: a base that does not exist is refused at once.
    model = run.load_base()
    report = run.train_model(model, run.load_or_mine(embedder))
    write_model_card(options, run.blend, report)
    folder.save("report", report.to_dict())
    return report


def choose_blend(options: TrainOptions) -> Blend | None:
    """The blend that will be served: from the options, otherwise the base's; None for no blend.

    Raises:
        InputError: The base was trained with another bi-encoder, or the loss cannot train a blend.
    """
    blend = None
    if options.blend_weight is not None:
        limit = min(1.0, _LARGEST_BLENDED_LOGIT / options.blend_weight)
        blend = Blend(
            bi_encoder=options.bi_encoder,
            weight=options.blend_weight,
            token_share=options.blend_token_share,
            center=options.blend_center,
            scale=limit if options.blend_scale is None else options.blend_scale,
        )
    elif not options.new_head:
        blend = load_blend(ModelSpec(name=options.base))
    if blend is not None and blend.bi_encoder != options.bi_encoder:
        raise InputError(
            f"the base {options.base!r} was trained on top of the bi-encoder"
            f" {blend.bi_encoder!r}, but bi_encoder is {options.bi_encoder!r}; use the former"
        )
    if blend is not None and options.loss != "listwise":
        raise InputError(
            f"the loss {options.loss!r} cannot train a blend with the bi-encoder; use 'listwise'"
        )
    return blend


@dataclass(frozen=True, slots=True)
class _Run:
    options: TrainOptions
    folder: RunFolder
    blend: Blend | None
    on_message: MessageCallback

    def load_base(self) -> CrossEncoder:
        torch.manual_seed(self.options.seed)  # a new head is random
        return load_trainable(
            self.options.base,
            device=str(devices.resolve_device(self.options.device)),
            max_length=self.options.max_length,
            new_head=self.options.new_head,
            trust_remote_code=self.options.trust_remote_code,
        )

    def load_or_mine(self, embedder: TextEmbedder | None) -> TrainingData:
        """The lists of this run, with late interaction if the blend uses it."""
        if self.blend is None or not self.blend.token_share:
            return self._load_or_mine_cosines(embedder)
        device = self.options.device
        # Also before mining: not every bi-encoder can be read token by token.
        with closing(LateInteraction(self.blend.bi_encoder, device=device)) as late_interaction:
            data = self._load_or_mine_cosines(embedder)
            if all(training_list.late for training_list in [*data.training, *data.held_out]):
                return data
            self.on_message("computing late interaction")
            data = replace(
                data,
                training=with_late_interaction(data.training, late_interaction),
                held_out=with_late_interaction(data.held_out, late_interaction),
            )
        self.folder.save_data(data)
        return data

    def _load_or_mine_cosines(self, embedder: TextEmbedder | None) -> TrainingData:
        options = self.options
        data = self.folder.load_data()
        if data is not None:
            self.on_message("using the lists that an earlier start of this run mined")
            return data
        self.on_message("mining negatives")
        if embedder is not None:
            data = mine_training_data(options, embedder)
        else:
            with closing(BiEncoder(options.bi_encoder, device=options.device)) as bi_encoder:
                data = mine_training_data(options, bi_encoder)
        if options.teacher is not None:
            self.on_message(f"scoring the lists with the teacher {options.teacher}")
            # A Reranker, because the teacher may be a blend itself.
            with Reranker(options.teacher, device=options.device) as teacher:
                data = replace(data, training=with_teacher_logits(data.training, teacher))
        for note in data.notes:
            self.on_message(note)
        self.folder.save_data(data)
        return data

    def train_model(self, model: CrossEncoder, data: TrainingData) -> TrainReport:
        """Trains on mined lists, evaluates before and after, and saves the model."""
        options = self.options
        evaluator = HeldOutEvaluator(data.held_out, self.blend) if data.held_out else None
        before = None if evaluator is None else self._evaluate_base(evaluator, model)
        if options.lora_rank is not None:
            add_lora(model, options.lora_rank)
        self.on_message(f"training on {len(data.training):,} lists")
        log = fit(model, data.training, evaluator, options, self.blend)
        save_trained(model, options.model_folder, self.blend)
        return TrainReport(
            model=options.model_folder,
            training_lists=len(data.training),
            held_out_lists=len(data.held_out),
            bi_encoder=None if evaluator is None else evaluator.evaluate_bi_encoder(),
            before=before,
            after=None if evaluator is None else evaluator.evaluate(model),
            notes=data.notes,
            log=log,
        )

    def _evaluate_base(self, evaluator: HeldOutEvaluator, model: CrossEncoder) -> float:
        # Saved, so that a continued run does not spend the time again.
        ndcg: float | None = self.folder.load("before")
        if ndcg is None:
            self.on_message("evaluating the base")
            ndcg = evaluator.evaluate(model)
            self.folder.save("before", ndcg)
        return ndcg
