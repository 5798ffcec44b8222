"""Measures of a ranking, computed by ir-measures as trec_eval computes them."""

from __future__ import annotations

from collections.abc import Sequence

import ir_measures

from gpurerank.evaluation.query_set import JudgedQuery

MAIN_MEASURE = "nDCG@10"
# Every ranking has these, and recall at its own depth.
FIXED_MEASURES = (MAIN_MEASURE, "RR@10", "Success@1", "Success@5")

# One value in [0, 1] per query, by the name of the measure.
Values = dict[str, list[float]]


def recall_name(depth: int) -> str:
    """Name of the recall at a depth, such as "R@50"."""
    return f"R@{depth}"


def secondary_measures(depth: int) -> tuple[str, ...]:
    """The measures that the reports show besides the main one, in their order."""
    return ("RR@10", recall_name(depth), "Success@1", "Success@5")


class MeasureEvaluator:
    """Measures rankings of the same queries.

    Args:
        queries: With their relevance grades.
        depths: Depths at which recall is measured.
    """

    def __init__(self, queries: Sequence[JudgedQuery], depths: Sequence[int]) -> None:
        self._queries = queries
        names = (*FIXED_MEASURES, *(recall_name(depth) for depth in depths))
        measures = [ir_measures.parse_measure(name) for name in names]
        grades = {query.id: dict(query.grades) for query in queries}
        # Parsing the grades dominates the cost of a measurement, so one evaluator serves every
        # contender and depth of a batch of queries.
        self._evaluator = ir_measures.evaluator(measures, grades)

    def measure(self, rankings: Sequence[Sequence[str]], depth: int) -> Values:
        """Measures one ranking per query.

        Args:
            rankings: Document ids, best first, without repetition; in the order of the queries.
            depth: At which recall is measured; one of the constructor's ``depths``.
        """
        # trec_eval sorts by score and breaks ties by id. Negative ranks leave no ties.
        run = {
            query.id: {document_id: -float(rank) for rank, document_id in enumerate(ids)}
            for query, ids in zip(self._queries, rankings, strict=True)
        }
        values = {
            (str(metric.measure), metric.query_id): float(metric.value)
            for metric in self._evaluator.iter_calc(run)
        }
        return {
            name: [values[name, query.id] for query in self._queries]
            for name in (*FIXED_MEASURES, recall_name(depth))
        }


def first_occurrences(ids: Sequence[str]) -> list[str]:
    """The ids without repetition: the parts of a document count as one document."""
    return list(dict.fromkeys(ids))


def ideal_ranking(query: JudgedQuery, depth: int) -> list[str]:
    """The best possible order of the first ``depth`` candidates: by grade, highest first."""
    ids = first_occurrences([candidate.id for candidate in query.candidates[:depth]])
    return sorted(ids, key=lambda document_id: -query.grades.get(document_id, 0))
