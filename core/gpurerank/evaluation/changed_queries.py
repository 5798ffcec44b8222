"""The queries that a contender changed most, with their passages before and after."""

from __future__ import annotations

from collections.abc import Sequence

from gpurerank.evaluation.evaluation_result import Example, ExamplePassage
from gpurerank.evaluation.measures import MAIN_MEASURE
from gpurerank.evaluation.query_set import Candidate, JudgedQuery
from gpurerank.evaluation.ranking_runner import MeasuredQueries

QUERIES_PER_DIRECTION = 4
PASSAGES = 5
MAX_CHARACTERS = 1_200


def most_changed_queries(measured: MeasuredQueries, contender: str, depth: int) -> list[Example]:
    """Up to 4 queries that improved, largest gain first, then up to 4 that got worse, likewise."""
    after = measured.values[contender, depth][MAIN_MEASURE]
    before = measured.first[MAIN_MEASURE]
    change = [new - old for old, new in zip(before, after, strict=True)]
    order = sorted(range(len(change)), key=lambda row: -change[row])
    # With few queries both ends overlap; the sign keeps a query out of the wrong one.
    improved = [row for row in order[:QUERIES_PER_DIRECTION] if change[row] > 0]
    worse = [row for row in reversed(order[-QUERIES_PER_DIRECTION:]) if change[row] < 0]
    return [
        _example(
            measured.queries[row], measured.tops[contender, depth][row], before[row], after[row]
        )
        for row in (*improved, *worse)
    ]


def _example(query: JudgedQuery, top: list[Candidate], before: float, after: float) -> Example:
    candidates = query.candidates
    return Example(
        query.id,
        query.text,
        before,
        after,
        _passages(query, candidates[:PASSAGES], top),
        _passages(query, top[:PASSAGES], candidates),
    )


def _passages(
    query: JudgedQuery, top: Sequence[Candidate], other: Sequence[Candidate]
) -> list[ExamplePassage]:
    # Reversed, so that of equal candidates the best rank remains.
    other_ranks = {candidate: rank for rank, candidate in reversed(list(enumerate(other, 1)))}
    return [
        ExamplePassage(
            candidate.id,
            _shorten(candidate.text),
            query.grades.get(candidate.id, 0),
            rank,
            other_ranks.get(candidate),
        )
        for rank, candidate in enumerate(top, 1)
    ]


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
