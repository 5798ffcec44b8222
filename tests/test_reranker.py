"""The facade: what goes in is unchanged, what comes out is right, what is wrong is said."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from gpurerank import (
    BiEncoder,
    Cascade,
    CrossEncoder,
    DeadlineError,
    InputError,
    LargestGap,
    MemoryStore,
    NotFiniteError,
    Reranker,
    ScoringError,
    TokenBudget,
)
from gpurerank.types import RankedPassage
from tests.conftest import WordOverlap, items_run
from tests.tiny_models import PASSAGES, tiny_reranker


class Constant:
    """Gives every pair the same score."""

    def __init__(self, score: float) -> None:
        self._score = score

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [self._score] * len(pairs)


class Broken:
    """Fails as a model would."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        raise RuntimeError("the device is gone")


def test_ranking_is_sorted_and_names_places(overlap: WordOverlap) -> None:
    ranked = Reranker.from_scorer(overlap, name="overlap").rank("compares two files", PASSAGES)
    assert [p.index for p in ranked] == [2, 0, 1, 3]
    assert [p.rank for p in ranked] == [1, 2, 3, 4]
    assert ranked[0].previous_rank == 3
    assert ranked[0].passage is PASSAGES[2]
    assert ranked[0].model == "overlap"


def test_ties_keep_input_order() -> None:
    ranked = Reranker.from_scorer(Constant(0.5), name="constant").rank("q", list("abcdef"))
    assert [p.index for p in ranked] == [0, 1, 2, 3, 4, 5]


def test_duplicates_are_scored_once_and_all_returned(overlap: WordOverlap) -> None:
    passages = ["two files", "fox", "two files", "fox"]
    ranked = Reranker.from_scorer(overlap, name="overlap").rank("files", passages)
    assert [p.index for p in ranked] == [0, 2, 1, 3]
    assert len(overlap.seen) == 2


@pytest.mark.parametrize(("top_k", "kept"), [(0, 0), (2, 2), (4, 4), (99, 4), (None, 4)])
def test_top_k_limits_what_is_returned(top_k: int | None, kept: int, overlap: WordOverlap) -> None:
    ranked = Reranker.from_scorer(overlap, name="overlap").rank("command", PASSAGES, top_k)
    assert len(ranked) == kept


def test_threshold_can_leave_none(overlap: WordOverlap) -> None:
    reranker = Reranker.from_scorer(overlap, name="overlap")
    assert [p.index for p in reranker.rank("command", PASSAGES, threshold=0.5)] == [0]
    assert reranker.rank("zebra", PASSAGES, threshold=0.1) == []


def test_largest_gap_keeps_what_stands_above_it(overlap: WordOverlap) -> None:
    reranker = Reranker.from_scorer(overlap, name="overlap")
    passages = ["compares two files", "two files", "nothing", "at all"]
    kept = reranker.rank("compares two files", passages, cut_off=LargestGap())
    assert [p.index for p in kept] == [0, 1]
    kept = reranker.rank("compares two files", passages, cut_off=LargestGap(at_least=3))
    assert [p.index for p in kept] == [0, 1, 2]


def test_token_budget_stops_at_the_first_that_does_not_fit(overlap: WordOverlap) -> None:
    reranker = Reranker.from_scorer(overlap, name="overlap")
    budget = TokenBudget(max_tokens=12, count_tokens=lambda text: len(text.split()))
    assert [p.index for p in reranker.rank("command", PASSAGES, cut_off=budget)] == [0, 1]
    assert reranker.rank("command", PASSAGES, cut_off=TokenBudget(max_tokens=1)) == []


def test_empty_list_gives_an_empty_ranking(tiny: str) -> None:
    assert tiny_reranker(tiny).rank("anything", []) == []


@pytest.mark.parametrize(
    ("query", "passages", "top_k", "threshold", "said"),
    [
        ("", ["a"], None, None, "the query is blank"),
        (" \n", ["a"], None, None, "the query is blank"),
        (None, ["a"], None, None, "the query is NoneType"),
        ("q", "a string", None, None, "the passages are one string"),
        ("q", ["a", None], None, None, "passage 1 is NoneType"),
        ("q", ["a", b"b"], None, None, "passage 1 is bytes"),
        ("q", ["a"], -1, None, "top_k is -1"),
        ("q", ["a"], 1.5, None, "top_k is 1.5"),
        ("q", ["a"], True, None, "top_k is True"),
        ("q", ["a"], None, float("nan"), "threshold is nan"),
        ("q", ["a"], None, "0.5", "threshold is '0.5'"),
    ],
)
def test_wrong_input_is_named(
    query: str,
    passages: list[str],
    top_k: int | None,
    threshold: float | None,
    said: str,
    overlap: WordOverlap,
) -> None:
    reranker = Reranker.from_scorer(overlap, name="overlap", on_error="keep_order")
    with pytest.raises(InputError, match=said):
        reranker.rank(query, passages, top_k, threshold)


