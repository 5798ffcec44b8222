"""The time of one call, from strings to ranked passages, for every contender in turn."""

from __future__ import annotations

import statistics
import time
from functools import partial

from gpurerank.benchmark.records import LatencyCell, Timing
from gpurerank.benchmark.rounds import LEAST_ROUNDS, Budget, rotated, timed_ms, uncollected
from gpurerank.benchmark.subject import Subject
from gpurerank.benchmark.texts import REALISTIC, Request
from gpurerank.errors import DataError

MOST_WARM_UPS = 3
# A round that is a larger part of its cell needs none: everyone is warm from the comparison.
WARM_UP_SHARE = 10


def measure_latency(subject: Subject) -> None:
    """Fills the record's latency cells, those that matter most first."""
    budget = Budget(subject.options.limit_s, subject.most_rounds)
    for lengths, candidates in planned(subject.options.lengths, subject.options.candidates):
        if lengths != REALISTIC and int(lengths) > subject.max_length:
            subject.note(f"{lengths} tokens a pair left out: the model takes {subject.max_length}")
            continue
        subject.say(f"latency: {candidates:,} candidates, {lengths}")
        try:
            _measure(subject, budget, lengths, candidates)
        except DataError as error:
            subject.note(str(error))


def planned(lengths: tuple[str, ...], candidates: tuple[int, ...]) -> list[tuple[str, int]]:
    """All cells: realistic lengths first, then the others, the cheap ones before the dear."""
    cells = [(length, count) for length in lengths for count in candidates]
    return sorted(
        cells,
        key=lambda cell: (0, cell[1]) if cell[0] == REALISTIC else (1, int(cell[0]) * cell[1]),
    )


def _measure(subject: Subject, budget: Budget, lengths: str, candidates: int) -> None:
    request = subject.texts.request(lengths, candidates)
    work = subject.work(request.lengths)
    estimate_s = sum(subject.pace.estimate_s(each.name, work) for each in subject.contenders)
    needed_s = budget.needed_s(estimate_s)
    if not budget.allows(needed_s):
        cell = LatencyCell(lengths, candidates, request.tokens, skipped_s=round(needed_s, 1))
        subject.record.latency.append(cell)
        return
    ends = time.monotonic() + budget.cell_s
    times: dict[str, list[float]] = {}
    seen: list[Request] = []
    if estimate_s < budget.cell_s / WARM_UP_SHARE:
        estimate_s = _warm_up(subject, request, budget.cell_s)
    rounds = budget.rounds(estimate_s)
    try:
        for number in range(rounds):
            if number >= LEAST_ROUNDS and time.monotonic() > ends:
                break
            request = subject.texts.request(lengths, candidates)
            _run_round(subject, request, number, times)
            seen.append(request)
    finally:
        # Also when the run is interrupted: whole rounds that were measured are kept.
        if seen:
            _record(subject, lengths, candidates, seen, times)


def _warm_up(subject: Subject, request: Request, cell_s: float) -> float:
    """One round that does not count, up to three where they are cheap; seconds of the last."""
    taken_s = 0.0
    for _ in range(MOST_WARM_UPS):
        started = time.perf_counter()
        _run_round(subject, request, 0, {})
        taken_s = time.perf_counter() - started
        if taken_s > cell_s / 50:
            break
    return taken_s


def _run_round(
    subject: Subject, request: Request, number: int, times: dict[str, list[float]]
) -> None:
    with uncollected():
        for contender in rotated(subject.groups(), number):
            try:
                taken = timed_ms(partial(contender.rank, request.query, request.passages))
            except Exception as error:
                subject.drop(contender, error)
                times.pop(contender.name, None)
                continue
            times.setdefault(contender.name, []).append(taken)


def _record(
    subject: Subject,
    lengths: str,
    candidates: int,
    requests: list[Request],
    times: dict[str, list[float]],
) -> None:
    work = statistics.mean(subject.work(request.lengths) for request in requests)
    kept = {c.name: times[c.name][: len(requests)] for c in subject.contenders if c.name in times}
    for name, taken in kept.items():
        subject.pace.note(name, work, statistics.median(taken) / 1e3)
    subject.record.latency.append(
        LatencyCell(
            lengths,
            candidates,
            statistics.mean(request.tokens for request in requests),
            work if subject.shape else None,
            subject.floor_ms(work),
            [Timing(name, taken) for name, taken in kept.items()],
        )
    )
