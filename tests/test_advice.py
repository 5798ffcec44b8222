"""What is advised, out of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpurerank import Reranker
from gpurerank.evaluation import EvalOptions, evaluate
from gpurerank.evaluation.advice import choose
from gpurerank.evaluation.frontier import efficient
from gpurerank.evaluation.latency import Timing
from gpurerank.evaluation.measures import MAIN
from gpurerank.evaluation.records import Interval, Point
from gpurerank.evaluation.significance import Comparison
from tests.made_up import Opposite, knowing, query_set


def point(name: str, values: Sequence[float], ms: float | None, verdict: int = 1) -> Point:
    mean = float(np.mean(values))
    against = Comparison(
        mean if verdict >= 0 else -mean, 0.0, 1.0, 0.5 if not verdict else 0.001, 1, 1, 1
    )
    quality = Interval(mean, mean, mean)
    latency = None if ms is None else Timing([ms])
    return Point(name, 10, {MAIN: list(values)}, quality, against, latency)


def test_the_fastest_within_a_standard_error_is_chosen() -> None:
    best = point("best", [1.0, 0.9, 0.8, 0.7], 100.0)
    near = point("near", [0.9, 1.0, 0.8, 0.68], 20.0)
    alike = point("alike", [0.95, 0.95, 0.8, 0.69], 21.0)
    worse = point("worse", [0.5, 0.5, 0.4, 0.3], 5.0)
    unsure = point("unsure", [1.0, 1.0, 1.0, 1.0], 1.0, verdict=0)
    assert choose([best, near, worse, unsure]) == (near, best)
    assert choose([best, near, alike, worse]) == (alike, best)
    assert choose([worse, best]) == (best, best)
    assert choose([point("untimed", [1.0, 0.5], None)]) is not None
    assert choose([unsure]) is None


def test_the_frontier_rises_from_the_first_stage() -> None:
    points = [
        point("slow", [0.9], 100.0),
        point("fast", [0.6], 5.0),
        point("dominated", [0.55], 50.0),
        point("poor", [0.3], 1.0),
        point("untimed", [1.0], None),
    ]
    assert [p.contender for p in efficient(points, first=0.4)] == ["fast", "slow"]


def test_advice_says_what_the_data_says() -> None:
    good = evaluate(query_set(60), {"mine": knowing()}, EvalOptions(depth=8, depths=(4,)))
    assert good.advice.verdict == 1
    assert good.advice.headline.startswith("Rerank with mine on 8 candidates: nDCG@10 +0.")
    assert good.recommended is good.at("mine", 8)
    assert good.examples
    assert all(each.value_after > each.value_before for each in good.examples)
    assert good.examples[0].after[0].grade == 1
    assert good.examples[0].after[0].other_rank == 8
    opposite = Reranker.from_scorer(Opposite(), name="opposite")
    bad = evaluate(query_set(60), {"mine": opposite}, EvalOptions(depth=8))
    assert bad.advice.verdict == -1
    assert bad.advice.headline.startswith("Keep BM25 alone")
    assert all(each.value_after < each.value_before for each in bad.examples)
    few = evaluate(query_set(3), {"mine": knowing()}, EvalOptions(depth=8))
    assert few.advice.verdict == 0
    assert "cannot tell" in few.advice.headline
    assert any("3 queries are few" in doubt for doubt in few.advice.doubts)
