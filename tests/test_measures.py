"""What a ranking is worth."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest

from gpurerank.evaluation.measures import Evaluator, distinct, perfect
from gpurerank.evaluation.queries import Candidate, JudgedQuery
from tests.made_up import query_set


def test_measures_are_those_of_ir_measures_and_ties_keep_their_order() -> None:
    queries = query_set(6).queries
    rankings = [[c.id for c in query.candidates] for query in queries]
    found = Evaluator(queries, [5]).measure(rankings, 5)
    qrels = {query.id: dict(query.grades) for query in queries}
    run = {
        q.id: {i: 1.0 / (p + 1) for p, i in enumerate(r)}
        for q, r in zip(queries, rankings, strict=True)
    }
    names = ["nDCG@10", "RR@10", "R@5", "Success@1", "Success@5"]
    assert set(found) == set(names)
    by_hand = ir_measures.calc_aggregate([ir_measures.parse_measure(n) for n in names], qrels, run)
    for name in names:
        assert np.mean(found[name]) == pytest.approx(by_hand[ir_measures.parse_measure(name)])
    places = [
        next(p for p, i in enumerate(r, 1) if i in q.grades)
        for q, r in zip(queries, rankings, strict=True)
    ]
    assert found["RR@10"] == pytest.approx([1 / place for place in places])


def test_parts_of_a_document_count_once() -> None:
    assert distinct(["a", "b", "a", "c", "b"]) == ["a", "b", "c"]
    parts = tuple(Candidate(i, t) for i, t in (("x", "1"), ("a", "2"), ("a", "3"), ("b", "4")))
    query = JudgedQuery("q", "?", {"a": 1, "b": 2}, parts)
    assert perfect(query, 4) == ["b", "a", "x"]
    assert perfect(query, 3) == ["a", "x"]
    values = Evaluator([query], [4]).measure([distinct([c.id for c in parts])], 4)
    assert values["RR@10"] == [0.5]
    assert values["R@4"] == [1.0]
