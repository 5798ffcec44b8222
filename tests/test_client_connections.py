"""Connections of a client: shared by all who ask, and closed with whoever asked."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gpurerank import ClosedError, DeadlineError, RemoteScorer, calling
from tests.fake_server import FakeServer, Reply, overlap_scores, serving
from tests.time_limits import HANG_S
from tests.tiny_models import PASSAGES

QUERY = "compares two files"
PAIRS = [(QUERY, passage) for passage in PASSAGES]
EXPECTED = overlap_scores(QUERY, PASSAGES)


@pytest.fixture(autouse=True)
def _models_are_freed() -> None:
    """In place of conftest's: nothing here loads a model."""


def test_connections_are_used_again_by_all_threads_and_loops(own: FakeServer) -> None:
    with RemoteScorer(own.url, concurrency=2) as scorer:
        for _ in range(5):
            assert scorer.score_pairs(PAIRS) == EXPECTED
        assert own.connections == 1
        for _ in range(3):
            assert asyncio.run(scorer.ascore_pairs(PAIRS)) == EXPECTED
        assert own.connections == 1

        async def many() -> list[list[float]]:
            return await asyncio.gather(*(scorer.ascore_pairs(PAIRS) for _ in range(10)))

        with ThreadPoolExecutor(4) as pool:
            loops = [pool.submit(asyncio.run, many()) for _ in range(4)]
            assert all(loop.result() == [EXPECTED] * 10 for loop in loops)
        assert own.connections == 2


async def test_a_cancelled_task_closes_its_request() -> None:
    with serving(lambda _: Reply(silent=True)) as server:
        with RemoteScorer(server.url, api="cohere") as scorer:
            task = asyncio.create_task(scorer.ascore_pairs(PAIRS))
            await asyncio.to_thread(server.arrived.wait, HANG_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.left.wait, HANG_S)


async def test_calls_that_end_early_leave_no_connection() -> None:
    with serving(lambda _: Reply(silent=True)) as server:
        with RemoteScorer(server.url, api="cohere", texts_per_request=1) as scorer:
            tasks = [asyncio.create_task(scorer.ascore_pairs(PAIRS)) for _ in range(4)]
            with calling(timeout_s=0.3), pytest.raises(DeadlineError):
                await scorer.ascore_pairs(PAIRS)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for _ in range(server.connections):
                assert await asyncio.to_thread(server.ended.acquire, timeout=HANG_S)


def test_closing_ends_calls_under_way() -> None:
    with serving(lambda _: Reply(silent=True)) as server, ThreadPoolExecutor(1) as pool:
        scorer = RemoteScorer(server.url, api="cohere")
        waiting = pool.submit(scorer.score_pairs, PAIRS)
        assert server.arrived.wait(HANG_S)
        scorer.close()
        with pytest.raises(ClosedError, match="this object was closed"):
            waiting.result(HANG_S)
        assert server.left.wait(HANG_S)
        scorer.close()
        with pytest.raises(ClosedError):
            scorer.score_pairs([])


def test_an_object_that_is_dropped_leaves_no_connection(own: FakeServer) -> None:
    scorer = RemoteScorer(own.url)
    assert scorer.score_pairs(PAIRS) == EXPECTED
    del scorer
    gc.collect()
    assert own.ended.acquire(timeout=HANG_S)


def test_copies_and_pickles_have_their_own_connections(own: FakeServer) -> None:
    with RemoteScorer(own.url, api_key="a-key", model="m", logits=True) as scorer:
        scorer.score_pairs(PAIRS)
        before = own.connections
        for twin in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
            with twin:
                assert twin.score_pairs(PAIRS) == scorer.score_pairs(PAIRS)
            with pytest.raises(ClosedError):
                twin.score_pairs(PAIRS)
        assert own.connections == before + 2
    last = own.posts()[-1]
    assert last.headers["authorization"] == "Bearer a-key"
    assert last.body["model"] == "m"


def score_in_child(scorer: RemoteScorer, results: Any) -> None:
    results.put(scorer.score_pairs(PAIRS))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_asks_for_itself(own: FakeServer) -> None:
    with RemoteScorer(own.url) as scorer:
        assert scorer.score_pairs(PAIRS) == EXPECTED
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        child = context.Process(target=score_in_child, args=(scorer, results))
        child.start()
        assert results.get(timeout=HANG_S) == EXPECTED
        child.join(HANG_S)
        assert child.exitcode == 0
        assert scorer.score_pairs(PAIRS) == EXPECTED
        assert own.connections == 2
