"""Many candidates: whether one large call costs more than many small ones, and what it holds."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gpurerank.benchmark.contenders import OURS
from gpurerank.benchmark.memory import peak_growth
from gpurerank.benchmark.records import PeakRecord, SplitRecord
from gpurerank.benchmark.rounds import Budget, uncollected
from gpurerank.benchmark.subject import Subject
from gpurerank.benchmark.texts import REALISTIC, Request
from gpurerank.reranker import Reranker

CANDIDATES = 10_000
CALLS = 100
PEAKS = (100, 1_000, 10_000)
MOST_ROUNDS = 5


def measure_scaling(subject: Subject) -> None:
    """Fills the record's split and peaks; the contenders must be closed, so nothing is shared."""
    budget = Budget(subject.options.limit_s, MOST_ROUNDS)
    for candidates in PEAKS:
        subject.say(f"scaling: memory of {candidates:,} candidates")
        subject.record.peaks.append(_peak(subject, budget, candidates))
    subject.say(f"scaling: {CANDIDATES:,} candidates in one call and in {CALLS}")
    subject.record.split = _split(subject, budget)


def _peak(subject: Subject, budget: Budget, candidates: int) -> PeakRecord:
    kind = "GPU memory" if subject.device.type == "cuda" else "resident memory"
    request = subject.texts.request(REALISTIC, candidates)
    needed_s = subject.pace.estimate_s(OURS, subject.work(request.lengths))
    if not budget.allows(needed_s):
        return PeakRecord(candidates, kind, skipped_s=round(needed_s, 1))
    with _fresh(subject) as reranker:
        reranker.score_pairs(request.pairs[:8])
        with uncollected(), peak_growth(subject.device) as growth:
            reranker.rank(request.query, request.passages)
        return PeakRecord(candidates, kind, growth())


def _split(subject: Subject, budget: Budget) -> SplitRecord:
    request = subject.texts.request(REALISTIC, CANDIDATES)
    round_s = 2 * subject.pace.estimate_s(OURS, subject.work(request.lengths))
    if not budget.allows(round_s):
        return SplitRecord(CANDIDATES, CALLS, skipped_s=round(round_s, 1))
    record = SplitRecord(CANDIDATES, CALLS)
    size = CANDIDATES // CALLS
    parts = [request.passages[i : i + size] for i in range(0, CANDIDATES, size)]
    rounds = max(1, min(MOST_ROUNDS, int(budget.cell_s / max(round_s, 1e-6))))
    for number in range(rounds):
        both = [
            (record.one_call_s, [request.passages]),
            (record.many_calls_s, parts),
        ]
        for found, calls in both if number % 2 == 0 else both[::-1]:
            found.append(_time_calls(subject, request, calls))
    return record


def _time_calls(subject: Subject, request: Request, calls: Sequence[list[str]]) -> float:
    # Loaded anew each time: nothing of the other way's tokens is remembered.
    with _fresh(subject) as reranker, uncollected():
        reranker.score_pairs([("warm", "up")])
        started = time.perf_counter()
        for passages in calls:
            reranker.rank(request.query, passages)
        return round(time.perf_counter() - started, 6)


def _fresh(subject: Subject) -> Reranker:
    options = subject.options
    return Reranker(
        subject.model.folder,
        device=str(subject.device),
        dtype=options.dtype,
        max_length=subject.max_length,
    )
