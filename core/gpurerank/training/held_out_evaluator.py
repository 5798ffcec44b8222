"""Evaluation during training: nDCG@10 on the held-out lists."""

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

# The trainer prefixes the name of an evaluator's metric.
METRIC = "eval_ndcg@10"


class HeldOutEvaluator(BaseEvaluator):
    """Computes the mean nDCG@10 over lists, ranked by the logit that will be served.

    Args:
        lists: Held-out lists; unlabelled ones are ignored.
        blend: Blend with the bi-encoder's similarity, or None.
        batch_size: Pairs per forward pass.
    """

    def __init__(
        self, lists: Sequence[TrainingList], blend: Blend | None, batch_size: int = 32
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.primary_metric = "ndcg@10"
        self._lists = [training_list for training_list in lists if training_list.labelled]
        self._blend = blend
        self._batch_size = batch_size

    def __call__(  # type: ignore[override]
        self,
        model: CrossEncoder,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluates, and appends a line to ``held_out.csv`` in ``output_path``."""
        value = self.evaluate(model)
        if output_path is not None:
            path = Path(output_path) / "held_out.csv"
            with path.open("a", encoding="utf-8", newline="") as lines:
                csv.writer(lines).writerow([epoch, steps, value])
        return {"ndcg@10": value}

    def evaluate(self, model: CrossEncoder) -> float:
        """Mean nDCG@10 of a model, in [0, 1]; 0 without lists."""
        # Identity in place of the model's activation: the blend works on logits.
        logits = model.predict(
            [pair for held_out_list in self._lists for pair in held_out_list.pairs],
            batch_size=self._batch_size,
            show_progress_bar=False,
            activation_fn=nn.Identity(),
            convert_to_numpy=True,
        )
        logits = np.asarray(logits, dtype=np.float32).reshape(-1)  # (pairs,)
        if self._blend is not None and self._lists:
            similarities = np.concatenate(
                [held_out_list.blend_similarities(self._blend) for held_out_list in self._lists]
            )
            logits = self._blend.logits(logits, similarities)
        return self._mean_ndcg(logits)

    def evaluate_bi_encoder(self) -> float:
        """Mean nDCG@10 of the bi-encoder's cosines, in [0, 1]; 0 without lists."""
        cosines = [value for held_out_list in self._lists for value in held_out_list.similarities]
        return self._mean_ndcg(np.array(cosines, dtype=np.float32))

    def _mean_ndcg(self, logits: FloatArray) -> float:
        """Mean nDCG@10 of logits of all pairs, shape (pairs,)."""
        values, start = [], 0
        for held_out_list in self._lists:
            stop = start + len(held_out_list.passages)
            values.append(ndcg_score([held_out_list.grades], [logits[start:stop]], k=10))
            start = stop
        return float(np.mean(values)) if values else 0.0
