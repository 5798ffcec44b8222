"""Synthetic judged queries, and rankers that put the relevant passage first, last or anywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence

from gpurerank import RankedPassage, Reranker
from gpurerank.evaluation import QuerySet
from gpurerank.evaluation.query_set import Candidate, JudgedQuery
from tests.conftest import WordOverlap

TOPICS = ["cats", "rivers", "violins", "taxes", "bread", "glaciers", "chess", "bees", "kites"]


def query_set(count: int = 12, candidates: int = 8, seed: int = 0) -> QuerySet:
    """Queries with one relevant passage at a random rank among the candidates."""
    rng = random.Random(seed)
    queries = []
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        relevant_row = rng.randrange(candidates)
        passages = tuple(
            Candidate(
                f"d{number}-{row}",
                f"{'about ' + topic if row == relevant_row else 'other'} {number}.{row}",
            )
            for row in range(candidates)
        )
        grades = {f"d{number}-{relevant_row}": 1}
        queries.append(JudgedQuery(f"q{number}", f"about {topic}", grades, passages))
    return QuerySet("synthetic", "BM25", tuple(queries), available=count)


def perfect_reranker(name: str = "words") -> Reranker:
    """Puts the relevant passage first: it shares the most words with the query."""
    return Reranker.from_scorer(WordOverlap(), name=name)


class Listwise:
    """A Ranker that puts the second longest passage first: a rank depends on the other passages."""

    model_name = "listwise"

    def __init__(self) -> None:
        self.passage_counts: list[int] = []

    def rank(self, query: str, passages: Sequence[str], *_: object) -> list[RankedPassage]:
        self.passage_counts.append(len(passages))
        order = sorted(range(len(passages)), key=lambda row: -len(passages[row]))
        order[:2] = reversed(order[:2])
        return [
            RankedPassage(row, passages[row], 0.0, 0.0, rank, None, False, "l", row + 1)
            for rank, row in enumerate(order, 1)
        ]

    async def arank(self, query: str, passages: Sequence[str], *_: object) -> list[RankedPassage]:
        return self.rank(query, passages)


class ReversedOverlap(WordOverlap):
    """Puts the relevant passage last."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [1.0 - score for score in super().score_pairs(pairs)]
