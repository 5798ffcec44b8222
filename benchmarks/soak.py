"""Mixed calls for a long time: counts errors, and measures whether memory grows."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.concurrency import open_reranker
from benchmarks.memory import gpu_bytes, resident_bytes
from benchmarks.peer_report import MemorySample, SoakRecord
from gpurerank import Reranker
from gpurerank.benchmark.model_under_test import ModelUnderTest
from gpurerank.benchmark.synthetic_text import QUERY_WORDS, prose_words

THREADS = 4
TASKS = 4
MAX_CANDIDATES = 200
# Several windows of usual models, so that long passages take part.
MAX_WORDS = 1_000
SAMPLES = 400
WARM_UP_SHARE = 0.2


@dataclass(slots=True)
class CallCounter:
    """Counts the calls of all threads and tasks until the deadline."""

    deadline: float
    calls: int = 0
    pairs: int = 0
    errors: int = 0
    first_error: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def has_time(self) -> bool:
        """Whether another call may start."""
        return time.monotonic() < self.deadline

    def count(self, pairs: int, error: Exception | None = None) -> None:
        """Counts a finished call."""
        with self._lock:
            self.calls += 1
            self.pairs += pairs
            if error is not None:
                self.errors += 1
                self.first_error = self.first_error or f"{type(error).__name__}: {error}"


class RandomCalls:
    """Generates calls of 1 to 200 new passages of all lengths; seeded."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = prose_words()

    def next(self) -> tuple[str, list[str]]:
        """A query and passages; few passages are as likely as many."""
        count = round(math.exp(self._random.uniform(0, math.log(MAX_CANDIDATES))))
        passages = [self._text(self._random.lognormvariate(4, 1)) for _ in range(count)]
        return self._text(QUERY_WORDS), passages

    def _text(self, words: float) -> str:
        start = self._random.randrange(len(self._words) - 1)
        return " ".join(self._words[start : start + max(1, min(round(words), MAX_WORDS))])


def run_soak(model: ModelUnderTest, seconds: float) -> SoakRecord:
    """Runs threads and asyncio tasks against one reranker until the time is over."""
    model.log(f"soak: {seconds:g} s")
    with open_reranker(model) as reranker:
        # Created before the clock starts, because it takes longer than a short soak test.
        calls = [RandomCalls(seed) for seed in range(THREADS + TASKS)]
        counter = CallCounter(time.monotonic() + seconds)
        callers = [
            threading.Thread(target=_rank_until_deadline, args=(reranker, counter, c), daemon=True)
            for c in calls[:THREADS]
        ]
        tasks = _rank_in_tasks(reranker, counter, calls[THREADS:])
        callers.append(threading.Thread(target=asyncio.run, args=(tasks,), daemon=True))
        for caller in callers:
            caller.start()
        samples = _sample_memory(model.device, counter, seconds)
        for caller in callers:
            caller.join()
    return SoakRecord(
        seconds,
        counter.calls,
        counter.pairs,
        counter.errors,
        counter.first_error[:300],
        growth_percent([sample.resident_bytes for sample in samples]),
        growth_percent([sample.gpu_bytes for sample in samples]),
        samples,
    )


def growth_percent(values: Sequence[int]) -> float | None:
    """Growth in percent from the tenth that follows the warm-up to the last tenth.

    The warm-up is the first fifth. None for fewer than 10 values, and where the start is 0.
    """
    if len(values) < 10:
        return None
    tenth = len(values) // 10
    start = int(len(values) * WARM_UP_SHARE)
    before = statistics.median(values[start : start + tenth])
    after = statistics.median(values[-tenth:])
    return round((after - before) / before * 100, 3) if before else None


def _sample_memory(
    device: torch.device, counter: CallCounter, seconds: float
) -> list[MemorySample]:
    samples, started = [], time.monotonic()
    while counter.has_time():
        at_s = round(time.monotonic() - started, 3)
        samples.append(MemorySample(at_s, resident_bytes(), gpu_bytes(device)))
        time.sleep(max(seconds / SAMPLES, 0.01))
    return samples


def _rank_until_deadline(reranker: Reranker, counter: CallCounter, calls: RandomCalls) -> None:
    while counter.has_time():
        query, passages = calls.next()
        try:
            reranker.rank(query, passages)
            counter.count(len(passages))
        except Exception as error:
            counter.count(len(passages), error)


async def _rank_in_tasks(
    reranker: Reranker, counter: CallCounter, calls: Sequence[RandomCalls]
) -> None:
    async def rank_until_deadline(calls: RandomCalls) -> None:
        while counter.has_time():
            query, passages = calls.next()
            try:
                await reranker.arank(query, passages)
                counter.count(len(passages))
            except Exception as error:
                counter.count(len(passages), error)

    await asyncio.gather(*map(rank_until_deadline, calls))
