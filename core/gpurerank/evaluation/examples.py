"""The queries that a ranking changed most, with their passages before and after."""

from __future__ import annotations

from collections.abc import Sequence

from gpurerank.evaluation.judging import Judged
from gpurerank.evaluation.measures import MAIN
from gpurerank.evaluation.queries import Candidate, JudgedQuery
from gpurerank.evaluation.records import Example, Shown

SHOWN = 4
PASSAGES = 5
LONGEST = 1_200


def changed_most(judged: Judged, contender: str, depth: int) -> list[Example]:
    """The queries that rose most, the most first, and then those that fell most, likewise."""
    values = judged.values[contender, depth][MAIN]
    first = judged.first[MAIN]
    change = [after - before for before, after in zip(first, values, strict=True)]
    order = sorted(range(len(change)), key=lambda row: -change[row])
    risen = [row for row in order[:SHOWN] if change[row] > 0]
    fallen = [row for row in reversed(order[-SHOWN:]) if change[row] < 0]
    return [
        _example(judged.queries[row], judged.tops[contender, depth][row], first[row], values[row])
        for row in (*risen, *fallen)
    ]


def _example(query: JudgedQuery, top: list[Candidate], before: float, after: float) -> Example:
    first = query.candidates
    return Example(
        query.id,
        query.text,
        before,
        after,
        _shown(query, first[:PASSAGES], top),
        _shown(query, top[:PASSAGES], first),
    )


def _shown(query: JudgedQuery, top: Sequence[Candidate], other: Sequence[Candidate]) -> list[Shown]:
    places = {candidate: place for place, candidate in reversed(list(enumerate(other, 1)))}
    return [
        Shown(
            candidate.id,
            _shortened(candidate.text),
            query.grades.get(candidate.id, 0),
            rank,
            places.get(candidate),
        )
        for rank, candidate in enumerate(top, 1)
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
