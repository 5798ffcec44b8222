"""A cross-encoder on top of a bi-encoder: its logit blended with the similarity of both texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpurerank.awaiting import together
from gpurerank.bi_encoder import BiEncoder
from gpurerank.calls import Progress, calling, current_call
from gpurerank.cosine import unit_vectors
from gpurerank.cross_encoder import CrossEncoder
from gpurerank.late_interaction import LateInteraction
from gpurerank.ranking import sigmoids
from gpurerank.types import FloatArray

if TYPE_CHECKING:
    from gpurerank.engine.stats import EngineStats
    from gpurerank.models.blend import Blend


class BlendedScorer:
    """Scores pairs by a cross-encoder that was trained on top of a bi-encoder.

    Where the blend asks for cosines alone, a passage that was embedded before in this process, by
    whatever object with the same bi-encoder, is not embedded again: after a first stage or an
    indexing the similarity costs nothing. Late interaction reads each passage once more.

    Args:
        cross_encoder: Gives its own logit.
        similarity: Gives the similarity.
        blend: How both become one logit.
    """

    def __init__(
        self, cross_encoder: CrossEncoder, similarity: Cosines | Late, blend: Blend
    ) -> None:
        self._cross_encoder = cross_encoder
        self._similarity = similarity
        self._blend = blend

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each pair, in [0, 1], input order; raises as both models do."""
        first, second = _halves(len(pairs))
        with calling(on_progress=first, counts_tokens=False):
            similarities = self._similarity.of(pairs)
        with calling(on_progress=second):
            own = self._cross_encoder.logits(pairs)
        return sigmoids(self._blend.logits(own, similarities))

    def identity(self) -> list[str]:
        """What a score depends on beside the pair."""
        return [*self._cross_encoder.identity(), *self._similarity.identity(), repr(self._blend)]

    def late_stats(self) -> EngineStats | None:
        """What late interaction has read; None where the similarity is a cosine alone."""
        return self._similarity.stats() if isinstance(self._similarity, Late) else None

    def close(self) -> None:
        """Gives both models back; the last user of each frees its memory."""
        self._cross_encoder.close()
        self._similarity.close()

    async def ascore_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking; a cancelled task's pairs do not run."""
        first, second = _halves(len(pairs))

        async def similarities_of() -> FloatArray:
            with calling(on_progress=first, counts_tokens=False):
                return await self._similarity.aof(pairs)

        async def own_of() -> FloatArray:
            with calling(on_progress=second):
                return await self._cross_encoder.alogits(pairs)

        similarities, own = await together(similarities_of(), own_of())
        return sigmoids(self._blend.logits(own, similarities))


class Cosines:
    """The similarity of a blend without late interaction."""

    def __init__(self, bi_encoder: BiEncoder) -> None:
        self._bi_encoder = bi_encoder
        self.identity = bi_encoder.identity
        self.close = bi_encoder.close

    def of(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """Shape (pairs,), float32."""
        queries, passages = _distinct(pairs)
        vectors = self._bi_encoder.embed_queries(queries), self._bi_encoder.embed_passages(passages)
        return _cosines(pairs, queries, passages, *vectors)

    async def aof(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """As ``of``, without blocking."""
        queries, passages = _distinct(pairs)
        query_vectors, vectors = await together(
            self._bi_encoder.aembed_queries(queries), self._bi_encoder.aembed_passages(passages)
        )
        return _cosines(pairs, queries, passages, query_vectors, vectors)


class Late:
    """The similarity of a blend with late interaction."""

    def __init__(self, late_interaction: LateInteraction, blend: Blend) -> None:
        self._late_interaction = late_interaction
        self._blend = blend
        self.identity = late_interaction.identity
        self.stats = late_interaction.stats
        self.close = late_interaction.close

    def of(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """Shape (pairs,), float32."""
        return self._blend.similarities(*self._late_interaction.similarities(pairs))

    async def aof(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """As ``of``, without blocking."""
        return self._blend.similarities(*await self._late_interaction.asimilarities(pairs))


def on_top(cross_encoder: CrossEncoder, *, device: str, dtype: str) -> CrossEncoder | BlendedScorer:
    """The scorer that a cross-encoder was trained to be: with its bi-encoder, or by itself.

    Raises:
        ModelError: Its bi-encoder cannot be loaded.
    """
    blend = cross_encoder.blend
    if blend is None:
        return cross_encoder
    similarity: Cosines | Late
    if blend.token_share:
        late = LateInteraction(blend.bi_encoder, device=device, dtype=dtype)
        similarity = Late(late, blend)
    else:
        similarity = Cosines(BiEncoder(blend.bi_encoder, device=device, dtype=dtype))
    return BlendedScorer(cross_encoder, similarity, blend)


def _halves(total: int) -> tuple[Progress, Progress]:
    """What two models tell of their progress, as progress in all pairs."""
    outer, shares = current_call().on_progress, [0.0, 0.0]

    def half(place: int) -> Progress:
        def tell(done: int, of: int) -> None:
            shares[place] = max(shares[place], done / of)
            if outer is not None:
                outer(int(total * sum(shares) / 2), total)

        return tell

    return half(0), half(1)


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
    left = unit_vectors(query_vectors)[[query_row[query] for query, _ in pairs]]
    right = unit_vectors(vectors)[[row[passage] for _, passage in pairs]]
    cosines: FloatArray = np.einsum("pd,pd->p", left, right)
    return cosines
