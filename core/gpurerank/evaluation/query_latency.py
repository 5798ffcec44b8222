"""Latency of a ranker for one query at a time, from strings to a ranking."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpurerank.evaluation.query_set import JudgedQuery
from gpurerank.types import Ranker, TextEmbedder

ROUNDS = 20
MIN_ROUNDS = 3
WARM_UP_ROUNDS = 2
# A slow contender gets fewer rounds, so that a run on two cores takes minutes.
TIME_LIMIT_S = 4.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Latency of one contender at one depth: milliseconds of every round, in order."""

    times_ms: list[float]

    @property
    def p50_ms(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.times_ms)

    @property
    def p95_ms(self) -> float | None:
        """95th percentile; None below 20 rounds, where it would be the maximum by another name."""
        if len(self.times_ms) < ROUNDS:
            return None
        return float(np.percentile(self.times_ms, 95))


class UncachedRequests:
    """Queries with their candidates, made so that no model has any of the texts in a cache.

    Models cache tokens and vectors by text. Each use of a text appends one more space to it, which
    makes it a new key and means nothing to a model.

    Args:
        queries: Where the texts come from.
        seed: Of the order of the queries.
    """

    def __init__(self, queries: Sequence[JudgedQuery], seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(queries)).tolist()
        self._queries = [queries[row] for row in order]
        self._request_count = 0
        self._use_counts: Counter[str] = Counter()

    def next(self, depth: int) -> tuple[str, list[str]]:
        """The next query with its first ``depth`` candidates."""
        # A query with fewer candidates would make the depth look faster than it is.
        full = [q for q in self._queries if len(q.candidates) >= depth]
        pool = full or self._queries
        query = pool[self._request_count % len(pool)]
        self._request_count += 1
        passages = [self._uncached(candidate.text) for candidate in query.candidates[:depth]]
        return self._uncached(query.text), passages

    def _uncached(self, text: str) -> str:
        self._use_counts[text] += 1
        return text + " " * self._use_counts[text]


def measure_latency(
    ranker: Ranker,
    requests: UncachedRequests,
    depth: int,
    *,
    embedders: Sequence[TextEmbedder] = (),
) -> Timing:
    """Times a ranker, one call after another, after a few warm-up calls that do not count.

    Args:
        ranker: What is timed.
        requests: Source of queries and passages.
        depth: Candidates of each request.
        embedders: Embed the passages of each request before its clock starts, as an index would
            have done.

    Returns:
        20 rounds; down to 3 where they take more than 4 seconds.
    """
    # The first calls compile kernels and fill caches; a slow ranker gets one warm-up round.
    started = time.perf_counter()
    for _ in range(WARM_UP_ROUNDS):
        _time_request(ranker, requests, depth, embedders)
        if time.perf_counter() - started > TIME_LIMIT_S / 4:
            break
    times_ms: list[float] = []
    started = time.perf_counter()
    while len(times_ms) < ROUNDS:
        if len(times_ms) >= MIN_ROUNDS and time.perf_counter() - started > TIME_LIMIT_S:
            break
        times_ms.append(_time_request(ranker, requests, depth, embedders))
    return Timing(times_ms)


def _time_request(
    ranker: Ranker, requests: UncachedRequests, depth: int, embedders: Sequence[TextEmbedder]
) -> float:
    query, passages = requests.next(depth)
    # Fills the vector cache of the bi-encoder, outside the measured time.
    for embedder in embedders:
        embedder.embed_passages(passages)
    started = time.perf_counter()
    ranker.rank(query, passages)
    return (time.perf_counter() - started) * 1000.0
