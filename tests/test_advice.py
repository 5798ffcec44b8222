"""The recommendation that follows from the measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpurerank import Reranker
from gpurerank.evaluation import EvalOptions, evaluate
from gpurerank.evaluation.advice import choose_point, pareto_frontier
from gpurerank.evaluation.evaluation_result import Interval, Point
from gpurerank.evaluation.measures import MAIN_MEASURE
from gpurerank.evaluation.query_latency import Timing
from gpurerank.evaluation.significance import Comparison
from tests.query_sets import ReversedOverlap, perfect_reranker, query_set


def point(name: str, values: Sequence[float], ms: float | None, verdict: int = 1) -> Point:
    mean = float(np.mean(values))
    against = Comparison(
        mean if verdict >= 0 else -mean, 0.0, 1.0, 0.5 if not verdict else 0.001, 1, 1, 1
    )
    quality = Interval(mean, mean, mean)
    latency = None if ms is None else Timing([ms])
    return Point(name, 10, {MAIN_MEASURE: list(values)}, quality, against, latency)


def test_the_fastest_point_within_one_standard_error_is_recommended() -> None:
    best = point("best", [1.0, 0.9, 0.8, 0.7], 100.0)
    near = point("near", [0.9, 1.0, 0.8, 0.68], 20.0)
    equally_fast = point("equally fast", [0.95, 0.95, 0.8, 0.69], 21.0)
    worse = point("worse", [0.5, 0.5, 0.4, 0.3], 5.0)
    insignificant = point("insignificant", [1.0, 1.0, 1.0, 1.0], 1.0, verdict=0)
    assert choose_point([best, near, worse, insignificant]) == (near, best)
    assert choose_point([best, near, equally_fast, worse]) == (equally_fast, best)
    assert choose_point([worse, best]) == (best, best)
    assert choose_point([point("untimed", [1.0, 0.5], None)]) is not None
    assert choose_point([insignificant]) is None


def test_the_pareto_frontier_rises_from_the_first_stage() -> None:
    points = [
        point("slow", [0.9], 100.0),
        point("fast", [0.6], 5.0),
        point("dominated", [0.55], 50.0),
        point("poor", [0.3], 1.0),
        point("untimed", [1.0], None),
    ]
    assert [p.contender for p in pareto_frontier(points, first_stage_mean=0.4)] == ["fast", "slow"]


def test_the_verdict_follows_the_significance() -> None:
    good = evaluate(query_set(60), {"mine": perfect_reranker()}, EvalOptions(depth=8, depths=(4,)))
    assert good.advice.verdict == 1
    assert good.advice.headline.startswith("Rerank with mine on 8 candidates: nDCG@10 +0.")
    assert good.recommended is good.at("mine", 8)
    assert good.examples
    assert all(example.value_after > example.value_before for example in good.examples)
    assert good.examples[0].after[0].grade == 1
    assert good.examples[0].after[0].other_rank == 8
    reversed_ranker = Reranker.from_scorer(ReversedOverlap(), name="reversed")
    bad = evaluate(query_set(60), {"mine": reversed_ranker}, EvalOptions(depth=8))
    assert bad.advice.verdict == -1
    assert bad.advice.headline.startswith("Keep BM25 alone")
    assert all(example.value_after < example.value_before for example in bad.examples)
    few = evaluate(query_set(3), {"mine": perfect_reranker()}, EvalOptions(depth=8))
    assert few.advice.verdict == 0
    assert "cannot show" in few.advice.headline
    assert any("3 queries are few" in doubt for doubt in few.advice.doubts)
