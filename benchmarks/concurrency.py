"""Concurrent callers: what the model gets through, and how long each of them waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from benchmarks.batch_size_search import TUNED
from benchmarks.peer_report import ConcurrencyCell, InterferenceRecord, PeerModelRecord
from gpurerank import Reranker
from gpurerank.benchmark.implementations import GPURERANK, Contender
from gpurerank.benchmark.model_under_test import MAX_LENGTH, ModelUnderTest
from gpurerank.benchmark.synthetic_text import REALISTIC, Request
from gpurerank.benchmark.timing import (
    WARM_UP,
    RoundSchedule,
    garbage_collection_paused,
    rotate,
    timed_ms,
)

PASSAGES_PER_CALL = 20
SMALL_CALLERS = 64
LARGE_CALL_PAIRS = 10_000
# Enough for the large call to reach the model before the small calls start.
HEAD_START_S = 0.05
MAX_LARGE_CALLS = 5

# Serves the callers' requests; returns seconds in total and milliseconds per call.
ServeRequests = Callable[[Sequence[Request]], tuple[float, list[float]]]


def measure_concurrency(
    model: ModelUnderTest, record: PeerModelRecord, callers: Sequence[int]
) -> None:
    """Records the throughput of concurrent callers, and their waits next to a large call."""
    schedule = RoundSchedule(model.options.limit_s, model.max_rounds)
    with open_reranker(model) as reranker:
        ways = _ways(model, reranker)
        for count in callers:
            model.log(f"concurrency: {count} callers")
            _measure(model, record, schedule, ways, count)
        model.log(f"concurrency: {SMALL_CALLERS} callers next to {LARGE_CALL_PAIRS:,} pairs")
        record.beside = _measure_next_to_large_call(model, reranker)


def open_reranker(model: ModelUnderTest) -> Reranker:
    """A reranker with the options of the contender, which shares its copy of the model."""
    return Reranker(
        model.folder, device=str(model.device), dtype=model.dtype, max_length=MAX_LENGTH
    )


def realistic_requests(model: ModelUnderTest, count: int) -> list[Request]:
    """New requests of 20 passages of realistic lengths."""
    return [model.texts.request(REALISTIC, PASSAGES_PER_CALL) for _ in range(count)]


def pairs_of(requests: Sequence[Request]) -> list[tuple[str, str]]:
    """All (query, passage) pairs of the requests."""
    return [(request.query, passage) for request in requests for passage in request.passages]


def call_together(
    rank: Callable[[str, Sequence[str]], object],
    requests: Sequence[Request],
    lock: AbstractContextManager[object] | None = None,
) -> tuple[float, list[float]]:
    """Ranks each request in its own thread; all threads start at the same time.

    Args:
        rank: What each caller calls.
        requests: One per caller.
        lock: Held during each call; waiting for it counts.

    Returns:
        Seconds from the start to the last result, and milliseconds of each call.
    """
    barrier = threading.Barrier(len(requests) + 1)
    calls_ms: list[float] = []
    errors: list[Exception] = []

    def rank_locked(request: Request) -> None:
        with lock or nullcontext():
            rank(request.query, request.passages)

    def call(request: Request) -> None:
        barrier.wait()
        try:
            calls_ms.append(timed_ms(partial(rank_locked, request)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(r,), daemon=True) for r in requests]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return round(time.perf_counter() - started, 6), calls_ms


def _ways(model: ModelUnderTest, reranker: Reranker) -> dict[str, ServeRequests]:
    def score_at_once(requests: Sequence[Request]) -> tuple[float, list[float]]:
        taken_ms = timed_ms(partial(reranker.score_pairs, pairs_of(requests)))
        return round(taken_ms / 1e3, 6), [taken_ms]

    def serve(contender: Contender, lock: AbstractContextManager[object] | None) -> ServeRequests:
        return lambda requests: call_together(contender.rank, requests, lock)

    contenders = {contender.name: contender for contender in model.contenders}
    ways: dict[str, ServeRequests] = {}
    if GPURERANK in contenders:
        ways["gpurerank, callers"] = serve(contenders[GPURERANK], None)
        ways["gpurerank, one call"] = score_at_once
    if TUNED in contenders:
        # A tokenizer of transformers must not be used by two threads at a time.
        ways[f"{TUNED}, locked"] = serve(contenders[TUNED], threading.Lock())
    return ways


def _measure(
    model: ModelUnderTest,
    record: PeerModelRecord,
    schedule: RoundSchedule,
    ways: dict[str, ServeRequests],
    callers: int,
) -> None:
    requests = realistic_requests(model, callers)
    pairs, tokens = callers * PASSAGES_PER_CALL, sum(request.tokens for request in requests)
    cells = {way: ConcurrencyCell(way, callers, pairs, tokens) for way in ways}
    record.concurrency += cells.values()
    for number in schedule.rounds(sum(model.work(request.lengths) for request in requests)):
        for way in rotate(list(ways), number):
            # New texts for each way: all ways of gpurerank share one cache of tokens.
            requests = realistic_requests(model, callers)
            with garbage_collection_paused():
                wall_s, calls_ms = ways[way](requests)
            if number != WARM_UP:
                cells[way].wall_s.append(wall_s)
                cells[way].caller_ms.extend(calls_ms)
    for cell in cells.values():
        cell.skipped_s = schedule.skipped_s


def _measure_next_to_large_call(model: ModelUnderTest, reranker: Reranker) -> InterferenceRecord:
    record = InterferenceRecord(SMALL_CALLERS, LARGE_CALL_PAIRS)
    small_s, _ = call_together(reranker.rank, realistic_requests(model, SMALL_CALLERS))
    round_s = small_s * (2 + LARGE_CALL_PAIRS / (SMALL_CALLERS * PASSAGES_PER_CALL))
    if round_s > model.options.limit_s:
        record.skipped_s = round(round_s, 1)
        return record
    for _ in range(max(1, min(MAX_LARGE_CALLS, int(model.options.limit_s / round_s)))):
        _, alone_ms = call_together(reranker.rank, realistic_requests(model, SMALL_CALLERS))
        large = pairs_of([model.texts.request(REALISTIC, LARGE_CALL_PAIRS)])
        requests = realistic_requests(model, SMALL_CALLERS)
        large_call = threading.Thread(target=reranker.score_pairs, args=(large,), daemon=True)
        large_call.start()
        time.sleep(HEAD_START_S)
        _, beside_ms = call_together(reranker.rank, requests)
        large_call.join()
        record.alone_ms.extend(alone_ms)
        record.beside_ms.extend(beside_ms)
    return record
