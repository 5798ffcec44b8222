"""Retrieval and reranking of one query, with the time of each stage."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from gpurerank.demo.chroma_index import ChromaIndex
from gpurerank.demo.corpus import SourcePassage
from gpurerank.reranker import Reranker
from gpurerank.types import RankedPassage

CANDIDATES = 50


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Retrieved and reranked passages of a query.

    Attributes:
        query: The query.
        candidates: Retrieved passages, nearest first.
        ranked: The same passages reranked, best first.
        stages_ms: Milliseconds of each stage.
    """

    query: str
    candidates: list[SourcePassage]
    ranked: list[RankedPassage]
    stages_ms: dict[str, float]

    def dropped(self, top_k: int) -> list[RankedPassage]:
        """Passages that reranking moved out of the top, by their rank before."""
        dropped = [p for p in self.ranked if p.previous_rank <= top_k < p.rank]
        return sorted(dropped, key=lambda passage: passage.previous_rank)


def search(query: str, index: ChromaIndex, reranker: Reranker) -> SearchResult:
    """Retrieves 50 candidates and reranks them."""
    started = perf_counter()
    vector = index.embed(query)
    embedded = perf_counter()
    candidates = index.search(vector, CANDIDATES)
    retrieved = perf_counter()
    ranked = reranker.rank(query, [candidate.text for candidate in candidates])
    reranked = perf_counter()
    stages_s = {
        "embed query": embedded - started,
        "search": retrieved - embedded,
        f"rerank {len(candidates)}": reranked - retrieved,
    }
    stages_ms = {stage: 1000 * seconds for stage, seconds in stages_s.items()}
    return SearchResult(query, candidates, ranked, stages_ms)
