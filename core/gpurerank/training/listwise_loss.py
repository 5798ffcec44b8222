"""A listwise loss that learns from relevance labels and from a teacher's logits together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn
from torch.nn import functional

from gpurerank.models.blend import Blend

# Logit of the padding behind a short list. Finite, because 0 * -inf would be NaN in the sums.
PADDING_LOGIT = -1e9


class ListwiseDistillationLoss(nn.Module):
    """Cross-entropy of the relevant passages, and distillation on all others.

    A labelled list has three terms: the listwise cross-entropy of its positives (ListNet's top one,
    Cao et al., ICML 2007); the KL divergence from the teacher's distribution over the negatives
    alone, so that the teacher never contradicts a label; and a pointwise binary cross-entropy that
    fixes the level of the logits, which a listwise loss leaves open. An unlabelled list has the KL
    divergence over all passages.

    The training column ``labels`` holds (grade, similarity, teacher's logit) for each passage. A
    grade over 0 marks a positive; a list without one is unlabelled.

    Args:
        model: A cross-encoder with one label.
        blend: Trains the model's logit blended with the bi-encoder's similarity, so that the model
            learns what the bi-encoder lacks. None trains the model's logit alone.
        teacher_weight: Weight of the KL divergence in a labelled list.
        pointwise_weight: Weight of the pointwise term.
        pairs_per_pass: Pairs per forward pass; pairs are sorted by length to reduce padding.
    """

    def __init__(
        self,
        model: CrossEncoder,
        *,
        blend: Blend | None = None,
        teacher_weight: float = 0.5,
        pointwise_weight: float = 0.2,
        pairs_per_pass: int = 16,
    ) -> None:
        super().__init__()
        self.model = model
        self.blend = blend
        self.teacher_weight = teacher_weight
        self.pointwise_weight = pointwise_weight
        self.pairs_per_pass = pairs_per_pass

    def forward(
        self,
        inputs: tuple[list[str], list[list[str]]],
        labels: list[Tensor],
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Mean loss over the lists of a batch.

        Args:
            inputs: Queries, and the passages of each.
            labels: One tensor of shape (passages, 3) per list.
            prompt: Prompt of the tokenizer, if any.
            task: Task of the model, if any.
        """
        queries, passages = inputs
        sizes = [len(passages_of_query) for passages_of_query in passages]
        pairs = [
            (query, passage)
            for query, passages_of_query in zip(queries, passages, strict=True)
            for passage in passages_of_query
        ]
        pair_logits = self._logits(pairs, prompt, task)  # (pairs,)
        columns = torch.cat(labels).to(pair_logits)  # (pairs, 3)
        logits = pad_lists(pair_logits, sizes, PADDING_LOGIT)  # this and below: (lists, longest)
        positives = pad_lists(columns[:, 0], sizes, 0.0) > 0
        similarities = pad_lists(columns[:, 1], sizes, 0.0)
        teacher = pad_lists(columns[:, 2], sizes, PADDING_LOGIT)
        if self.blend is not None:
            logits = self.blend.scale * (
                logits + self.blend.weight * (similarities - self.blend.center)
            )
        return self.loss(logits, teacher, positives)

    def loss(self, logits: Tensor, teacher: Tensor, positives: Tensor) -> Tensor:
        """Mean loss over lists.

        Args:
            logits: The model's logits, shape (lists, longest).
            teacher: The teacher's logits, same shape; ``PADDING_LOGIT`` marks the padding.
            positives: Which passages are relevant, same shape.
        """
        is_passage = teacher > PADDING_LOGIT
        # In an unlabelled list every passage counts as a negative.
        negatives = is_passage & ~positives
        positive_count = positives.sum(dim=1).clamp(min=1)  # (lists,); never divides by 0
        entropy = -(logits.log_softmax(dim=1) * positives).sum(dim=1) / positive_count
        divergence = functional.kl_div(
            logits.masked_fill(~negatives, PADDING_LOGIT).log_softmax(dim=1),
            teacher.masked_fill(~negatives, PADDING_LOGIT).softmax(dim=1),
            reduction="none",
        ).sum(dim=1)
        pointwise = functional.binary_cross_entropy_with_logits(
            logits, positives.to(logits), reduction="none"
        )
        # The positives of a list weigh as much as all its negatives together.
        positive_weight = negatives.sum(dim=1, keepdim=True) / positive_count[:, None]  # (lists, 1)
        weights = torch.where(positives, positive_weight, 1.0) * is_passage
        pointwise = (pointwise * weights).sum(dim=1) / weights.sum(dim=1)
        labelled_loss = (
            entropy + self.teacher_weight * divergence + self.pointwise_weight * pointwise
        )
        return torch.where(positives.any(dim=1), labelled_loss, divergence).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Options that sentence-transformers writes into its records of a training."""
        return {
            "blend": None if self.blend is None else asdict(self.blend),
            "teacher_weight": self.teacher_weight,
            "pointwise_weight": self.pointwise_weight,
        }

    def _logits(self, pairs: list[tuple[str, str]], prompt: str | None, task: str | None) -> Tensor:
        """The model's logits in input order, shape (pairs,), float32, with gradients."""
        # By characters, which are close enough to tokens to keep padding low.
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        outputs = []
        for start in range(0, len(order), self.pairs_per_pass):
            batch = [pairs[i] for i in order[start : start + self.pairs_per_pass]]
            features = {
                name: value.to(self.model.device) if isinstance(value, Tensor) else value
                for name, value in self.model.preprocess(batch, prompt=prompt, task=task).items()
            }
            outputs.append(self.model(features)["scores"].view(-1).float())
        # argsort inverts a permutation: it leads from input order back to the sorted rows.
        return torch.cat(outputs)[torch.tensor(order).argsort().to(self.model.device)]


def pad_lists(values: Tensor, sizes: list[int], fill: float) -> Tensor:
    """Splits values of shape (pairs,) into lists, padded to shape (lists, longest)."""
    return nn.utils.rnn.pad_sequence(
        list(values.split(sizes)), batch_first=True, padding_value=fill
    )
