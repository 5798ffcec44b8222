"""Many candidates: one large call against many small ones, and the peak memory of a call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from benchmarks.concurrency import open_reranker, pairs_of
from benchmarks.memory import peak_growth
from benchmarks.peer_report import PeakRecord, PeerModelRecord, SplitRecord
from gpurerank.benchmark.model_under_test import ModelUnderTest
from gpurerank.benchmark.synthetic_text import REALISTIC, Request
from gpurerank.benchmark.timing import garbage_collection_paused, timed_ms

CANDIDATES = 10_000
CALLS = 100
PEAK_CANDIDATES = (100, 1_000, 10_000)
MAX_ROUNDS = 5
SAMPLE_CANDIDATES = 20


def measure_large_calls(model: ModelUnderTest, record: PeerModelRecord) -> None:
    """Records peak memory and split calls. No other copy of the model should be loaded."""
    seconds_per_work = _seconds_per_work(model)
    for candidates in PEAK_CANDIDATES:
        model.log(f"large calls: memory of {candidates:,} candidates")
        record.peaks.append(_measure_peak(model, candidates, seconds_per_work))
    model.log(f"large calls: {CANDIDATES:,} candidates in one call and in {CALLS}")
    record.split = SplitRecord(CANDIDATES, CALLS)
    _measure_split(model, record.split, seconds_per_work)


def _seconds_per_work(model: ModelUnderTest) -> float:
    request = model.texts.request(REALISTIC, SAMPLE_CANDIDATES)
    with open_reranker(model) as reranker:
        reranker.score_pairs(pairs_of([request])[:8])
        taken_ms = timed_ms(partial(reranker.rank, request.query, request.passages))
    return taken_ms / 1e3 / model.work(request.lengths)


def _measure_peak(model: ModelUnderTest, candidates: int, seconds_per_work: float) -> PeakRecord:
    kind = "GPU memory" if model.device.type == "cuda" else "resident memory"
    request = model.texts.request(REALISTIC, candidates)
    needed_s = seconds_per_work * model.work(request.lengths)
    if needed_s > model.options.limit_s:
        return PeakRecord(candidates, kind, skipped_s=round(needed_s, 1))
    with open_reranker(model) as reranker:
        reranker.score_pairs(pairs_of([request])[:8])
        with garbage_collection_paused(), peak_growth(model.device) as growth:
            reranker.rank(request.query, request.passages)
        return PeakRecord(candidates, kind, growth())


def _measure_split(model: ModelUnderTest, record: SplitRecord, seconds_per_work: float) -> None:
    request = model.texts.request(REALISTIC, CANDIDATES)
    round_s = 2 * seconds_per_work * model.work(request.lengths)
    if round_s > model.options.limit_s:
        record.skipped_s = round(round_s, 1)
        return
    size = CANDIDATES // CALLS
    parts = [request.passages[i : i + size] for i in range(0, CANDIDATES, size)]
    ways = [(record.one_call_s, [request.passages]), (record.many_calls_s, parts)]
    for number in range(max(1, min(MAX_ROUNDS, int(model.options.limit_s / round_s)))):
        for times_s, calls in ways if number % 2 == 0 else ways[::-1]:
            times_s.append(_time_calls(model, request, calls))


def _time_calls(model: ModelUnderTest, request: Request, calls: Sequence[list[str]]) -> float:
    # Loaded anew each time, so that no tokens of the other way are cached.
    with open_reranker(model) as reranker, garbage_collection_paused():
        reranker.score_pairs([("warm", "up")])
        started = time.perf_counter()
        for passages in calls:
            reranker.rank(request.query, passages)
        return round(time.perf_counter() - started, 6)
