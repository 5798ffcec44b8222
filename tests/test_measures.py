"""Measures of a ranking."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest

from gpurerank.evaluation.measures import MeasureEvaluator, first_occurrences, ideal_ranking
from gpurerank.evaluation.query_set import Candidate, JudgedQuery
from tests.query_sets import query_set


def test_measures_equal_those_of_ir_measures() -> None:
    queries = query_set(6).queries
    rankings = [[c.id for c in query.candidates] for query in queries]
    values = MeasureEvaluator(queries, [5]).measure(rankings, 5)
    qrels = {query.id: dict(query.grades) for query in queries}
    run = {
        q.id: {i: 1.0 / (p + 1) for p, i in enumerate(r)}
        for q, r in zip(queries, rankings, strict=True)
    }
    names = ["nDCG@10", "RR@10", "R@5", "Success@1", "Success@5"]
    assert set(values) == set(names)
    expected = ir_measures.calc_aggregate([ir_measures.parse_measure(n) for n in names], qrels, run)
    for name in names:
        assert np.mean(values[name]) == pytest.approx(expected[ir_measures.parse_measure(name)])
    ranks = [
        next(p for p, i in enumerate(r, 1) if i in q.grades)
        for q, r in zip(queries, rankings, strict=True)
    ]
    assert values["RR@10"] == pytest.approx([1 / rank for rank in ranks])


def test_passages_of_one_document_count_once() -> None:
    assert first_occurrences(["a", "b", "a", "c", "b"]) == ["a", "b", "c"]
    parts = tuple(Candidate(i, t) for i, t in (("x", "1"), ("a", "2"), ("a", "3"), ("b", "4")))
    query = JudgedQuery("q", "?", {"a": 1, "b": 2}, parts)
    assert ideal_ranking(query, 4) == ["b", "a", "x"]
    assert ideal_ranking(query, 3) == ["a", "x"]
    values = MeasureEvaluator([query], [4]).measure([first_occurrences([c.id for c in parts])], 4)
    assert values["RR@10"] == [0.5]
    assert values["R@4"] == [1.0]
