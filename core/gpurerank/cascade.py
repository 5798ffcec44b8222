"""Both stages in one: the bi-encoder keeps the best of many, the cross-encoder ranks those."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gpurerank.calls import stage
from gpurerank.errors import InputError
from gpurerank.request import check_request
from gpurerank.types import CutOff, RankedPassage, Ranker


class Cascade:
    """Ranks 1,000 and more passages at the cost of a few.

    Args:
        bi_encoder: The first stage, such as a BiEncoder; ranks every passage.
        cross_encoder: The second stage, such as a Reranker; ranks what the first one kept.
        candidates: Passages that reach the second stage, at least 1.

    Attributes:
        bi_encoder: As given.
        cross_encoder: As given.
        candidates: As given.

    Raises:
        InputError: ``candidates`` is below 1.
    """

    def __init__(self, bi_encoder: Ranker, cross_encoder: Ranker, candidates: int = 50) -> None:
        if candidates < 1:
            raise InputError(f"candidates is {candidates}; the second stage needs at least 1")
        self.bi_encoder = bi_encoder
        self.cross_encoder = cross_encoder
        self.candidates = candidates

    @property
    def model_name(self) -> str:
        """Both models."""
        return f"{self.bi_encoder.model_name} > {self.cross_encoder.model_name}"

    def rank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """The best passages, at most ``candidates``; ``previous_rank`` is the first stage's.

        ``threshold`` and ``cut_off`` apply to the second stage. Raises what the stages raise.
        """
        checked = check_request(query, passages, top_k, threshold)
        with stage("first_stage"):
            kept = self.bi_encoder.rank(query, checked, top_k=self.candidates)
        candidates = [passage.passage for passage in kept]
        ranked = self.cross_encoder.rank(query, candidates, top_k, threshold, cut_off=cut_off)
        return _joined(kept, ranked)

    async def arank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """As ``rank``, without blocking the event loop."""
        checked = check_request(query, passages, top_k, threshold)
        with stage("first_stage"):
            kept = await self.bi_encoder.arank(query, checked, top_k=self.candidates)
        candidates = [passage.passage for passage in kept]
        ranked = await self.cross_encoder.arank(
            query, candidates, top_k, threshold, cut_off=cut_off
        )
        return _joined(kept, ranked)


def _joined(kept: list[RankedPassage], ranked: list[RankedPassage]) -> list[RankedPassage]:
    """The second ranking, with indices into the caller's list and the first stage's places."""
    return [
        replace(
            passage,
            index=kept[passage.index].index,
            previous_rank=kept[passage.index].rank,
            previous_score=kept[passage.index].score,
        )
        for passage in ranked
    ]
