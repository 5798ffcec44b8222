"""Rankers that replay scores: each pair is scored once, for every depth, cascade and fusion.

A replayed ranker that lacks a score raises ``MissingScoreError`` and remembers the pair or text.
``compute_missing`` then computes everything that was missing in one large batch, and the same
ranking succeeds when it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpurerank.calls import calling
from gpurerank.cosine import unit_vectors
from gpurerank.ranking import rank
from gpurerank.request import check_request
from gpurerank.types import CutOff, FloatArray, PairScorer, RankedPassage, TextEmbedder

# Called with the name of the work, how much of it is done, and how much there is (0 if unknown).
ProgressCallback = Callable[[str, int, int], None]


class MissingScoreError(Exception):
    """A score or vector has not been computed yet; ``compute_missing`` computes it."""


class ReplayedPairs:
    """A PairScorer that returns scores computed before.

    Args:
        scorer: Computes the scores, pairs of many queries in one call.
        name: Of the scorer, for the progress.
    """

    def __init__(self, scorer: PairScorer, name: str) -> None:
        self._scorer = scorer
        self._name = name
        self._scores: dict[tuple[str, str], float] = {}
        # Dictionaries without values are sets that keep the order: batches are reproducible.
        self._missing: dict[tuple[str, str], None] = {}

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The scores of the pairs, in order.

        Raises:
            MissingScoreError: One of them has not been computed yet.
        """
        missing = [pair for pair in pairs if pair not in self._scores]
        if missing:
            self._missing.update(dict.fromkeys(missing))
            raise MissingScoreError
        return [self._scores[pair] for pair in pairs]

    def compute_missing(self, on_progress: ProgressCallback) -> None:
        """Scores the pairs that were missing."""
        # One call with the pairs of all queries: the engine sorts them into full batches.
        pairs = list(self._missing)
        if not pairs:
            return
        on_progress(self._name, 0, len(pairs))
        with calling(on_progress=lambda done, total: on_progress(self._name, done, total)):
            scores = self._scorer.score_pairs(pairs)
        self._scores.update(zip(pairs, scores, strict=True))
        self._missing.clear()

    def clear(self) -> None:
        """Forgets all scores: another query never has the same pair."""
        self._scores.clear()


class ReplayedVectors:
    """A Ranker by cosine similarity over vectors computed before.

    Args:
        encoder: Embeds the texts; each passage once, however many queries retrieve it.
        name: Of the encoder, for the progress.
    """

    def __init__(self, encoder: TextEmbedder, name: str) -> None:
        self._encoder = encoder
        self._name = name
        self._passages: dict[str, FloatArray] = {}  # vectors of unit length, shape (dim,)
        self._queries: dict[str, FloatArray] = {}
        self._missing_passages: dict[str, None] = {}
        self._missing_queries: dict[str, None] = {}

    @property
    def model_name(self) -> str:
        """Name of the encoder."""
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
            MissingScoreError: A text has not been embedded yet.
        """
        texts = check_request(query, passages, top_k, threshold)
        similarities = self._similarities(query, texts)
        scored = [
            RankedPassage(i, text, similarity, similarity, 0, None, False, self._name, i + 1)
            for i, (text, similarity) in enumerate(zip(texts, similarities, strict=True))
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
        """As ``rank``, which is fast enough for the event loop."""
        return self.rank(query, passages, top_k, threshold, cut_off=cut_off)

    def compute_missing(self, on_progress: ProgressCallback) -> None:
        """Embeds the texts that were missing."""
        passages, queries = list(self._missing_passages), list(self._missing_queries)
        if passages:
            on_progress(self._name, 0, len(passages))
            with calling(on_progress=lambda done, total: on_progress(self._name, done, total)):
                vectors = self._encoder.embed_passages(passages)
            self._passages.update(zip(passages, unit_vectors(vectors), strict=True))
        if queries:
            vectors = self._encoder.embed_queries(queries)
            self._queries.update(zip(queries, unit_vectors(vectors), strict=True))
        self._missing_passages.clear()
        self._missing_queries.clear()

    def clear(self) -> None:
        """Forgets the queries; later queries may retrieve the same passages again."""
        self._queries.clear()

    def _similarities(self, query: str, passages: list[str]) -> list[float]:
        # A blank passage is never embedded; -1 puts it last, as BiEncoder does.
        missing = [p for p in passages if p.strip() and p not in self._passages]
        if missing or query not in self._queries:
            self._missing_passages.update(dict.fromkeys(missing))
            self._missing_queries[query] = None
            raise MissingScoreError
        vector = self._queries[query]
        return [float(self._passages[p] @ vector) if p.strip() else -1.0 for p in passages]
