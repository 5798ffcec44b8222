"""Retrieve, rerank, and say what moved and how long each stage took."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from gpurerank.demo.chroma_index import Index
from gpurerank.demo.corpus import SourcePassage
from gpurerank.reranker import Reranker
from gpurerank.types import RankedPassage

CANDIDATES = 50


@dataclass(frozen=True, slots=True)
class Answer:
    """The reranked top of a query.

    Attributes:
        query: What was asked.
        candidates: What retrieval found, nearest first.
        ranked: The same passages reranked, best first.
        stages_ms: Milliseconds of each stage.
    """

    query: str
    candidates: list[SourcePassage]
    ranked: list[RankedPassage]
    stages_ms: dict[str, float]

    def fallen(self, top_k: int) -> list[RankedPassage]:
        """What retrieval had in its top and reranking has not, in retrieval's order."""
        lost = [p for p in self.ranked if p.previous_rank <= top_k < p.rank]
        return sorted(lost, key=lambda passage: passage.previous_rank)


def answer(query: str, index: Index, reranker: Reranker) -> Answer:
    """Retrieves 50 candidates and reranks them."""
    started = perf_counter()
    vector = index.embed(query)
    embedded = perf_counter()
    candidates = index.search(vector, CANDIDATES)
    found = perf_counter()
    ranked = reranker.rank(query, [candidate.text for candidate in candidates])
    done = perf_counter()
    times = {
        "embed query": embedded - started,
        "search": found - embedded,
        f"rerank {len(candidates)}": done - found,
    }
    return Answer(query, candidates, ranked, {name: s * 1000 for name, s in times.items()})
