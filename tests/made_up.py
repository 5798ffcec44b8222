"""Made-up queries with answers that are known, and rankers that know or miss them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from gpurerank import RankedPassage, Reranker
from gpurerank.evaluation import QuerySet
from gpurerank.evaluation.queries import Candidate, JudgedQuery
from tests.conftest import WordOverlap

TOPICS = ["cats", "rivers", "violins", "taxes", "bread", "glaciers", "chess", "bees", "kites"]


def query_set(count: int = 12, candidates: int = 8, seed: int = 0) -> QuerySet:
    """Queries whose relevant passage stands somewhere among the candidates, seeded."""
    draw = random.Random(seed)
    queries = []
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        place = draw.randrange(candidates)
        passages = tuple(
            Candidate(
                f"d{number}-{row}",
                f"{'about ' + topic if row == place else 'other'} {number}.{row}",
            )
            for row in range(candidates)
        )
        grades = {f"d{number}-{place}": 1}
        queries.append(JudgedQuery(f"q{number}", f"about {topic}", grades, passages))
    return QuerySet("made up", "BM25", tuple(queries), judged=count)


def knowing(name: str = "words") -> Reranker:
    return Reranker.from_scorer(WordOverlap(), name=name)


class Listwise:
    """A Ranker whose ranking of a passage depends on the others: the second longest wins."""

    model_name = "listwise"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def rank(self, query: str, passages: Sequence[str], *_: object) -> list[RankedPassage]:
        self.asked.append(len(passages))
        order = sorted(range(len(passages)), key=lambda row: -len(passages[row]))
        order[:2] = reversed(order[:2])
        return [
            RankedPassage(row, passages[row], 0.0, 0.0, place, None, False, "l", row + 1)
            for place, row in enumerate(order, 1)
        ]

    async def arank(self, query: str, passages: Sequence[str], *_: object) -> list[RankedPassage]:
        return self.rank(query, passages)


class Opposite(WordOverlap):
    """Knows the answer and says the contrary."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [1.0 - score for score in super().score_pairs(pairs)]
