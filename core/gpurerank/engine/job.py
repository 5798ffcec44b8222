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

# (query, passage) of a cross-encoder, (prompt, text) of a bi-encoder.
Item = tuple[str, str]

_DEADLINE_MESSAGE = (
    "the deadline passed before the model answered; raise timeout_s or send fewer passages"
)


class JobResult(NamedTuple):
    """The model's output for the items of a job.

    Attributes:
        rows: One row per item, input order; float32, or objects where each row is an array.
        truncated: Whether each item was longer than the model may read.
        lengths: Tokens of each item as the model reads it.
    """

    rows: Rows
    truncated: list[bool]
    lengths: list[int]


class Job:
    """The items of one call, the results so far, and how it ended.

    Args:
        items: What the model is to read, at least one.
        call: Gives the deadline.
        notify: Called on any thread whenever something has changed; must be fast and not raise.

    Attributes:
        items: As given.
        truncated: Whether each item was longer than the model may read.
        lengths: Tokens of each item as the model reads it.
        done: Items that have their result.
        ended: Every result is there, or none will come any more.
        error: Why no more results will come; None otherwise.
        tokenize_ms: Time that tokenizing took.
        tokens: Tokens of the items that have their result.
    """

    def __init__(self, items: Sequence[Item], call: Call, notify: Callable[[], None]) -> None:
        # Copied: the caller may change its list while the model works.
        self.items = tuple(items)
        self.truncated = [False] * len(items)
        self.lengths = [0] * len(items)
        self.done = 0
        self.ended = False
        self.error: Exception | None = None
        self.tokenize_ms = 0.0
        self.tokens = 0
        self._deadline = call.deadline
        self._notify = notify
        self._results: Rows | None = None
        # Disjoint intervals [start, stop) in seconds in which batches ran, ascending.
        self._intervals: list[tuple[float, float]] = []
        # A caller gives up on one thread while a lane delivers on another.
        self._lock = threading.Lock()

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def run_ms(self) -> float:
        """Time in which any batch with an item of this job ran; overlapping lanes count once."""
        return sum(stop - start for start, stop in self._intervals) * 1000.0

    def deliver(
        self,
        indices: Sequence[int],
        rows: Rows,
        *,
        interval: tuple[float, float],
        tokens: int,
    ) -> None:
        """Stores the results of some items.

        Args:
            indices: Positions of the items in the job.
            rows: One for each index.
            interval: When their batch started and stopped, in seconds of one clock.
            tokens: Tokens of these items.
        """
        with self._lock:
            if self.ended:
                return
            if self._results is None:
                self._results = np.empty((len(self.items), *rows.shape[1:]), rows.dtype)
            self._results[indices] = rows
            self.done += len(indices)
            self._add_interval(*interval)
            self.tokens += tokens
            self.ended = self.done == len(self.items)
        self._notify()

    def _add_interval(self, start: float, stop: float) -> None:
        # Batches are delivered in the order of their ends, so only the last ones can overlap.
        while self._intervals and self._intervals[-1][1] >= start:
            earlier = self._intervals.pop()
            start, stop = min(start, earlier[0]), max(stop, earlier[1])
        self._intervals.append((start, stop))

    def fail(self, error: Exception) -> None:
        """Ends the job with an error, unless it has ended already."""
        with self._lock:
            if self.ended:
                return
            self.error, self.ended = error, True
        self._notify()

    def give_up(self) -> None:
        """Ends a job whose caller waits no longer; items that have not started will not run."""
        self.fail(ClosedError("the caller gave up"))

    def result(self) -> JobResult:
        """The results of a job that has ended.

        Raises:
            GPURerankError: The job failed.
        """
        if self.error is not None:
            raise self.error
        assert self._results is not None
        return JobResult(self._results, self.truncated, self.lengths)

    def expire(self) -> bool:
        """Ends the job if its deadline has passed; returns whether it has ended."""
        if not self.ended and self.is_late:
            self.fail(DeadlineError(_DEADLINE_MESSAGE))
        return self.ended
