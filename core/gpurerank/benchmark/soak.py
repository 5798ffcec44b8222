"""Mixed calls for a long time: errors, and memory that grows."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpurerank.benchmark.memory import gpu_bytes, resident_bytes
from gpurerank.benchmark.records import MemorySample, SoakRecord
from gpurerank.benchmark.subject import Subject
from gpurerank.benchmark.texts import corpus_words
from gpurerank.reranker import Reranker

THREADS = 4
TASKS = 4
MOST_CANDIDATES = 200
# Several windows of the usual models, so that long passages take part.
MOST_WORDS = 1_000
SAMPLES = 400
WARM_UP_SHARE = 0.2


@dataclass(slots=True)
class Tally:
    """What the callers count together."""

    ends: float
    calls: int = 0
    pairs: int = 0
    errors: int = 0
    first_error: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> bool:
        """Whether another call may begin."""
        return time.monotonic() < self.ends

    def count(self, pairs: int, error: Exception | None = None) -> None:
        """Counts a call that ended."""
        with self._lock:
            self.calls += 1
            self.pairs += pairs
            if error is not None:
                self.errors += 1
                self.first_error = self.first_error or f"{type(error).__name__}: {error}"


class Traffic:
    """Calls of 1 to 200 passages of all lengths, each new; seeded."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = corpus_words()

    def call(self) -> tuple[str, list[str]]:
        """A query and passages; few passages are as likely as many."""
        count = round(math.exp(self._random.uniform(0, math.log(MOST_CANDIDATES))))
        passages = [self._text(self._random.lognormvariate(4, 1)) for _ in range(count)]
        return self._text(8), passages

    def _text(self, words: float) -> str:
        start = self._random.randrange(len(self._words) - 1)
        return " ".join(self._words[start : start + max(1, min(round(words), MOST_WORDS))])


def soak(subject: Subject) -> SoakRecord:
    """Runs threads and tasks against one reranker until the time is over."""
    seconds = subject.options.soak_s
    subject.say(f"soak: {seconds:g} s")
    with Reranker(
        subject.model.folder,
        device=str(subject.device),
        dtype=subject.options.dtype,
        max_length=subject.max_length,
    ) as reranker:
        # Made before the time begins, which a short soak would else spend on it.
        traffic = [Traffic(seed) for seed in range(THREADS + TASKS)]
        tally = Tally(time.monotonic() + seconds)
        callers = [
            threading.Thread(target=_call, args=(reranker, tally, each), daemon=True)
            for each in traffic[:THREADS]
        ]
        tasks = _call_all(reranker, tally, traffic[THREADS:])
        callers.append(threading.Thread(target=asyncio.run, args=(tasks,), daemon=True))
        for caller in callers:
            caller.start()
        samples = _sample(subject, tally, seconds)
        for caller in callers:
            caller.join()
    return SoakRecord(
        seconds,
        tally.calls,
        tally.pairs,
        tally.errors,
        tally.first_error[:300],
        growth_percent([s.resident_bytes for s in samples]),
        growth_percent([s.gpu_bytes for s in samples]),
        samples,
    )


def growth_percent(values: Sequence[int]) -> float | None:
    """How much the last tenth lies over the tenth that follows the warm-up, in percent.

    The warm-up is the first fifth. None for fewer than 10 values, and where there is nothing.
    """
    if len(values) < 10:
        return None
    tenth = len(values) // 10
    start = int(len(values) * WARM_UP_SHARE)
    before = statistics.median(values[start : start + tenth])
    after = statistics.median(values[-tenth:])
    return round((after - before) / before * 100, 3) if before else None


def _sample(subject: Subject, tally: Tally, seconds: float) -> list[MemorySample]:
    samples, started = [], time.monotonic()
    while tally.open():
        at_s = round(time.monotonic() - started, 3)
        samples.append(MemorySample(at_s, resident_bytes(), gpu_bytes(subject.device)))
        time.sleep(max(seconds / SAMPLES, 0.01))
    return samples


def _call(reranker: Reranker, tally: Tally, traffic: Traffic) -> None:
    while tally.open():
        query, passages = traffic.call()
        try:
            reranker.rank(query, passages)
            tally.count(len(passages))
        except Exception as error:
            tally.count(len(passages), error)


async def _call_all(reranker: Reranker, tally: Tally, traffic: Sequence[Traffic]) -> None:
    async def task(traffic: Traffic) -> None:
        while tally.open():
            query, passages = traffic.call()
            try:
                await reranker.arank(query, passages)
                tally.count(len(passages))
            except Exception as error:
                tally.count(len(passages), error)

    await asyncio.gather(*(task(each) for each in traffic))
