"""The listwise loss that learns from labels and from a teacher's similarities together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn
from torch.nn import functional

from gpurerank.models.blend import Blend

FAR_BELOW = -1e9


class ListwiseDistillationLoss(nn.Module):
    """Cross-entropy of the relevant passage, and agreement with a teacher on all others.

    For a labelled list: the listwise cross-entropy of its positives; the KL divergence from the
    teacher's distribution over the *negatives* (so the teacher orders what the label says nothing
    about, and never contradicts it); and a pointwise term that gives the logits an absolute level,
    which a listwise loss alone leaves free. For an unlabelled list: the KL divergence over all.

    The training column ``labels`` holds a (grade, similarity, teacher's logit) for each passage; a
    grade over 0 marks a positive, and a list without one is unlabelled.

    Args:
        model: A cross-encoder with one label.
        blend: The logit that is trained is the model's own blended with the bi-encoder's
            similarity: the model then learns what that lacks. None trains the model's own.
        teacher_weight: Weight of the KL divergence in a labelled list.
        pointwise_weight: Weight of the pointwise term.
        pairs_per_pass: Pairs in one forward pass; pairs are sorted by length, so little is padded.
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
        """Mean loss over the lists of a batch."""
        queries, passages = inputs
        pairs = [
            (query, passage)
            for query, listed in zip(queries, passages, strict=True)
            for passage in listed
        ]
        sizes = [len(listed) for listed in passages]
        logits = pad_lists(self._logits(pairs, prompt, task), sizes, FAR_BELOW)
        columns = torch.cat(labels).to(logits)  # (pairs, 3)
        positives = pad_lists(columns[:, 0], sizes, 0.0) > 0
        similarities = pad_lists(columns[:, 1], sizes, 0.0)
        teacher = pad_lists(columns[:, 2], sizes, FAR_BELOW)
        if self.blend is not None:
            logits = self.blend.scale * (
                logits + self.blend.weight * (similarities - self.blend.center)
            )
        return self.loss(logits, teacher, positives)

    def loss(self, logits: Tensor, teacher: Tensor, positives: Tensor) -> Tensor:
        """Mean loss over lists; every argument has shape (lists, longest), padded FAR_BELOW."""
        present = teacher > FAR_BELOW
        labelled = positives.any(dim=1)
        taught = present & ~positives
        wanted = teacher.masked_fill(~taught, FAR_BELOW).softmax(dim=1)
        student = logits.masked_fill(~taught, FAR_BELOW).log_softmax(dim=1)
        divergence = functional.kl_div(student, wanted, reduction="none").sum(dim=1)
        count = positives.sum(dim=1).clamp(min=1)
        entropy = -(logits.log_softmax(dim=1) * positives).sum(dim=1) / count
        pointwise = functional.binary_cross_entropy_with_logits(
            logits, positives.to(logits), reduction="none"
        )
        # The positives weigh as much as all negatives of their list together.
        of_positive = taught.sum(dim=1, keepdim=True) / count[:, None]
        weights = torch.where(positives, of_positive, 1.0) * present
        pointwise = (pointwise * weights).sum(dim=1) / weights.sum(dim=1)
        of_labelled = entropy + self.teacher_weight * divergence + self.pointwise_weight * pointwise
        return torch.where(labelled, of_labelled, divergence).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card states of this loss."""
        return {
            "blend": None if self.blend is None else asdict(self.blend),
            "teacher_weight": self.teacher_weight,
            "pointwise_weight": self.pointwise_weight,
        }

    def _logits(self, pairs: list[tuple[str, str]], prompt: str | None, task: str | None) -> Tensor:
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        outputs = []
        for start in range(0, len(order), self.pairs_per_pass):
            some = [pairs[i] for i in order[start : start + self.pairs_per_pass]]
            features = self.model.preprocess(some, prompt=prompt, task=task)
            features = {
                name: value.to(self.model.device) if isinstance(value, Tensor) else value
                for name, value in features.items()
            }
            outputs.append(self.model(features)["scores"].view(-1).float())
        restored = torch.empty(len(pairs), dtype=torch.long)
        restored[torch.tensor(order)] = torch.arange(len(pairs))
        return torch.cat(outputs)[restored.to(self.model.device)]


def pad_lists(values: Tensor, sizes: list[int], fill: float) -> Tensor:
    """Splits (pairs,) into lists: shape (lists, longest), short ones filled up."""
    return nn.utils.rnn.pad_sequence(
        list(values.split(sizes)), batch_first=True, padding_value=fill
    )
