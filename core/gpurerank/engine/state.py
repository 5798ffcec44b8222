"""What callers, the feeder and the lanes of one engine share, and the lock that guards it.

| state | guarded by | changed by |
|---|---|---|
| submitted jobs, open jobs, prepared batch, failure, counters | ``EngineState._changed`` | all |
| token budget | ``EngineState._changed`` for changes; read without it | lanes, callers |
| results of a job, whether it has ended | ``Job._lock`` | lanes, feeder, its caller |
| order of waiting jobs (``Scheduler``) | nothing | the feeder's thread alone |
| suspected lanes (``Watchdog``) | nothing: a lost update delays a verdict | waiting callers |
| whatever a model keeps between batches | the model, by thread | lanes |

No thread holds two of these locks at the same time, except that ``fail`` and ``Job`` are entered
one after the other, never nested.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gpurerank.engine.batch import Batch
from gpurerank.engine.batch_budget import BatchBudget
from gpurerank.engine.job import Job
from gpurerank.engine.stats import EngineStats
from gpurerank.errors import GPURerankError, OutOfMemoryError, ScoringError

# A prepared batch that fills this share of its budget is not prepared again for later arrivals.
_FULL_SHARE = 0.9


class EngineState:
    """Jobs on their way to the lanes: submitted by callers, batched by the feeder, run by lanes.

    Args:
        lane_count: Lanes of all devices together.
        budget: Token budget of a batch.

    Attributes:
        budget: As given.
    """

    def __init__(self, lane_count: int, budget: BatchBudget) -> None:
        self.budget = budget
        self._lane_count = lane_count
        self._changed = threading.Condition()
        self._submitted: list[Job] = []
        self._open_jobs: set[Job] = set()
        self._prepared: Batch | None = None
        self._failure: GPURerankError | None = None
        # When each lane, and last the feeder, began what it is doing; None while idle.
        self._busy_since: list[float | None] = [None] * (lane_count + 1)
        self._batches = self._items = self._tokens = self._padding = 0
        self._busy_s = 0.0

    @property
    def failure(self) -> GPURerankError | None:
        """Why the engine takes no more jobs; None while it works."""
        return self._failure

    def raise_failure(self) -> None:
        """Raises what ended the engine, if anything did.

        Raises:
            GPURerankError: A new instance: one that is raised on many threads would collect all
                of their tracebacks.
        """
        if self._failure is not None:
            raise _copy_of(self._failure)

    def fail(self, error: GPURerankError) -> None:
        """Ends the engine: every open job fails with the error, and so does every later call."""
        with self._changed:
            if self._failure is None:
                self._failure = error
            failure = self._failure
            jobs, self._open_jobs = self._open_jobs, set()
            self._submitted.clear()
            self._prepared = None
            self._changed.notify_all()
        for job in jobs:
            job.fail(_copy_of(failure))

    @contextmanager
    def failing_on_error(self) -> Iterator[None]:
        """Runs a thread of the engine; an exception that leaves its body ends the engine."""
        try:
            yield
        except GPURerankError as error:
            self.fail(error)
        except BaseException as error:
            self.fail(ScoringError(f"the engine failed: {type(error).__name__}: {error}"))

    # Called by callers

    def submit(self, job: Job) -> None:
        """Hands a job to the feeder.

        Raises:
            GPURerankError: The engine was closed or has failed.
        """
        with self._changed:
            self.raise_failure()
            self._open_jobs.add(job)
            self._submitted.append(job)
            self._changed.notify_all()

    def withdraw(self, job: Job) -> None:
        """Forgets a job that has ended or whose caller waits no longer."""
        with self._changed:
            self._open_jobs.discard(job)

    def cap_tokens(self, max_tokens: int) -> None:
        """Lowers the most tokens of any batch."""
        with self._changed:
            self.budget.cap(max_tokens)

    def busy_since(self) -> list[float | None]:
        """When each lane, and last the feeder, began what it is doing; None while idle."""
        return list(self._busy_since)

    def stats(self) -> EngineStats:
        """The counters, read together."""
        now = time.monotonic()
        with self._changed:
            busy_s = [now - since for since in self._busy_since if since is not None]
            return EngineStats(
                batches=self._batches,
                items=self._items,
                tokens=self._tokens,
                padding=self._padding,
                busy_s=self._busy_s,
                waiting_items=sum(len(job.items) - job.done for job in self._open_jobs),
                prepared_items=len(self._prepared.entries) if self._prepared else 0,
                tokens_per_s=self.budget.tokens_per_s,
                full_tokens_per_s=self._lane_count * self.budget.full_tokens_per_s,
                heartbeat_age_s=max(busy_s, default=0.0),
            )

    # Called by the feeder

    def wait_for_jobs(self, *, has_backlog: bool) -> list[Job] | None:
        """Waits until there is something to prepare and the prepared batch has room for it.

        Args:
            has_backlog: Whether the feeder holds jobs that are not in a batch yet.

        Returns:
            Jobs submitted since the last call, maybe none where there is a backlog; None when the
            engine has ended.
        """
        with self._changed:
            self._busy_since[-1] = None
            while self._failure is None:
                if (self._submitted or has_backlog) and not self._is_prepared_batch_full():
                    jobs = list(self._submitted)
                    self._submitted.clear()
                    self._busy_since[-1] = time.monotonic()
                    return jobs
                self._changed.wait()
            return None

    def _is_prepared_batch_full(self) -> bool:
        # Preparing it anew is worth it only for jobs that arrived meanwhile.
        return self._prepared is not None and (
            self._prepared.tokens >= _FULL_SHARE * self.budget.tokens or not self._submitted
        )

    def take_back_batch(self) -> tuple[Batch | None, int]:
        """Takes the prepared batch away from the lanes, to add to it; and the idle lanes' count."""
        with self._changed:
            batch, self._prepared = self._prepared, None
            return batch, self._busy_since[:-1].count(None)

    def offer_batch(self, batch: Batch) -> None:
        """Offers a batch to the next idle lane."""
        with self._changed:
            self._prepared = batch
            self._changed.notify_all()

    # Called by the lanes

    def wait_for_batch(self, lane: int) -> Batch | None:
        """Waits for the next batch; None when the engine has ended."""
        with self._changed:
            self._busy_since[lane] = None
            while self._failure is None and self._prepared is None:
                self._changed.wait()
            if self._failure is not None:
                return None
            batch, self._prepared = self._prepared, None
            self._busy_since[lane] = time.monotonic()
            self._changed.notify_all()
            return batch

    def record_batch(self, batch: Batch, seconds: float, failure: Exception | None) -> None:
        """Counts a batch that has run and adapts the budget to how it went."""
        with self._changed:
            self._batches += 1
            self._items += len(batch.entries)
            self._tokens += batch.tokens
            self._padding += batch.padding
            self._busy_s += seconds
            if failure is None:
                self.budget.record(batch.tokens, seconds)
            elif isinstance(failure, OutOfMemoryError):
                self.budget.shrink(batch.tokens)


def _copy_of(error: GPURerankError) -> GPURerankError:
    return type(error)(*error.args)
