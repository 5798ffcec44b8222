"""Judging a model in training: nDCG@10 over the lists that are held out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import CrossEncoder
from sentence_transformers.base.evaluation import BaseEvaluator
from sklearn.metrics import ndcg_score
from torch import nn

from gpurerank.models.blend import Blend
from gpurerank.training.training_lists import TrainingList
from gpurerank.types import FloatArray

METRIC = "eval_ndcg@10"


class HeldOutEvaluator(BaseEvaluator):
    """Mean nDCG@10 of the lists, ranked by the logit that will serve.

    Args:
        lists: Held-out lists; those without a label are not judged.
        blend: How the served logit is blended, or None.
        batch_size: Pairs of one forward pass.
    """

    def __init__(
        self, lists: Sequence[TrainingList], blend: Blend | None, batch_size: int = 32
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.primary_metric = "ndcg@10"
        self._lists = [each for each in lists if each.labelled]
        self._blend = blend
        self._batch_size = batch_size

    def __call__(  # type: ignore[override]
        self,
        model: CrossEncoder,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Judges; a line is added to ``held_out.csv`` in ``output_path``."""
        value = self.judge(model)
        if output_path is not None:
            path = Path(output_path) / "held_out.csv"
            with path.open("a", encoding="utf-8", newline="") as lines:
                csv.writer(lines).writerow([epoch, steps, value])
        return {"ndcg@10": value}

    def judge(self, model: CrossEncoder) -> float:
        """Mean nDCG@10, in [0, 1]."""
        pairs = [(each.query, passage) for each in self._lists for passage in each.passages]
        own = model.predict(
            pairs,
            batch_size=self._batch_size,
            show_progress_bar=False,
            activation_fn=nn.Identity(),
            convert_to_numpy=True,
        )
        return self.mean(np.asarray(own, dtype=np.float32).reshape(-1))

    def of_the_bi_encoder(self) -> float:
        """Mean nDCG@10 of the bi-encoder's own order of the same lists."""
        return _mean(self._lists, np.array([s for each in self._lists for s in each.similarities]))

    def mean(self, own: FloatArray) -> float:
        """Mean nDCG@10 of logits, shape (pairs,)."""
        if self._blend is None or not self._lists:
            return _mean(self._lists, own)
        similarities = np.concatenate([each.blended(self._blend) for each in self._lists])
        return _mean(self._lists, self._blend.logits(own, similarities))


def _mean(lists: Sequence[TrainingList], logits: FloatArray) -> float:
    values, start = [], 0
    for each in lists:
        stop = start + len(each.passages)
        values.append(ndcg_score([each.grades], [logits[start:stop]], k=10))
        start = stop
    return float(np.mean(values)) if values else 0.0