@pytest.mark.parametrize(
    "passage",
    [
        "\ud800 a lone surrogate \udfff",
        "a \x00 NUL",
        "\u202e right to left",
        "😀" * 40,
        "\ufeffbom",
    ],
)
def test_odd_characters_are_scored(passage: str, tiny: str) -> None:
    ranked = tiny_reranker(tiny).rank("\ud83d a query", ["plain", passage])
    assert sorted(p.index for p in ranked) == [0, 1]
    assert {p.passage for p in ranked} == {"plain", passage}
    assert all(p.score is not None and 0 <= p.score <= 1 for p in ranked)


def test_blank_passages_score_zero_and_come_last(tiny: str) -> None:
    ranked = tiny_reranker(tiny).rank("command", ["", *PASSAGES, " \n\t"])
    assert [p.index for p in ranked[-2:]] == [0, 5]
    assert [(p.score, p.span) for p in ranked[-2:]] == [(0.0, None), (0.0, None)]


def test_input_is_unchanged(tiny: str) -> None:
    passages = [*PASSAGES, "", "word " * 2000]
    before = copy.deepcopy(passages)
    tiny_reranker(tiny, max_length=64).rank("a command", passages, top_k=2)
    assert passages == before


def test_results_survive_json(tiny: str) -> None:
    for passage in tiny_reranker(tiny).rank("a command", PASSAGES):
        values = json.loads(json.dumps(passage.to_dict()))
        assert values == passage.to_dict()
        assert type(passage.score) is float
        assert type(passage.logit) is float
        again = RankedPassage(**{**values, "span": tuple(values["span"])})
        assert again == passage


def test_a_failed_model_raises_or_keeps_the_order() -> None:
    with pytest.raises(RuntimeError, match="the device is gone"):
        Reranker.from_scorer(Broken(), name="broken").rank("q", PASSAGES)
    kept = Reranker.from_scorer(Broken(), name="broken", on_error="keep_order").rank(
        "q", PASSAGES, top_k=3
    )
    assert [p.index for p in kept] == [0, 1, 2]
    assert {p.score for p in kept} == {None}
    assert kept[0].error == "RuntimeError: the device is gone"
    assert json.loads(json.dumps(kept[0].to_dict()))["score"] is None


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 1.5, -0.1])
def test_a_score_that_is_none_is_an_error(score: float) -> None:
    reranker = Reranker.from_scorer(Constant(score), name="constant")
    with pytest.raises(NotFiniteError, match="a score lies in"):
        reranker.rank("q", PASSAGES)
    with pytest.raises(NotFiniteError, match="a score lies in"):
        reranker.score_pairs([("q", "a")])


def test_a_wrong_number_of_scores_is_an_error() -> None:
    class Short:
        def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return [0.5]

    reranker = Reranker.from_scorer(Short(), name="short")
    with pytest.raises(ScoringError, match="gave 1 scores for 4 pairs"):
        reranker.rank("q", PASSAGES)
    with pytest.raises(ScoringError, match="gave 1 scores for 4 pairs"):
        reranker.score_pairs([("q", passage) for passage in PASSAGES])


def test_deadline_stops_between_batches(tiny: str) -> None:
    reranker = tiny_reranker(tiny, timeout_s=0.02)
    passages = [f"passage {i} " * 60 for i in range(3000)]
    with pytest.raises(DeadlineError):
        reranker.rank("q", passages)
    kept = tiny_reranker(tiny, timeout_s=0.02, on_error="keep_order").rank("q", passages)
    assert [p.index for p in kept] == list(range(3000))
    assert kept[0].error is not None
    assert kept[0].error.startswith("DeadlineError")
    assert len(tiny_reranker(tiny).rank("q", PASSAGES)) == 4


async def test_cancelling_stops_the_work(tiny: str) -> None:
    reranker = tiny_reranker(tiny)
    assert isinstance(reranker._own, CrossEncoder)
    engine = reranker._own._lease.engine
    before = items_run(engine)
    passages = [f"passage {i} " * 60 for i in range(3000)]
    task = asyncio.create_task(reranker.arank("q", passages))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await reranker.arank("q", PASSAGES)) == 4
    assert items_run(engine) - before < len(passages) / 2


async def test_async_ranks_as_sync(tiny: str, overlap: WordOverlap) -> None:
    for reranker in (tiny_reranker(tiny), Reranker.from_scorer(overlap, name="overlap")):
        assert await reranker.arank("a command", PASSAGES) == reranker.rank("a command", PASSAGES)


