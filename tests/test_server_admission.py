"""Admission by estimated work: in tokens of a measured rate, a request as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx
import pytest

from gpurerank import Reranker
from gpurerank.server.admission import Admission, estimated_tokens
from gpurerank.server.models import ServedModels
from gpurerank.server.options import Limits
from gpurerank.server.refusal import Refusal
from tests.serving import DOCUMENTS, QUERY, Gate, eventually, options_of, running
from tests.time_limits import HANG_S


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    """One that measured 1,000 tokens a second, with room for 2 s."""
    admission = Admission(2.0, clock)
    with admission.admitted(1_000):
        clock.now += 1.0
    return admission


def test_the_rate_is_what_was_done_while_there_was_work(admission: Admission, clock: Clock) -> None:
    assert admission.tokens_per_s == 1_000
    clock.now += 500.0  # idle
    with admission.admitted(3_000):
        clock.now += 1.0
    assert admission.tokens_per_s == 2_000


def test_requests_side_by_side_are_measured_together(admission: Admission, clock: Clock) -> None:
    with admission.admitted(500), admission.admitted(500):
        clock.now += 1.0
    assert admission.tokens_per_s == 1_000


def test_what_failed_measures_nothing(admission: Admission, clock: Clock) -> None:
    with pytest.raises(RuntimeError), admission.admitted(1_000):
        raise RuntimeError
    assert admission.tokens_per_s == 1_000
    assert admission.queued_tokens == 0


def test_the_rate_follows_the_last_seconds(admission: Admission, clock: Clock) -> None:
    for _ in range(30):
        with admission.admitted(4_000):
            clock.now += 1.0
    assert admission.tokens_per_s == pytest.approx(4_000, rel=0.05)


@pytest.mark.parametrize(("tokens", "retry_s"), [(600, 1), (1_500, 2), (9_000, 2)])
def test_over_the_limit_is_told_when_to_come(
    admission: Admission, tokens: int, retry_s: int
) -> None:
    with admission.admitted(600), admission.admitted(600), admission.admitted(600):
        with pytest.raises(Refusal) as refused, admission.admitted(tokens):
            pass
        assert refused.value.status == 429
        assert refused.value.retry_after_s == retry_s
        assert refused.value.response().headers["retry-after"] == str(retry_s)
        assert admission.queued_tokens == 1_800


def test_after_that_time_it_is_let_in(admission: Admission, clock: Clock) -> None:
    first, second = admission.admitted(1_000), admission.admitted(900)
    first.__enter__()
    second.__enter__()
    with pytest.raises(Refusal) as refused, admission.admitted(900):
        pass
    assert refused.value.retry_after_s == 1
    clock.now += 1.0
    first.__exit__(None, None, None)
    with admission.admitted(900):
        assert admission.queued_tokens == 1_800
    second.__exit__(None, None, None)


def test_it_recovers_at_once(admission: Admission) -> None:
    with admission.admitted(1_000), admission.admitted(1_000):
        with pytest.raises(Refusal), admission.admitted(1_000):
            pass
    with admission.admitted(1_000), admission.admitted(1_000):
        pass


def test_a_small_request_does_not_wait_for_a_large_one(admission: Admission) -> None:
    with admission.admitted(1_000_000), admission.admitted(900):
        assert admission.queued_tokens == 1_000_900
        with pytest.raises(Refusal), admission.admitted(900):
            pass
        with admission.admitted(600):
            assert admission.queued_tokens == 1_001_500


def test_where_nothing_waits_any_size_is_let_in(admission: Admission) -> None:
    with admission.admitted(1_000_000):
        assert admission.queued_tokens == 1_000_000


def test_a_query_counts_with_every_passage() -> None:
    assert estimated_tokens("a" * 40, ["b" * 400] * 10) == 1_100
    assert estimated_tokens("", [""]) == 1


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

        # 2,000 tokens a second before anything is measured: one has room, and never two.
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
