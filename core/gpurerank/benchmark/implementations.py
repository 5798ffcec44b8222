"""The contenders: gpurerank and sentence-transformers, from strings to Python values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gpurerank.models.devices import DTYPES
from gpurerank.models.loading import quiet
from gpurerank.reranker import Reranker

GPURERANK = "gpurerank"
REFERENCE = "sentence-transformers"


@dataclass(slots=True)
class Contender:
    """One way to rank passages with a model.

    Attributes:
        name: Its name in tables.
        setting: How it is set up.
        dtype: The number format it multiplies in.
        rank: Returns passage indices, best first; ties in input order.
        logits: Returns the raw logit of each passage, input order.
        close: Frees the memory.
        is_primed: Whether each timed call repeats one just made, which fills the token cache.
    """

    name: str
    setting: str
    dtype: str
    rank: Callable[[str, Sequence[str]], list[int]]
    logits: Callable[[str, Sequence[str]], list[float]]
    close: Callable[[], None] = lambda: None
    is_primed: bool = False


def gpurerank_contender(
    folder: str, device: torch.device, dtype: str, max_length: int
) -> Contender:
    """A contender that calls ``Reranker.rank``."""
    reranker = Reranker(folder, device=str(device), dtype=dtype, max_length=max_length)

    def rank(query: str, passages: Sequence[str]) -> list[int]:
        return [passage.index for passage in reranker.rank(query, passages)]

    def logits(query: str, passages: Sequence[str]) -> list[float]:
        by_index = {passage.index: passage.logit for passage in reranker.rank(query, passages)}
        return [by_index[i] or 0.0 for i in range(len(passages))]

    setting = f"Reranker(dtype={dtype!r})"
    return Contender(GPURERANK, setting, dtype, rank, logits, reranker.close)


def load_cross_encoder(folder: str, device: torch.device, dtype: str, max_length: int) -> Any:
    """A ``sentence_transformers.CrossEncoder`` with torch's fused attention."""
    from sentence_transformers import CrossEncoder

    options = {"torch_dtype": DTYPES[dtype], "attn_implementation": "sdpa"}
    with quiet():
        model = CrossEncoder(
            folder, device=str(device), max_length=max_length, model_kwargs=options
        )
    # Some versions ignore torch_dtype; the table must name the format that really runs.
    return model.to(dtype=DTYPES[dtype])


def cross_encoder_contender(model: Any, dtype: str, batch_size: int = 32) -> Contender:
    """A contender that calls ``CrossEncoder.predict`` with a batch size."""

    def predict(query: str, passages: Sequence[str], **options: Any) -> list[float]:
        pairs = [(query, passage) for passage in passages]
        options = {"batch_size": batch_size, "show_progress_bar": False, **options}
        scores: list[float] = model.predict(pairs, **options).tolist()
        return scores

    def logits(query: str, passages: Sequence[str]) -> list[float]:
        return predict(query, passages, activation_fn=torch.nn.Identity())

    def rank(query: str, passages: Sequence[str]) -> list[int]:
        return rank_scores(predict(query, passages))

    setting = f"CrossEncoder, {dtype}, batches of {batch_size}"
    return Contender(REFERENCE, setting, dtype, rank, logits)


def rank_scores(scores: list[float]) -> list[int]:
    """Indices of the scores, best first; ties in input order."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])
