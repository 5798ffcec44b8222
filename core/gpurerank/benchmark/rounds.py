"""Fair rounds: who runs when, for how long, and what the middle and the tail of the times are."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

LEAST_ROUNDS = 3
ROUNDS_FOR_P95 = 20
SECTION_CELLS = 8

T = TypeVar("T")


def p95(times: Sequence[float]) -> float | None:
    """The 95th percentile, between two values where it falls there; None under 20 values."""
    return float(np.percentile(times, 95)) if len(times) >= ROUNDS_FOR_P95 else None


def rotated(groups: Sequence[Sequence[T]], number: int) -> list[T]:
    """The order of one round: each group is first once in as many rounds as there are groups.

    A group keeps its own order, for what must run straight after something else.
    """
    start = number % len(groups)
    return [each for group in (*groups[start:], *groups[:start]) for each in group]


def timed_ms(work: Callable[[], object]) -> float:
    """Milliseconds of a call that ends in Python values, so that no device work is left open."""
    started = time.perf_counter()
    work()
    return round((time.perf_counter() - started) * 1e3, 4)


@contextmanager
def uncollected() -> Iterator[None]:
    """Collects garbage before and none inside: no contender pays for another one's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@dataclass(slots=True)
class Budget:
    """The time of one section: what a cell may take, and what all of them may.

    Attributes:
        limit_s: Of one cell. All cells of the section together get eight times as much.
        most_rounds: Of one cell.
    """

    limit_s: float
    most_rounds: int
    _ends: float = field(init=False)

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + SECTION_CELLS * self.limit_s

    @property
    def cell_s(self) -> float:
        """What the next cell may take."""
        return max(0.0, min(self.limit_s, self._ends - time.monotonic()))

    def needed_s(self, round_s: float) -> float:
        """The least a cell takes: three rounds, where one more to warm up is no small part."""
        return min(LEAST_ROUNDS, self.most_rounds) * round_s

    def allows(self, needed_s: float) -> bool:
        """Whether a cell that takes at least so long is run."""
        return needed_s <= self.cell_s

    def rounds(self, round_s: float) -> int:
        """How many rounds fit into the next cell."""
        fitting = int(self.cell_s / max(round_s, 1e-6))
        return max(min(LEAST_ROUNDS, self.most_rounds), min(self.most_rounds, fitting))


class Pace:
    """What each contender has taken so far, to tell what it will take for more work."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[float, float]] = {}

    def note(self, contender: str, work: float, seconds: float) -> None:
        """Remembers that an amount of work took so long."""
        self._seen.setdefault(contender, {})[work] = seconds

    def estimate_s(self, contender: str, work: float) -> float:
        """Scales the nearest known amount of work; 0 for a contender that is not known."""
        seen = self._seen.get(contender)
        if not seen:
            return 0.0
        nearest = min(seen, key=lambda known: abs(np.log(known / work)))
        return seen[nearest] * work / nearest
