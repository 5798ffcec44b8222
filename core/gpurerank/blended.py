"""A cross-encoder on top of a bi-encoder: its logit blended with the similarity of both texts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpurerank.bi_encoder import BiEncoder
from gpurerank.cross_encoder import CrossEncoder
from gpurerank.ranking import sigmoids
from gpurerank.types import FloatArray

if TYPE_CHECKING:
    from gpurerank.models.blend import Blend


class BlendedScorer:
    """Scores pairs by a cross-encoder that was trained on top of a bi-encoder.

    A passage that was embedded before in this process, by whatever object with the same
    bi-encoder, is not embedded again: after a first stage or an indexing the similarity costs
    nothing.

    Args:
        cross_encoder: Gives its own logit.
        bi_encoder: Gives the cosine.
        blend: How both become one logit.
    """

    def __init__(self, cross_encoder: CrossEncoder, bi_encoder: BiEncoder, blend: Blend) -> None:
        self._cross_encoder = cross_encoder
        self._bi_encoder = bi_encoder
        self._blend = blend

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each pair, in [0, 1], input order; raises as both models do."""
        queries, passages = _distinct(pairs)
        vectors = self._bi_encoder.embed_queries(queries), self._bi_encoder.embed_passages(passages)
        cosines = _cosines(pairs, queries, passages, *vectors)
        return sigmoids(self._blend.logits(self._cross_encoder.logits(pairs), cosines))

    def identity(self) -> list[str]:
        """What a score depends on beside the pair."""
        return [*self._cross_encoder.identity(), *self._bi_encoder.identity(), repr(self._blend)]

    def close(self) -> None:
        """Gives both models back; the last user of each frees its memory."""
        self._cross_encoder.close()
        self._bi_encoder.close()

    async def ascore_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking; a cancelled task's pairs do not run."""
        queries, passages = _distinct(pairs)
        query_vectors, vectors, own = await asyncio.gather(
            self._bi_encoder.aembed_queries(queries),
            self._bi_encoder.aembed_passages(passages),
            self._cross_encoder.alogits(pairs),
        )
        cosines = _cosines(pairs, queries, passages, query_vectors, vectors)
        return sigmoids(self._blend.logits(own, cosines))


def on_top(cross_encoder: CrossEncoder, *, device: str, dtype: str) -> CrossEncoder | BlendedScorer:
    """The scorer that a cross-encoder was trained to be: with its bi-encoder, or by itself.

    Raises:
        ModelError: Its bi-encoder cannot be loaded.
    """
    blend = cross_encoder.blend
    if blend is None:
        return cross_encoder
    bi_encoder = BiEncoder(blend.bi_encoder, device=device, dtype=dtype)
    return BlendedScorer(cross_encoder, bi_encoder, blend)


def _distinct(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    queries, passages = zip(*pairs, strict=True) if pairs else ((), ())
    return list(dict.fromkeys(queries)), list(dict.fromkeys(passages))


def _cosines(
    pairs: Sequence[tuple[str, str]],
    queries: list[str],
    passages: list[str],
    query_vectors: FloatArray,
    vectors: FloatArray,
) -> FloatArray:
    """Shape (pairs,), float32."""
    query_row = {query: row for row, query in enumerate(queries)}
    row = {passage: row for row, passage in enumerate(passages)}
    left = _unit(query_vectors)[[query_row[query] for query, _ in pairs]]
    right = _unit(vectors)[[row[passage] for _, passage in pairs]]
    cosines: FloatArray = np.einsum("pd,pd->p", left, right)
    return cosines


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = vectors / np.maximum(norms, 1e-12)
    return unit