async def test_event_loop_is_never_held(embedded: Reranker) -> None:
    passages = [f"{PASSAGES[i % 4]} number {i} " * 8 for i in range(200)]

    async def longest_gap() -> float:
        worst, last = 0.0, time.perf_counter()
        work = asyncio.create_task(embedded.arank("run a command", passages))
        while not work.done():
            await asyncio.sleep(0.002)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
        await work
        return worst

    # A held loop is held in every call; other work on the machine spares one of many.
    for _ in range(30):
        if (gap := await longest_gap()) < 0.05:
            return
    raise AssertionError(f"the event loop was held for {gap:.3f} s")


def test_cache_answers_what_it_has_seen(overlap: WordOverlap) -> None:
    reranker = Reranker.from_scorer(overlap, name="overlap", cache=MemoryStore())
    first = reranker.rank("a command", PASSAGES)
    assert reranker.rank("a command", [*PASSAGES, "new"])[:4] == first
    assert len(overlap.seen) == 5


async def test_cache_over_a_synchronous_scorer_is_awaited(overlap: WordOverlap) -> None:
    reranker = Reranker.from_scorer(overlap, name="overlap", cache=MemoryStore())
    assert await reranker.arank("a command", PASSAGES) == reranker.rank("a command", PASSAGES)


def test_deadline_of_a_scorer_of_ones_own() -> None:
    class Slow(Constant):
        def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            threading.Event().wait(0.3)
            return super().score_pairs(pairs)

    reranker = Reranker.from_scorer(Slow(0.5), name="slow", timeout_s=0.05)
    with pytest.raises(DeadlineError):
        reranker.rank("q", PASSAGES)
    with pytest.raises(DeadlineError):
        asyncio.run(reranker.arank("q", PASSAGES))


def test_gaps_ignore_blanks_and_ties() -> None:
    class Given:
        def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return [float(passage) for _, passage in pairs]

    reranker = Reranker.from_scorer(Given(), name="given")
    kept = reranker.rank("q", ["0.99", "0.02", "0.01", " "], cut_off=LargestGap())
    assert [p.index for p in kept] == [0]
    assert len(reranker.rank("q", ["0.5"] * 4, cut_off=LargestGap())) == 4
    assert len(reranker.rank("q", ["0.5"], cut_off=LargestGap())) == 1
    with pytest.raises(InputError, match="at_least is 0"):
        LargestGap(at_least=0)


def test_numbers_of_numpy_are_limits(overlap: WordOverlap) -> None:
    reranker = Reranker.from_scorer(overlap, name="overlap")
    ranked = reranker.rank("command", PASSAGES, np.int64(2), np.float32(0.1))
    assert [p.index for p in ranked] == [0]


def test_score_pairs_mixes_queries(tiny: str) -> None:
    reranker = tiny_reranker(tiny, max_length=64)
    pairs = [("a", "x"), ("b", "word " * 300), ("a", ""), ("b", "x"), ("a", "x")]
    scores = reranker.score_pairs(pairs)
    for (query, passage), score in zip(pairs, scores, strict=True):
        expected = reranker.rank(query, [passage])[0].score
        assert score == pytest.approx(expected, abs=1e-6)
    assert reranker.score_pairs([]) == []


def test_cascade_ranks_what_the_first_stage_keeps(overlap: WordOverlap) -> None:
    first = Reranker.from_scorer(overlap, name="first")
    second = Reranker.from_scorer(Constant(0.25), name="second")
    passages = [f"filler {i}" for i in range(1200)]
    passages[700], passages[1100] = "zebra crossing", "zebra"
    ranked = Cascade(first, second, candidates=2).rank("zebra crossing", passages)
    assert [(p.index, p.previous_rank) for p in ranked] == [(700, 1), (1100, 2)]
    assert ranked[0].previous_score == pytest.approx(2 / 3)
    assert ranked[0].score == 0.25
    with pytest.raises(InputError, match="candidates is 0"):
        Cascade(first, second, candidates=0)


async def test_cascade_of_models_awaits(embedded: Reranker, bi_encoder: BiEncoder) -> None:
    passages = [f"filler text number {i}" for i in range(1000)]
    passages[500] = PASSAGES[0]
    cascade = Cascade(bi_encoder, embedded, candidates=10)
    ranked = await cascade.arank("how do I run a shell command?", passages, top_k=3)
    assert ranked[0].index == 500
    assert len(ranked) == 3
    assert cascade.model_name == "embedded > embedded"


def test_bi_encoder_ranks_by_cosine(bi_encoder: BiEncoder) -> None:
    ranked = bi_encoder.rank("compare files", PASSAGES, top_k=2)
    vectors = bi_encoder.embed_passages(PASSAGES)
    cosines = vectors @ bi_encoder.embed_queries(["compare files"])[0]
    assert ranked[0].index == 2 == int(np.argmax(cosines))
    assert ranked[0].score == pytest.approx(float(cosines[2]), abs=1e-3)


def test_progress_is_shown_on_standard_error(tiny: str, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_reranker(tiny).score_pairs([("q", p) for p in PASSAGES], show_progress=True)
    assert "4/4" in capfd.readouterr().err
