"""Measures of a ranking, by ir-measures: what trec_eval gives for the same ranking."""

from __future__ import annotations

from collections.abc import Sequence

import ir_measures

from gpurerank.evaluation.queries import JudgedQuery

MAIN = "nDCG@10"
# Beside these each ranking has its recall at the depth it was made at.
FIXED = (MAIN, "RR@10", "Success@1", "Success@5")

# By the name of the measure, one value a query.
Values = dict[str, list[float]]


def recall_name(depth: int) -> str:
    """The name of recall at a depth."""
    return f"R@{depth}"


class Evaluator:
    """Measures rankings of the same queries.

    Args:
        queries: What is judged.
        depths: The depths at which recall is wanted.
    """

    def __init__(self, queries: Sequence[JudgedQuery], depths: Sequence[int]) -> None:
        self._queries = queries
        names = (*FIXED, *(recall_name(depth) for depth in depths))
        measures = [ir_measures.parse_measure(name) for name in names]
        grades = {query.id: dict(query.grades) for query in queries}
        self._evaluator = ir_measures.evaluator(measures, grades)

    def measure(self, rankings: Sequence[Sequence[str]], depth: int) -> Values:
        """The measures of one ranking of ids for each query, best first, each id once."""
        # trec_eval orders by score, and equal scores by id: places say which order is meant.
        run = {
            query.id: {identifier: -float(place) for place, identifier in enumerate(ids)}
            for query, ids in zip(self._queries, rankings, strict=True)
        }
        found: dict[tuple[str, str], float] = {
            (str(metric.measure), metric.query_id): float(metric.value)
            for metric in self._evaluator.iter_calc(run)
        }
        return {
            name: [found[name, query.id] for query in self._queries]
            for name in (*FIXED, recall_name(depth))
        }


def distinct(ids: Sequence[str]) -> list[str]:
    """Each id once, at its best place: the parts of a document count as the document."""
    return list(dict.fromkeys(ids))


def perfect(query: JudgedQuery, depth: int) -> list[str]:
    """The best order that the first so many candidates can have."""
    ids = distinct([candidate.id for candidate in query.candidates[:depth]])
    return sorted(ids, key=lambda i: -query.grades.get(i, 0))
