"""Scores that are computed once, and answer for every depth, cascade and fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gpurerank.calls import calling
from gpurerank.ranking import rank
from gpurerank.request import check_request
from gpurerank.types import CutOff, FloatArray, PairScorer, RankedPassage, TextEmbedder

# What is being done, how much of it is done, and how much there is.
Say = Callable[[str, int, int], None]


class UnknownScoreError(Exception):
    """A score was asked for that is not known yet; it was noted, and ``learn`` computes it."""


class KnownPairs:
    """A PairScorer that answers from what it knows, and notes what it does not.

    Args:
        scorer: What computes the scores, many queries in one call.
        name: What the progress calls it.
    """

    def __init__(self, scorer: PairScorer, name: str) -> None:
        self._scorer = scorer
        self._name = name
        self._scores: dict[tuple[str, str], float] = {}
        self._wanted: dict[tuple[str, str], None] = {}

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The scores of pairs that are all known.

        Raises:
            UnknownScoreError: One is not.
        """
        missing = [pair for pair in pairs if pair not in self._scores]
        if missing:
            self._wanted.update(dict.fromkeys(missing))
            raise UnknownScoreError
        return [self._scores[pair] for pair in pairs]

    def learn(self, say: Say) -> None:
        """Computes what was asked for."""
        pairs = list(self._wanted)
        if not pairs:
            return
        say(self._name, 0, len(pairs))
        with calling(on_progress=lambda done, total: say(self._name, done, total)):
            scores = self._scorer.score_pairs(pairs)
        self._scores.update(zip(pairs, scores, strict=True))
        self._wanted.clear()

    def forget(self) -> None:
        """Drops what is known: no later query asks for the same pair."""
        self._scores.clear()


class KnownVectors:
    """A Ranker by cosine similarity over vectors that it knows; notes the texts it does not.

    Args:
        encoder: What embeds; each passage once, however many queries found it.
        name: What the progress calls it.
    """

    def __init__(self, encoder: TextEmbedder, name: str) -> None:
        self._encoder = encoder
        self._name = name
        self._passages: dict[str, FloatArray] = {}
        self._queries: dict[str, FloatArray] = {}
        self._wanted: dict[str, None] = {}
        self._wanted_queries: dict[str, None] = {}

    @property
    def model_name(self) -> str:
        """The encoder."""
        return self._name

    def rank(
        self,
        query: str,
        passages: Sequence[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """As ``BiEncoder.rank``.

        Raises:
            UnknownScoreError: A text is not embedded yet.
        """
        texts = check_request(query, passages, top_k, threshold)
        cosines = self._cosines(query, texts)
        scored = [
            RankedPassage(i, text, cosine, cosine, 0, None, False, self._name, i + 1)
            for i, (text, cosine) in enumerate(zip(texts, cosines, strict=True))
        ]
        return rank(scored, top_k=top_k, threshold=threshold, cut_off=cut_off)

    async def arank(
        self,
        query: str,
        passages: Sequence[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """As ``rank``; there is nothing to wait for."""
        return self.rank(query, passages, top_k, threshold, cut_off=cut_off)

    def learn(self, say: Say) -> None:
        """Embeds what was asked for."""
        passages, queries = list(self._wanted), list(self._wanted_queries)
        if passages:
            say(self._name, 0, len(passages))
            with calling(on_progress=lambda done, total: say(self._name, done, total)):
                vectors = self._encoder.embed_passages(passages)
            self._passages.update(zip(passages, _unit(vectors), strict=True))
        if queries:
            vectors = self._encoder.embed_queries(queries)
            self._queries.update(zip(queries, _unit(vectors), strict=True))
        self._wanted.clear()
        self._wanted_queries.clear()

    def forget(self) -> None:
        """Drops the queries; the passages stay."""
        self._queries.clear()

    def _cosines(self, query: str, passages: list[str]) -> list[float]:
        missing = [p for p in passages if p.strip() and p not in self._passages]
        if missing or query not in self._queries:
            self._wanted.update(dict.fromkeys(missing))
            self._wanted_queries[query] = None
            raise UnknownScoreError
        vector = self._queries[query]
        return [float(self._passages[p] @ vector) if p.strip() else -1.0 for p in passages]


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
