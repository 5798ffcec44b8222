"""The Ray scorer on a real cluster of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import ray
import torch
from langchain_core.documents import Document

from benchmarks.peer_report import PeerModelRecord
from benchmarks.ray_comparison import measure_ray
from gpurerank import InputError, ModelNotFoundError, RayScorer, Reranker, calling
from gpurerank.benchmark.bench_options import BenchOptions
from gpurerank.benchmark.model_under_test import ModelUnderTest
from gpurerank.errors import ClosedError, DeadlineError
from langchain_gpurerank import GPURerank
from tests.clusters import cluster

__all__ = ["cluster"]
pytestmark = pytest.mark.usefixtures("cluster")

QUERY = "how do I compare two files?"
PASSAGES = [
    f"passage {n} about {t}" for n, t in enumerate(("files", "bread", "diffs", "bees") * 10)
]
PAIRS = [(f"{QUERY} {n % 3}", passage) for n, passage in enumerate(PASSAGES)]


@pytest.fixture(scope="module")
def pool(cluster: None, tiny: str) -> Iterator[RayScorer]:
    with RayScorer(tiny, replicas=2, pairs_per_task=7, dtype="float32", max_length=64) as pool:
        yield pool


@pytest.fixture(scope="module")
def wanted(tiny: str) -> list[float]:
    with Reranker(tiny, dtype="float32", max_length=64) as reranker:
        return reranker.score_pairs(PAIRS)


def pids(pool: RayScorer) -> list[int]:
    """The processes of the replicas."""
    return [ray.get(actor.__ray_call__.remote(lambda _: os.getpid())) for actor in pool._busy]


def test_a_pool_scores_as_one_process_does(pool: RayScorer, wanted: list[float]) -> None:
    np.testing.assert_allclose(pool.score_pairs(PAIRS), wanted, rtol=0, atol=1e-5)
    found = asyncio.run(pool.ascore_pairs(PAIRS))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert pool.score_pairs([]) == []
    for once in (iter(PAIRS), filter(None, PAIRS)):
        np.testing.assert_allclose(pool.score_pairs(once), wanted, rtol=0, atol=1e-5)
    found = asyncio.run(pool.ascore_pairs(pair for pair in PAIRS))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_long_passage_is_scored_by_its_best_window(pool: RayScorer, tiny: str) -> None:
    pair = (QUERY, " ".join(PASSAGES))
    with Reranker(tiny, dtype="float32", max_length=64) as reranker:
        assert pool.score_pairs([pair]) == pytest.approx(reranker.score_pairs([pair]), abs=1e-5)


def test_a_plugin_takes_the_pool(pool: RayScorer, tiny: str) -> None:
    documents = [Document(passage) for passage in PASSAGES]
    ranker = Reranker.from_scorer(pool, name=tiny)
    found = GPURerank(ranker=ranker, top_n=3).compress_documents(documents, QUERY)
    alone = GPURerank(model=tiny, dtype="float32", max_length=64, top_n=3)
    wanted = alone.compress_documents(documents, QUERY)
    # Two scores of this model may be as close as rounding, and change places by it.
    for one, other in zip(found, wanted, strict=True):
        score = pytest.approx(other.metadata["relevance_score"], abs=1e-5)
        assert one.metadata["relevance_score"] == score


def test_progress_counts_pairs(pool: RayScorer) -> None:
    seen: list[tuple[int, int]] = []
    with calling(on_progress=lambda done, total: seen.append((done, total))):
        pool.score_pairs(PAIRS)
    assert seen[-1] == (len(PAIRS), len(PAIRS))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_what_is_wrong_with_a_pair_is_said_as_in_this_process(pool: RayScorer) -> None:
    with pytest.raises(InputError, match="passage of pair 0 is int"):
        pool.score_pairs([(QUERY, 3)])  # type: ignore[list-item]
    with pytest.raises(InputError, match="the query is blank"):
        pool.score_pairs([(" ", PASSAGES[0])])


def test_a_wrong_model_fails_at_once_and_says_why(cluster: None) -> None:
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        RayScorer("no-such-model")


def test_more_than_the_cluster_has_is_refused_and_not_waited_for(cluster: None, tiny: str) -> None:
    with pytest.raises(InputError, match="the cluster has 0: lower them"):
        RayScorer(tiny, num_gpus=1)
    with pytest.raises(InputError, match="want 3, and the cluster has 2"):
        RayScorer(tiny, replicas=3, num_cpus=1)


def test_a_deadline_is_kept(pool: RayScorer) -> None:
    many = [(f"{QUERY} {n}", " ".join(PASSAGES)) for n in range(400)]
    with pytest.raises(DeadlineError):
        Reranker.from_scorer(pool, name="pool", timeout_s=0.05).score_pairs(many)
    with pytest.raises(DeadlineError):
        asyncio.run(Reranker.from_scorer(pool, name="pool", timeout_s=0.05).ascore_pairs(many))


def test_a_replica_that_is_killed_comes_back_and_nothing_is_lost(
    pool: RayScorer, wanted: list[float]
) -> None:
    before = pids(pool)
    found: list[list[float]] = []
    callers = [
        threading.Thread(target=lambda: found.append(pool.score_pairs(PAIRS * 5))) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    os.kill(before[0], signal.SIGKILL)
    for caller in callers:
        caller.join()
    assert len(found) == len(callers)
    for scores in found:
        np.testing.assert_allclose(scores, wanted * 5, rtol=0, atol=1e-5)
    assert set(pids(pool)) != set(before)


def test_the_benchmark_scores_the_same_pairs_on_a_pool_and_in_this_process(
    cluster: None, tiny: str
) -> None:
    notes: list[str] = []
    options, record = BenchOptions(device="cpu", rounds=2), PeerModelRecord("tiny")
    with closing(ModelUnderTest(tiny, record, options, lambda _: None, notes.append)) as model:
        measure_ray(model, record, pairs=300)
    measured = record.ray
    assert measured is not None
    assert (len(measured.ray_s), len(measured.in_process_s)) == (2, 2)
    assert measured.replicas == torch.get_num_threads()
    assert measured.largest_difference < 1e-5
    assert ray.is_initialized()


def test_a_closed_pool_says_so(pool: RayScorer) -> None:
    pool.close()
    with pytest.raises(ClosedError):
        pool.score_pairs(PAIRS)
