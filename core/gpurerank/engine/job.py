"""One caller's items on their way through the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gpurerank.calls import Call
from gpurerank.errors import ClosedError, DeadlineError
from gpurerank.types import Rows

Item = tuple[str, str]

TOO_LATE = "the deadline passed before the model answered; raise timeout_s or send fewer passages"


class Answer(NamedTuple):
    """What the model says of a job's items.

    Attributes:
        rows: One row an item, input order; float32, or objects where each is an array.
        truncated: Whether each item was longer than the model may read.
    """

    rows: Rows
    truncated: list[bool]


class Job:
    """What one call wants, what it has so far, and how it ended.

    Args:
        items: What the model is to read, at least one.
        call: The caller's deadline.
        notify: Called, on any thread, whenever something has changed; must be fast and not raise.

    Attributes:
        items: As given.
        truncated: Whether each item was longer than the model may read.
        done: Items that have their result.
        ended: All are there, or none will come.
        error: Why none will come.
        tokenize_ms: Time that tokenizing took.
        tokens: Tokens that the model has read for it.
    """

    def __init__(self, items: Sequence[Item], call: Call, notify: Callable[[], None]) -> None:
        # Copied: a list that grows while the model answers would never be complete.
        self.items = tuple(items)
        self.truncated = [False] * len(items)
        self.done = 0
        self.ended = False
        self.error: Exception | None = None
        self.tokenize_ms = 0.0
        self.tokens = 0
        self._deadline = call.deadline
        self._notify = notify
        self._results: Rows | None = None
        # When its batches ran, in seconds: [start, stop) apart from each other, in their order.
        self._ran: list[tuple[float, float]] = []
        # A caller gives up on one thread while the model answers on another.
        self._lock = threading.Lock()

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def run_ms(self) -> float:
        """Time in which batches ran that this job had a part in; once where lanes ran together."""
        return sum(stop - start for start, stop in self._ran) * 1000.0

    def put(
        self,
        places: Sequence[int],
        rows: Rows,
        *,
        ran: tuple[float, float],
        tokens: int,
    ) -> None:
        """Takes the results of some items.

        Args:
            places: Of the items.
            rows: One for each place.
            ran: When their batch started and stopped, in seconds of one clock.
            tokens: That they had.
        """
        with self._lock:
            if self.ended:
                return
            if self._results is None:
                self._results = np.empty((len(self.items), *rows.shape[1:]), rows.dtype)
            self._results[places] = rows
            self.done += len(places)
            self._note(*ran)
            self.tokens += tokens
            self.ended = self.done == len(self.items)
        self._notify()

    def _note(self, start: float, stop: float) -> None:
        # Batches are told in the order of their ends, so only the last ones can overlap.
        while self._ran and self._ran[-1][1] >= start:
            earlier = self._ran.pop()
            start, stop = min(start, earlier[0]), max(stop, earlier[1])
        self._ran.append((start, stop))

    def fail(self, error: Exception) -> None:
        """Ends the job with an error, unless it has ended already."""
        with self._lock:
            if self.ended:
                return
            self.error, self.ended = error, True
        self._notify()

    def give_up(self) -> None:
        """The caller waits no longer: what is not running yet will not run."""
        self.fail(ClosedError("the caller gave up"))

    def result(self) -> Answer:
        """What was asked for.

        Raises:
            GPURerankError: The job failed.
        """
        if self.error is not None:
            raise self.error
        assert self._results is not None
        return Answer(self._results, self.truncated)

    def expire(self) -> bool:
        """Ends the job if its deadline has passed; whether it has ended."""
        if not self.ended and self.late:
            self.fail(DeadlineError(TOO_LATE))
        return self.ended
