"""Fusion: what the sum of several rankings is, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence

import pytest

from gpurerank import BiEncoder, Cascade, Fusion, InputError, Ranker, Reranker
from tests.conftest import WordOverlap

PASSAGES = ["run a command", "a brown fox", "merge sorted lists", "run the merge"]


class Fixed:
    """A PairScorer with a score for each passage; fails where there is none."""

    def __init__(self, **scores: float) -> None:
        self.scores = {name.replace("_", " "): score for name, score in scores.items()}

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [self.scores[passage] for _, passage in pairs]


def fixed(on_error: str = "raise", **scores: float) -> Reranker:
    return Reranker.from_scorer(Fixed(**scores), name="fixed", on_error=on_error)  # type: ignore[arg-type]


ABC = fixed(a=0.9, b=0.5, c=0.1)
CBA = fixed(a=0.1, b=0.45, c=0.9)


def test_reciprocal_is_the_weighted_sum_of_reciprocal_ranks() -> None:
    fused = Fusion([ABC, CBA], weights=[3.0, 1.0], constant=10).rank("q", ["a", "b", "c"])
    expected = {
        "a": (3 / 11 + 1 / 13) / (4 / 11),
        "b": (3 / 12 + 1 / 12) / (4 / 11),
        "c": (3 / 13 + 1 / 11) / (4 / 11),
    }
    assert [p.passage for p in fused] == sorted(expected, key=lambda name: -expected[name])
    for passage in fused:
        assert passage.score == passage.logit == pytest.approx(expected[passage.passage])
        assert passage.previous_rank == passage.index + 1
    assert [p.rank for p in fused] == [1, 2, 3]


def test_the_input_order_is_a_ranking_too() -> None:
    for weight, order in ((2.0, ["a", "b", "c"]), (0.5, ["c", "b", "a"])):
        fusion = Fusion([CBA], input_weight=weight)
        assert [p.passage for p in fusion.rank("q", ["a", "b", "c"])] == order
        assert fusion.model_name == "input order + fixed"
    # c is second best of both, and both first places cancel out.
    even = Fusion([fixed(a=0.1, b=0.9, c=0.5)], input_weight=1.0).rank("q", ["a", "c", "b"])
    assert even[0].score == pytest.approx(even[1].score)
    assert [p.passage for p in even] == ["a", "b", "c"]


def test_weighted_is_the_sum_of_stretched_logits() -> None:
    fused = Fusion([ABC, CBA], method="weighted", weights=[0.25, 0.75]).rank("q", ["a", "b", "c"])
    from gpurerank.ranking import logit_of

    low, middle, high = logit_of(0.1), logit_of(0.45), logit_of(0.9)
    halfway = 0.25 * (logit_of(0.5) - low) / (high - low) + 0.75 * (middle - low) / (high - low)
    found = {p.passage: p.score for p in fused}
    assert found == pytest.approx({"a": 0.25, "b": halfway, "c": 0.75})


@pytest.mark.parametrize("method", ["reciprocal", "weighted"])
def test_blank_passages_and_agreement_do_no_harm(method: str) -> None:
    same = fixed(a=0.5, b=0.5)
    fused = Fusion([same, same], method=method).rank("q", ["a", " ", "b"])  # type: ignore[arg-type]
    assert [p.passage for p in fused] == ["a", "b", " "]
    if method == "weighted":
        assert [p.score for p in fused] == [1.0, 1.0, 0.0]
    assert Fusion([same]).rank("q", []) == []
    assert Fusion([same]).rank("q", ["a"], top_k=0) == []


def test_limits_apply_to_the_fused_score() -> None:
    fusion = Fusion([ABC, CBA], method="weighted", weights=[0.25, 0.75])
    assert [p.passage for p in fusion.rank("q", ["a", "b", "c"], top_k=1)] == ["c"]
    assert [p.passage for p in fusion.rank("q", ["a", "b", "c"], threshold=0.7)] == ["c"]


def test_a_ranker_that_leaves_passages_out_gives_them_nothing() -> None:
    top = Cascade(ABC, ABC, candidates=1)
    scores = {p.passage: p.score for p in Fusion([top]).rank("q", ["b", "a"])}
    assert scores == {"a": 1.0, "b": 0.0}


def test_a_failed_ranker_counts_for_nothing_and_is_named() -> None:
    failing = fixed(on_error="keep_order")
    fused = Fusion([failing, CBA]).rank("q", ["a", "b", "c"])
    assert [p.passage for p in fused] == ["c", "b", "a"]
    assert fused[0].score == 1.0
    assert "KeyError" in (fused[0].error or "")
    kept = Fusion([failing], input_weight=1.0).rank("q", ["b", "a"], top_k=1)
    assert [(p.passage, p.score, p.rank) for p in kept] == [("b", None, 1)]
    with pytest.raises(KeyError):
        Fusion([CBA, fixed()]).rank("q", ["a"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rankers": []}, "no ranker to fuse"),
        ({"method": "sum"}, "method is 'sum'"),
        ({"weights": [1.0, 2.0]}, "2 weights for 1 rankers"),
        ({"weights": [0.0]}, "a weight is 0.0"),
        ({"weights": [float("nan")]}, "a weight is nan"),
        ({"input_weight": -1.0}, "input_weight is -1.0"),
        ({"constant": -1.0}, "constant is -1.0"),
        ({"method": "weighted", "input_weight": 1.0}, "an order has no scores"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Fusion(**{"rankers": [ABC], **options})  # type: ignore[arg-type]


def test_fusion_survives_pickling(overlap: WordOverlap) -> None:
    fusion = Fusion([Reranker.from_scorer(overlap, name="words")], input_weight=1.0)
    again = pickle.loads(pickle.dumps(fusion))
    assert isinstance(again, Ranker)
    assert again.rank("run", PASSAGES) == fusion.rank("run", PASSAGES)


async def test_awaiting_gives_the_same(overlap: WordOverlap) -> None:
    fusion = Fusion([Reranker.from_scorer(overlap, name="words"), ABC, CBA], weights=[1, 2, 3])
    assert await fusion.arank("a b", ["c", "b", "a"]) == fusion.rank("a b", ["c", "b", "a"])


async def test_a_failure_or_a_cancelled_task_leaves_nothing_running() -> None:
    ended: list[str] = []

    class Slow:
        model_name = "slow"

        def rank(self, *_: object, **__: object) -> list[object]:
            raise NotImplementedError

        async def arank(self, *_: object, **__: object) -> list[object]:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("slow")
            return []

    with pytest.raises(KeyError):
        await Fusion([Slow(), fixed()]).arank("q", ["a"])  # type: ignore[list-item]
    assert ended == ["slow"]
    task = asyncio.create_task(Fusion([Slow()]).arank("q", ["a"]))  # type: ignore[list-item]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["slow"]


def test_real_models_fuse_and_keep_the_span(embedded: Reranker, bi_encoder: BiEncoder) -> None:
    fused = Fusion([bi_encoder, embedded], input_weight=0.5).rank("run a command", PASSAGES)
    assert fused[0].passage == "run a command"
    assert fused[0].span == (0, len("run a command"))
    assert fused[0].score == 1.0
    assert not fused[0].truncated
    assert fused[0].model == "input order + embedded + embedded"
