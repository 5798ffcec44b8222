"""Latency of one call, from strings to ranked passages, for all contenders in turn."""

from __future__ import annotations

import itertools
import statistics
from functools import partial

from gpurerank.benchmark import timing
from gpurerank.benchmark.bench_report import LatencyCell, Timing
from gpurerank.benchmark.model_under_test import ModelUnderTest
from gpurerank.benchmark.synthetic_text import REALISTIC, Request


def measure_latency(model: ModelUnderTest) -> None:
    """Adds a cell per kind of lengths and number of candidates to the model's record."""
    schedule = timing.RoundSchedule(model.options.limit_s, model.max_rounds)
    for lengths, candidates in itertools.product(model.options.lengths, model.options.candidates):
        if lengths != REALISTIC and int(lengths) > model.max_length:
            model.note(f"{lengths} tokens per pair left out: the model takes {model.max_length}")
            continue
        model.log(f"latency: {candidates:,} candidates, {describe_lengths(lengths)}")
        _measure_latency(model, schedule, lengths, candidates)


def describe_lengths(lengths: str) -> str:
    """The lengths in words, for titles."""
    return "realistic lengths" if lengths == REALISTIC else f"{lengths} tokens per pair"


def _measure_latency(
    model: ModelUnderTest, schedule: timing.RoundSchedule, lengths: str, candidates: int
) -> None:
    request = model.texts.request(lengths, candidates)
    requests: list[Request] = []
    times_ms: dict[str, list[float]] = {}
    try:
        for number in schedule.rounds(model.work(request.lengths)):
            request = model.texts.request(lengths, candidates)
            _run_round(model, request, number, {} if number == timing.WARM_UP else times_ms)
            if number != timing.WARM_UP:
                requests.append(request)
    finally:
        # Ctrl-C ends a round early; the complete rounds are kept.
        rounds = requests or [request]
        operations = statistics.mean(model.work(r.lengths) for r in rounds)
        cell = LatencyCell(
            lengths,
            candidates,
            statistics.mean(r.tokens for r in rounds),
            operations if model.shape else None,
            model.floor_ms(operations),
            [Timing(name, times[: len(requests)]) for name, times in times_ms.items() if requests],
            schedule.skipped_s,
        )
        model.record.latency.append(cell)


def _run_round(
    model: ModelUnderTest, request: Request, number: int, times_ms: dict[str, list[float]]
) -> None:
    with timing.garbage_collection_paused():
        for contender in timing.rotate(model.contenders, number):
            rank = partial(contender.rank, request.query, request.passages)
            try:
                if contender.is_primed:
                    rank()
                times_ms.setdefault(contender.name, []).append(timing.timed_ms(rank))
            except Exception as error:
                model.drop(contender, error)
                times_ms.pop(contender.name, None)
