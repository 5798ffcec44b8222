"""Many callers at once: what the model gets through, and what each caller waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from gpurerank.benchmark.contenders import BEST, OURS, Contender
from gpurerank.benchmark.records import BesideRecord, ConcurrencyCell
from gpurerank.benchmark.rounds import LEAST_ROUNDS, Budget, rotated, uncollected
from gpurerank.benchmark.subject import Subject
from gpurerank.benchmark.texts import REALISTIC, Request

PASSAGES = 20
BESIDE_CALLERS = 64
PAIRS_BESIDE = 10_000
# Enough for the large call to have reached the model when the small ones come.
HEAD_START_S = 0.05

# What one way makes of the callers' requests: seconds in all, and milliseconds of each call.
Run = Callable[[Sequence[Request]], tuple[float, list[float]]]


def measure_concurrency(subject: Subject) -> None:
    """Fills the record's concurrency cells, and the callers beside a large one."""
    budget = Budget(subject.options.limit_s, subject.most_rounds)
    for callers in subject.options.callers:
        subject.say(f"concurrency: {callers} callers")
        _measure(subject, budget, callers)
    subject.say(f"concurrency: {BESIDE_CALLERS} callers beside {PAIRS_BESIDE:,} pairs")
    subject.record.beside = _measure_beside(subject, budget)


def call_together(
    rank: Callable[[str, Sequence[str]], object],
    requests: Sequence[Request],
    guard: AbstractContextManager[object] | None = None,
) -> tuple[float, list[float]]:
    """Lets each request be ranked by a thread of its own, all begun at the same time.

    Args:
        rank: What each caller calls.
        requests: One for each caller.
        guard: What a caller holds while it calls, its wait counted; None for nothing.

    Returns:
        Seconds from the start to the last answer, and milliseconds of each call.
    """
    barrier = threading.Barrier(len(requests) + 1)
    taken: list[float] = []
    failed: list[Exception] = []

    def call(request: Request) -> None:
        barrier.wait()
        started = time.perf_counter()
        try:
            with guard or nullcontext():
                rank(request.query, request.passages)
        except Exception as error:
            failed.append(error)
        taken.append(round((time.perf_counter() - started) * 1e3, 4))

    threads = [threading.Thread(target=call, args=(each,), daemon=True) for each in requests]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return round(time.perf_counter() - started, 6), taken


def _ways(subject: Subject) -> dict[str, Run]:
    ways: dict[str, Run] = {}
    ours, best = subject.named(OURS), subject.named(BEST)
    if ours is not None:
        ways[f"{OURS}, callers"] = lambda requests: call_together(ours.rank, requests)
        ways[f"{OURS}, one call"] = lambda requests: _in_one_call(ours, requests)
    if best is not None:
        lock = threading.Lock()
        # Its tokenizer may not be used by two threads at a time.
        ways[f"{BEST}, behind a lock"] = lambda requests: call_together(best.rank, requests, lock)
    return ways


def _in_one_call(contender: Contender, requests: Sequence[Request]) -> tuple[float, list[float]]:
    pairs = [pair for request in requests for pair in request.pairs]
    started = time.perf_counter()
    contender.score(pairs)
    taken_s = round(time.perf_counter() - started, 6)
    return taken_s, [round(taken_s * 1e3, 4)]


def _requests(subject: Subject, callers: int) -> list[Request]:
    return [subject.texts.request(REALISTIC, PASSAGES) for _ in range(callers)]


def _estimate_s(subject: Subject, requests: Sequence[Request], name: str) -> float:
    lengths = [length for request in requests for length in request.lengths]
    return subject.pace.estimate_s(name, subject.work(lengths))


def _measure(subject: Subject, budget: Budget, callers: int) -> None:
    ways = _ways(subject)
    requests = _requests(subject, callers)
    pairs, tokens = callers * PASSAGES, sum(request.tokens for request in requests)
    cells = {way: ConcurrencyCell(way, callers, pairs, tokens) for way in ways}
    round_s = sum(_estimate_s(subject, requests, way.split(", ")[0]) for way in ways)
    needed_s = budget.needed_s(round_s)
    if not budget.allows(needed_s):
        skipped = ConcurrencyCell("all", callers, pairs, tokens, skipped_s=round(needed_s, 1))
        subject.record.concurrency.append(skipped)
        return
    subject.record.concurrency += cells.values()
    ends = time.monotonic() + budget.cell_s
    for number in range(budget.rounds(round_s)):
        if number >= LEAST_ROUNDS and time.monotonic() > ends:
            break
        requests = _requests(subject, callers)
        for way in rotated([[way] for way in ways], number):
            # Both ways of gpurerank would else share the tokens that the first one made.
            fresh = requests if way.startswith(BEST) else _requests(subject, callers)
            with uncollected():
                wall_s, taken_ms = ways[way](fresh)
            cells[way].wall_s.append(wall_s)
            cells[way].caller_ms.extend(taken_ms)


def _measure_beside(subject: Subject, budget: Budget) -> BesideRecord | None:
    ours = subject.named(OURS)
    if ours is None:
        return None
    record = BesideRecord(BESIDE_CALLERS, PAIRS_BESIDE)
    small_s = _estimate_s(subject, _requests(subject, BESIDE_CALLERS), OURS)
    needed_s = small_s * (2 + PAIRS_BESIDE / (BESIDE_CALLERS * PASSAGES))
    if not budget.allows(needed_s):
        return BesideRecord(BESIDE_CALLERS, PAIRS_BESIDE, skipped_s=round(needed_s, 1))
    for _ in range(max(1, min(5, int(budget.cell_s / max(needed_s, 1e-6))))):
        _, alone = call_together(ours.rank, _requests(subject, BESIDE_CALLERS))
        large = subject.texts.request(REALISTIC, PAIRS_BESIDE)
        requests = _requests(subject, BESIDE_CALLERS)
        other = threading.Thread(target=ours.score, args=(large.pairs,), daemon=True)
        other.start()
        time.sleep(HEAD_START_S)
        _, beside = call_together(ours.rank, requests)
        other.join()
        record.alone_ms.extend(alone)
        record.beside_ms.extend(beside)
    return record
