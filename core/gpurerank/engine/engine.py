"""The threads of one model: one prepares batches out of every call, one for each lane runs them.

A GPU has one lane, a CPU several: batches that run at the same time. A call hands its items over
and waits. The feeder tokenizes them and lays out one batch ahead while the lanes work on those
before; what arrives meanwhile joins that batch as long as it has room. Nothing waits for a window
of time: a lane that is idle is given what there is, or its share where others are idle too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from gpurerank.calls import Call, current_call
from gpurerank.engine.batch import Batch, BatchModel, execute, tokens_in
from gpurerank.engine.job import Answer, Item, Job
from gpurerank.engine.pace import BATCH_S, Pace
from gpurerank.engine.scheduler import Scheduler
from gpurerank.engine.stats import EngineStats
from gpurerank.errors import (
    ClosedError,
    DeviceError,
    GPURerankError,
    InputError,
    OutOfMemoryError,
    ScoringError,
)

# Over the deadline, so that a result that is just there is not thrown away.
GRACE_S = 0.05
# A batch takes about 0.05 s; one that takes this long never ends.
HANG_S = 300.0
# What closing waits for a running batch at most.
CLOSING_S = 1.0
# A batch this full is not laid out again for what arrives later.
_FULL_SHARE = 0.9

Result = TypeVar("Result")
Model = TypeVar("Model", bound="BatchModel")


class Engine(Generic[Model]):
    """Runs the items of all callers in shared batches; safe between threads and tasks.

    Args:
        replicas: Copies of one model, one for each device.
        name: Of the model, for its threads.
        batch_s: Time that a batch should take at most.
        hang_s: After this time without an end of its batch a device is given up.
    """

    def __init__(
        self,
        replicas: Sequence[Model],
        name: str,
        *,
        batch_s: float = BATCH_S,
        hang_s: float = HANG_S,
    ) -> None:
        self._replicas = tuple(replicas)
        self._name = name
        self._hang_s = hang_s
        model = self._replicas[0]
        least, most = model.tokens_per_batch
        self._pace = Pace(max(least, model.max_length), max(most, model.max_length), batch_s)
        # Less than this is not worth a lane of its own.
        self._least_share = least // 2
        self._scheduler = Scheduler(model.tokenize)
        self._changed = threading.Condition()
        self._arrived: list[Job] = []
        self._jobs: set[Job] = set()
        self._ahead: Batch | None = None
        lanes = [replica for replica in self._replicas for _ in range(replica.lanes)]
        # Of each lane, and last of the feeder.
        self._busy_since: list[float | None] = [None] * (len(lanes) + 1)
        self._suspects: dict[int, tuple[float, float]] = {}
        self._batches = self._items = self._tokens = self._padding = 0
        self._busy_s = 0.0
        self._broken: GPURerankError | None = None
        self._process = os.getpid()
        self._aside = ThreadPoolExecutor(1, f"gpurerank-aside-{name}")
        self._threads = [
            threading.Thread(target=self._feed, name=f"gpurerank-feed-{name}", daemon=True)
        ]
        for lane in enumerate(lanes):
            title = f"gpurerank-run-{name}"
            self._threads.append(
                threading.Thread(target=self._work, name=title, args=lane, daemon=True)
            )
        self._entered = threading.Semaphore(0)
        for thread in self._threads:
            thread.start()
        # What entering a lane sets for a moment, no thread of the caller's may see.
        for _ in lanes:
            self._entered.acquire()

    @property
    def replicas(self) -> Sequence[Model]:
        """Every copy of the model."""
        return self._replicas

    @property
    def model(self) -> Model:
        """The first copy; what it says of itself holds for all."""
        return self._replicas[0]

    def run(self, items: Sequence[Item], *, stage: str = "model") -> Answer:
        """What the model says of each item; waits until the deadline of the current call.

        Args:
            items: At least one.
            stage: What the time of the batches counts as among the call's stages.

        Raises:
            ClosedError: The engine was closed.
            DeadlineError: The deadline passed first; what has not begun to run will not.
            ScoringError: The model failed on an item.
        """
        call = current_call()
        inbox: queue.SimpleQueue[None] = queue.SimpleQueue()
        job = self._submit(items, call, lambda: inbox.put(None))
        try:
            while not job.ended:
                with contextlib.suppress(queue.Empty):
                    inbox.get(timeout=self._patience(call))
                self._check_heartbeat()
                _report(job, call)
        finally:
            self._release(job)
        return _result(job, call, stage)

    async def arun(self, items: Sequence[Item], *, stage: str = "model") -> Answer:
        """As ``run``, without blocking the event loop; a cancelled task's items do not run."""
        call = current_call()
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            # The loop may be closed by the time that a batch ends.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

        job = self._submit(items, call, notify)
        try:
            while not job.ended:
                # Not wait_for, which before Python 3.12 may swallow a cancellation.
                alarm = loop.call_later(self._patience(call), event.set)
                try:
                    await event.wait()
                finally:
                    alarm.cancel()
                event.clear()
                self._check_heartbeat()
                _report(job, call)
        finally:
            self._release(job)
        return _result(job, call, stage)

    async def aside(self, work: Callable[[], Result]) -> Result:
        """Runs work that is not the model's on a thread of the engine, off the event loop."""

        def unless_closed() -> Result:
            self.check_open()
            return work()

        self.check_open()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._aside, unless_closed)
        except RuntimeError:
            # The executor was shut down meanwhile.
            self.check_open()
            raise

    def limit_tokens(self, max_tokens: int) -> None:
        """Lowers what a batch may have, for every caller; an item over it is a batch alone."""
        with self._changed:
            self._pace.limit(max_tokens)

    def stats(self) -> EngineStats:
        """What has been done and what waits."""
        now = time.monotonic()
        with self._changed:
            busy = [now - since for since in self._busy_since if since is not None]
            return EngineStats(
                batches=self._batches,
                items=self._items,
                tokens=self._tokens,
                padding=self._padding,
                busy_s=self._busy_s,
                waiting_items=sum(len(job.items) - job.done for job in self._jobs),
                tokens_per_s=self._pace.tokens_per_s,
                heartbeat_age_s=max(busy, default=0.0),
            )

    def close(self) -> None:
        """Fails what waits; a running batch ends by itself."""
        if os.getpid() != self._process:
            return
        self._break(ClosedError("this model was closed; make a new Reranker or BiEncoder"))
        # Not cancel_futures: a task that waits is told that the model was closed.
        self._aside.shutdown(wait=False)
        last = time.monotonic() + CLOSING_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, last - time.monotonic()))

    @property
    def usable(self) -> bool:
        """Whether a new engine could do no better: it works, or its device is lost."""
        return self._broken is None or isinstance(self._broken, DeviceError)

    def check_open(self) -> None:
        """Checks that calls are taken.

        Raises:
            ClosedError: The engine was closed, or this process is a fork of its own.
            ScoringError: The engine or its device failed for good.
        """
        if os.getpid() != self._process:
            # Threads do not survive a fork: the call would never end.
            raise ClosedError(
                "this model was loaded before the process forked; make the Reranker or BiEncoder"
                " in the child, or start workers with 'spawn'"
            )
        if self._broken is not None:
            raise _again(self._broken)

    def _submit(self, items: Sequence[Item], call: Call, notify: Callable[[], None]) -> Job:
        self.check_open()
        if not items:
            raise InputError("there is nothing to run; give at least one item")
        job = Job(items, call, notify)
        with self._changed:
            self.check_open()
            self._jobs.add(job)
            self._arrived.append(job)
            self._changed.notify_all()
        return job

    def _patience(self, call: Call) -> float:
        """Seconds until a caller looks up: at its deadline, and now and then at the heartbeat."""
        remaining = call.remaining_s()
        looks = self._hang_s / 4
        return looks if remaining is None else min(looks, remaining + GRACE_S)

    def _check_heartbeat(self) -> None:
        """Gives a device up that has not ended its batch; any caller that waits looks.

        Two looks with time between them must agree: a process that was stopped for long has not
        had that time.
        """
        now = time.monotonic()
        for number, since in enumerate(self._busy_since):
            if since is None or now - since <= self._hang_s:
                continue
            suspected, seen = self._suspects.setdefault(number, (since, now))
            if suspected != since:
                self._suspects[number] = (since, now)
            elif now - seen >= self._hang_s / 8:
                waited = f"the model has not ended a batch for {now - since:.0f} s"
                self._break(DeviceError(f"{waited}; start a new process"))

    def _release(self, job: Job) -> None:
        job.give_up()
        with self._changed:
            self._jobs.discard(job)

    # The feeder's thread

    def _feed(self) -> None:
        try:
            while self._wait_for_work():
                self._prepare_ahead()
        except GPURerankError as error:
            self._break(error)
        except BaseException as error:
            self._break(ScoringError(f"the engine failed: {type(error).__name__}: {error}"))

    def _wait_for_work(self) -> bool:
        """Waits for something to prepare; whether there is."""
        with self._changed:
            self._busy_since[-1] = None
            while self._broken is None:
                waiting = bool(self._arrived) or len(self._scheduler) > 0
                full = self._ahead is not None and (
                    self._ahead.tokens >= _FULL_SHARE * self._pace.budget or not self._arrived
                )
                if waiting and not full:
                    for job in self._arrived:
                        self._scheduler.add(job)
                    self._arrived.clear()
                    self._busy_since[-1] = time.monotonic()
                    return True
                self._changed.wait()
            return False

    def _prepare_ahead(self) -> None:
        budget = self._pace.budget
        # Tokenized before the batch that is laid out already is taken back: a lane that falls
        # idle meanwhile has that one.
        self._scheduler.read(budget * self.model.lanes, budget)
        with self._changed:
            earlier, self._ahead = self._ahead, None
            idle = self._busy_since[:-1].count(None)
        kept = [] if earlier is None else earlier.entries
        entries = [entry for entry in kept if not entry.job.ended]
        tokens = tokens_in(entries)
        waiting = self._scheduler.waiting_tokens
        room = budget if waiting is None else self._share(tokens + waiting, idle, budget)
        while fresh := self._scheduler.take(room - tokens, budget, may_exceed=not entries):
            entries = entries + fresh
            tokens += tokens_in(fresh)
            self._scheduler.read(room - tokens, budget)
        if not entries:
            return
        batch = Batch.of(self.model, entries)
        with self._changed:
            self._ahead = batch
            self._changed.notify_all()

    def _share(self, waiting: int, idle: int, budget: int) -> int:
        """Tokens of the next batch, so that the lanes of a device end together."""
        lanes = self.model.lanes
        if lanes == 1:
            return budget
        share = -(-waiting // (idle or lanes))
        return min(budget, max(share, self._least_share))

    # The lanes' threads

    def _work(self, number: int, replica: Model) -> None:
        try:
            try:
                replica.enter_lane()
            finally:
                self._entered.release()
            while (batch := self._next(number)) is not None:
                self._execute(replica, batch)
                # Neither a result nor a job must outlive its caller in this frame.
                del batch
        except GPURerankError as error:
            self._break(error)
        except BaseException as error:
            self._break(ScoringError(f"the engine failed: {type(error).__name__}: {error}"))

    def _next(self, number: int) -> Batch | None:
        with self._changed:
            self._busy_since[number] = None
            while self._broken is None and self._ahead is None:
                self._changed.wait()
            if self._broken is not None:
                return None
            batch, self._ahead = self._ahead, None
            self._busy_since[number] = time.monotonic()
            self._changed.notify_all()
            return batch

    def _execute(self, replica: Model, batch: Batch) -> None:
        if all(entry.job.expire() for entry in batch.entries):
            return
        started = time.perf_counter()
        failure = execute(replica, batch)
        seconds = time.perf_counter() - started
        with self._changed:
            self._batches += 1
            self._items += len(batch.entries)
            self._tokens += batch.tokens
            self._padding += batch.padding
            self._busy_s += seconds
            if failure is None:
                self._pace.ran(batch.tokens, seconds)
            elif isinstance(failure, OutOfMemoryError):
                self._pace.shrink(batch.tokens)

    def _break(self, error: GPURerankError) -> None:
        """Ends everything: who waits is told, who comes is refused."""
        with self._changed:
            if self._broken is None:
                self._broken = error
            jobs, self._jobs = self._jobs, set()
            self._arrived.clear()
            self._ahead = None
            self._changed.notify_all()
        for job in jobs:
            job.fail(_again(self._broken))


def _report(job: Job, call: Call) -> None:
    """Tells the caller's progress on the caller's own thread; ends a job that is late."""
    if not job.expire() and call.on_progress is not None and job.done:
        call.on_progress(job.done, len(job.items))


def _result(job: Job, call: Call, stage: str) -> Answer:
    answer = job.result()
    if call.on_progress is not None:
        call.on_progress(job.done, len(job.items))
    for name, spent in (("tokenize", job.tokenize_ms), (stage, job.run_ms)):
        call.stages_ms[name] = call.stages_ms.get(name, 0.0) + spent
    call.counted["tokens"] = call.counted.get("tokens", 0) + job.tokens
    return answer


def _again(error: GPURerankError) -> GPURerankError:
    """The same error anew: one that is raised on many threads would gather their tracebacks."""
    return type(error)(*error.args)
