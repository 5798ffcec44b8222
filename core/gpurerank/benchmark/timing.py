"""Fair rounds: which contender runs when, and how many rounds fit into the time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

MIN_ROUNDS = 3
ROUNDS_FOR_P95 = 20
# Round number of rounds that warm up and do not count.
WARM_UP = -1

T = TypeVar("T")


def p95(times: Sequence[float]) -> float | None:
    """The interpolated 95th percentile; None for fewer than 20 values."""
    return float(np.percentile(times, 95)) if len(times) >= ROUNDS_FOR_P95 else None


def rotate(items: Sequence[T], round_number: int) -> list[T]:
    """The order of one round: each item is first once in as many rounds as there are items."""
    start = max(round_number, 0) % len(items)
    return [*items[start:], *items[:start]]


def timed_ms(work: Callable[[], object]) -> float:
    """Milliseconds of a call that returns Python values, so that no device work is pending."""
    started = time.perf_counter()
    work()
    return round((time.perf_counter() - started) * 1e3, 4)


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Collects garbage before the block and not inside: no contender pays for another."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class RoundSchedule:
    """Decides how many rounds each measurement gets.

    ``skipped_s`` is the estimate of the last measurement if it did not fit, else None.
    """

    def __init__(self, limit_s: float, max_rounds: int) -> None:
        self._limit_s = limit_s
        self._max_rounds = max_rounds
        self._seconds_per_work = 0.0
        self.skipped_s: float | None = None

    def rounds(self, work: float) -> Iterator[int]:
        """Yields ``WARM_UP`` up to three times, then round numbers from 0 while time remains.

        Where three rounds do not fit, nothing is yielded, or one warm-up that proves it. ``work``
        is the amount of work in a round, on the scale of the other measurements.
        """
        if not self._fits(self._seconds_per_work * work):
            return
        # Three, because CUDA graphs are recorded for shapes that come again.
        for _ in range(3):
            started = time.monotonic()
            yield WARM_UP
            round_s = time.monotonic() - started
            if round_s > self._limit_s / 50:
                break
        self._seconds_per_work = round_s / work
        if not self._fits(round_s):
            return
        deadline = time.monotonic() + self._limit_s
        for number in range(self._max_rounds):
            if number >= MIN_ROUNDS and time.monotonic() + round_s > deadline:
                return
            yield number

    def _fits(self, round_s: float) -> bool:
        needed_s = min(MIN_ROUNDS, self._max_rounds) * round_s
        self.skipped_s = round(needed_s, 1) if needed_s > self._limit_s else None
        return self.skipped_s is None
