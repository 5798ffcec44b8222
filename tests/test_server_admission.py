"""Admission by estimated work: the seconds that a request takes in full batches, as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx
import pytest

from gpurerank import BiEncoder, Cascade, Reranker
from gpurerank.engine.batch_budget import BatchBudget
from gpurerank.server.admission import Admission, Work
from gpurerank.server.models import ServedModels
from gpurerank.server.options import Limits
from gpurerank.server.refusal import Refusal
from gpurerank.server.work_estimates import WorkEstimates
from tests.conftest import WordOverlap
from tests.serving import DOCUMENTS, QUERY, Gate, eventually, options_of, running
from tests.time_limits import HANG_S


@pytest.fixture
def admission() -> Admission:
    """One with room for 2 s."""
    return Admission(2.0)


def work_of(seconds: float) -> Work:
    return Work(tokens=seconds * 1_000, seconds=seconds)


@pytest.mark.parametrize(("seconds", "retry_s"), [(0.6, 1), (1.5, 2), (9.0, 2)])
def test_over_the_limit_is_told_when_to_come(
    admission: Admission, seconds: float, retry_s: int
) -> None:
    with (
        admission.admitted(work_of(0.6)),
        admission.admitted(work_of(0.6)),
        admission.admitted(work_of(0.6)),
    ):
        with pytest.raises(Refusal) as refused, admission.admitted(work_of(seconds)):
            pass
        assert refused.value.status == 429
        # Never more than what waits, however large the request is that comes.
        assert refused.value.retry_after_s == retry_s
        assert refused.value.response().headers["retry-after"] == str(retry_s)
        assert "1.8 s of work" in refused.value.message
        assert admission.queued_tokens == 1_800


def test_what_is_done_waits_no_more(admission: Admission) -> None:
    large = work_of(60.0)
    with admission.admitted(large):
        with pytest.raises(Refusal) as refused, admission.admitted(work_of(8.0)):
            pass
        assert refused.value.retry_after_s == 8
        large.report(1_180, 1_200)
        with pytest.raises(Refusal) as refused, admission.admitted(work_of(8.0)):
            pass
        assert refused.value.retry_after_s == 1
        large.report(1_200, 1_200)
        # A second model begins: what remains never grows again.
        large.report(1, 1_200)
        assert admission.queued_tokens == 0
        with admission.admitted(work_of(8.0)):
            pass


def test_it_recovers_at_once(admission: Admission) -> None:
    with admission.admitted(work_of(1.0)), admission.admitted(work_of(1.0)):
        with pytest.raises(Refusal), admission.admitted(work_of(1.0)):
            pass
    with admission.admitted(work_of(1.0)), admission.admitted(work_of(1.0)):
        pass
    with pytest.raises(RuntimeError), admission.admitted(work_of(1.0)):
        raise RuntimeError
    assert admission.queued_tokens == 0


def test_a_small_request_does_not_wait_for_a_large_one(admission: Admission) -> None:
    with admission.admitted(work_of(1_000.0)), admission.admitted(work_of(0.9)):
        assert admission.queued_tokens == 1_000_900
        with pytest.raises(Refusal), admission.admitted(work_of(0.9)):
            pass
        with admission.admitted(work_of(0.6)):
            assert admission.queued_tokens == 1_001_500


def test_where_nothing_waits_any_size_is_let_in(admission: Admission) -> None:
    with admission.admitted(work_of(1_000.0)):
        assert admission.queued_tokens == 1_000_000


def test_the_rate_of_full_batches_ignores_small_ones() -> None:
    budget = BatchBudget(min_tokens=512, max_tokens=1_024, batch_s=0.05)
    # A guess on the high side, before any.
    assert budget.full_tokens_per_s == 512 / 0.05
    for _ in range(200):
        budget.record(8, 0.004)
    assert budget.full_tokens_per_s == 512 / 0.05
    budget.record(1_000, 0.2)
    for _ in range(2_000):
        budget.record(8, 0.004)
    assert budget.full_tokens_per_s == pytest.approx(5_000)
    for _ in range(100):
        budget.record(512, 0.2)
    assert budget.full_tokens_per_s == pytest.approx(2_560, rel=0.01)


class Named:
    """A ranker of a scorer without an engine, whose rate is taken to be 2,000 tokens a second."""

    @staticmethod
    def reranker(name: str) -> Reranker:
        return Reranker.from_scorer(WordOverlap(), name=name)


def test_a_query_counts_with_every_passage_and_special_tokens_too() -> None:
    work = WorkEstimates().estimate(Named.reranker("a"), "a" * 40, ["b" * 400] * 10)
    assert (work.tokens, work.seconds) == (1_130, 1_130 / 2_000)


def test_tokens_follow_what_answered_requests_had() -> None:
    estimates, reranker = WorkEstimates(), Named.reranker("a")
    passages = ["字" * 997] * 100
    before = estimates.estimate(reranker, "字" * 3, passages).tokens
    for _ in range(20):
        estimates.learn(reranker, "字" * 3, passages, round(3 * before))
    after = estimates.estimate(reranker, "字" * 3, passages).tokens
    assert after == pytest.approx(3 * before, rel=0.01)
    # Another model learns by itself.
    assert estimates.estimate(Named.reranker("b"), "字" * 3, passages).tokens == before


def test_tiny_and_odd_requests_change_no_estimate() -> None:
    estimates, reranker = WorkEstimates(), Named.reranker("a")
    medium = [" ".join(["word"] * 60)] * 60
    before = estimates.estimate(reranker, QUERY, medium).tokens
    for _ in range(5_000):
        estimates.learn(reranker, "a", ["b"], 40)
    assert estimates.estimate(reranker, QUERY, medium).tokens == before
    # One endless word is one token: the estimate is low then, and not zero.
    for _ in range(100):
        estimates.learn(reranker, "a", ["b" * 1_000_000], 5)
    assert estimates.estimate(reranker, QUERY, medium).tokens == before / 2


def test_an_embedder_cuts_what_is_longer(bi_encoder: BiEncoder) -> None:
    estimates = WorkEstimates()
    long = estimates.estimate(bi_encoder, "", ["word " * 100_000])
    assert long.tokens == bi_encoder.max_length
    both = estimates.estimate(bi_encoder, "a" * 4, ["a" * 4, "a" * 8])
    assert both.tokens == 3 * 3 + 4


def test_a_cascade_takes_what_both_of_its_models_take(bi_encoder: BiEncoder) -> None:
    estimates, reranker = WorkEstimates(), Named.reranker("a")
    cascade = Cascade(bi_encoder, reranker, candidates=2)
    passages = ["a" * 40, "b" * 400, "c" * 400]
    first = estimates.estimate(bi_encoder, QUERY, passages)
    second = estimates.estimate(reranker, QUERY, passages[1:])
    work = estimates.estimate(cascade, QUERY, passages)
    assert work.tokens == first.tokens + second.tokens
    assert work.seconds == first.seconds + second.seconds


def test_tiny_remembered_and_wrong_requests_leave_the_rate_as_it_is() -> None:
    options = options_of("embedded", embedders=(), cached_scores=100)
    with running(options) as server:
        reranker = server.service.models.reranker(None)
        query, passages = "what is it about", many_passages()
        body = {"query": query, "documents": passages}
        engines = reranker.stats, reranker.late_stats
        ran_before = [stats().items for stats in engines]
        assert server.post("/v1/rerank", body).status_code == 200
        # A batch is recorded just after its results are delivered.
        for stats, ran in zip(engines, ran_before, strict=True):
            eventually(lambda stats=stats, ran=ran: stats().items >= ran + len(passages))
        estimates = WorkEstimates()
        before = estimates.estimate(reranker, query, passages).seconds
        for number in range(40):
            tiny = {"query": f"a{number % 10}", "documents": ["b"]}
            assert server.post("/v1/rerank", tiny).status_code == 200
        wrong = {**body, "top_n": "x", "padding": "x" * 100_000}
        assert server.post("/v1/rerank", wrong).status_code == 422
        assert estimates.estimate(reranker, query, passages).seconds == before


def many_passages() -> list[str]:
    """Ten of about 150 tokens, which fill several batches on a CPU."""
    words = [f"word{number * 7_919 % 999}" for number in range(600)]
    return [" ".join(words[start : start + 60]) for start in range(0, 600, 60)]


def test_overload_is_429_as_a_whole_and_over_at_once(model_folder: Callable[[str], str]) -> None:
    gate = Gate()

    def change(models: ServedModels) -> None:
        models.rerankers = {"gate": Reranker.from_scorer(gate, name="gate")}

    body = {"query": QUERY, "documents": [d * 20 for d in DOCUMENTS]}
    options = options_of(model_folder("bert"), embedders=(), limits=Limits(queued_s=1.0))
    with running(options, change) as server:
        statuses: list[int] = []

        def ask() -> None:
            answer = httpx.post(f"{server.url}/v1/rerank", json=body, timeout=HANG_S)
            statuses.append(answer.status_code)

        # A scorer without an engine counts as 2,000 tokens a second: one has room, and never two.
        threads = [threading.Thread(target=ask)]
        threads[0].start()
        eventually(lambda: gate.calls == 1)
        large = {**body, "documents": body["documents"] * 10}
        refused = [server.post("/v1/rerank", large) for _ in range(20)]
        assert {answer.status_code for answer in refused} == {429}
        assert {answer.headers["retry-after"] for answer in refused} <= {"1", "2"}
        assert server.sample("gpurerank_rejected_total", reason="overloaded") == 20
        assert server.client.get("/readyz").status_code == 200
        assert gate.calls == 1
        gate.open.set()
        for thread in threads:
            thread.join(HANG_S)
        assert statuses == [200]
        assert server.post("/v1/rerank", large).status_code == 200
        assert server.sample("gpurerank_queued_tokens") == 0
