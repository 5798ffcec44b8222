"""The engine of one model: callers from any thread or task share its batches.

Four parts, each in a module: callers use ``Engine``; one ``Feeder`` thread tokenizes and prepares
batches; ``Lane`` threads run them; the ``Watchdog`` notices a device that hangs. What they share,
and which lock guards it, is in ``state``.
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
from gpurerank.engine.batch import BatchModel
from gpurerank.engine.batch_budget import BatchBudget
from gpurerank.engine.feeder import Feeder
from gpurerank.engine.job import Item, Job, JobResult
from gpurerank.engine.lane import Lane
from gpurerank.engine.state import EngineState
from gpurerank.engine.stats import EngineStats
from gpurerank.engine.watchdog import HANG_S, Watchdog
from gpurerank.errors import ClosedError, DeviceError, InputError

# A caller waits this much beyond its deadline for a result that is just being delivered.
GRACE_S = 0.05
# Seconds that closing waits for running batches at most.
CLOSING_S = 1.0

Result = TypeVar("Result")
Model = TypeVar("Model", bound="BatchModel")


class Engine(Generic[Model]):
    """Runs the items of all callers in shared batches; safe to use from any thread or task.

    Args:
        replicas: Copies of one model, one for each device.
        name: Name of the model, for its threads.
        hang_s: Seconds after which a device whose batch has not ended counts as lost.
        budget: Token budget of a batch; None for one that follows the model's rate.
    """

    def __init__(
        self,
        replicas: Sequence[Model],
        name: str,
        *,
        hang_s: float = HANG_S,
        budget: BatchBudget | None = None,
    ) -> None:
        self._replicas = tuple(replicas)
        model = self._replicas[0]
        lanes = [replica for replica in self._replicas for _ in range(replica.lanes)]
        self._state = EngineState(len(lanes), budget or _budget_of(model))
        self._watchdog = Watchdog(self._state, hang_s)
        self._process_id = os.getpid()
        self._off_loop = ThreadPoolExecutor(1, f"gpurerank-off-loop-{name}")
        self._threads = self._start_threads(lanes, name)

    def _start_threads(self, lanes: Sequence[Model], name: str) -> list[threading.Thread]:
        min_share = self.model.tokens_per_batch[0] // 2
        feeder = Feeder(self.model, self._state, min_share)
        runners = [Lane(number, replica, self._state) for number, replica in enumerate(lanes)]
        threads = [
            threading.Thread(target=feeder.run, name=f"gpurerank-feeder-{name}", daemon=True),
            *(
                threading.Thread(target=lane.run, name=f"gpurerank-lane-{name}", daemon=True)
                for lane in runners
            ),
        ]
        for thread in threads:
            thread.start()
        # Setting up a lane changes torch's thread count for a moment; no caller may see that.
        for lane in runners:
            lane.is_set_up.wait()
        return threads

    @property
    def replicas(self) -> Sequence[Model]:
        """Every copy of the model, one for each device."""
        return self._replicas

    @property
    def model(self) -> Model:
        """The first copy of the model; its properties hold for all copies."""
        return self._replicas[0]

    def run(self, items: Sequence[Item], *, stage: str = "model") -> JobResult:
        """Runs items through the model and waits, at most until the deadline of the current call.

        Args:
            items: At least one.
            stage: Name under which the time of the batches is added to the call's stages.

        Raises:
            ClosedError: The engine was closed.
            DeadlineError: The deadline passed; items that have not started will not run.
            ScoringError: The model failed on an item.
        """
        call = current_call()
        inbox: queue.SimpleQueue[None] = queue.SimpleQueue()
        job = self._submit(items, call, lambda: inbox.put(None))
        try:
            while not job.ended:
                with contextlib.suppress(queue.Empty):
                    inbox.get(timeout=self._wait_s(call))
                self._watchdog.check()
                _update_progress(job, call)
        finally:
            self._release(job)
        return _collect_result(job, call, stage)

    async def arun(self, items: Sequence[Item], *, stage: str = "model") -> JobResult:
        """As ``run``, without blocking the event loop; cancelling drops items that wait."""
        call = current_call()
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            # The loop may be closed by the time that a batch ends.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

        job = self._submit(items, call, notify)
        try:
            while not job.ended:
                # Not asyncio.wait_for, which may swallow a cancellation before Python 3.12.
                alarm = loop.call_later(self._wait_s(call), event.set)
                try:
                    await event.wait()
                finally:
                    alarm.cancel()
                event.clear()
                self._watchdog.check()
                _update_progress(job, call)
        finally:
            self._release(job)
        return _collect_result(job, call, stage)

    async def run_off_loop(self, work: Callable[[], Result]) -> Result:
        """Runs work that needs no lane, such as tokenizing, on a separate thread.

        Raises:
            ClosedError: The engine was closed before the work began.
        """

        def work_if_open() -> Result:
            self.check_open()
            return work()

        self.check_open()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._off_loop, work_if_open)
        except RuntimeError:
            # Raised by an executor that was shut down in the meantime.
            self.check_open()
            raise

    def cap_tokens(self, max_tokens: int) -> None:
        """Lowers the most tokens of a batch, for every caller; a longer item runs alone."""
        self._state.cap_tokens(max_tokens)

    def stats(self) -> EngineStats:
        """What the engine has done so far and what is waiting."""
        return self._state.stats()

    def close(self) -> None:
        """Fails what is waiting; batches that are running end by themselves."""
        if os.getpid() != self._process_id:
            return
        self._state.fail(ClosedError("this model was closed; make a new Reranker or BiEncoder"))
        # Without cancel_futures: a task that waits there learns that the model was closed.
        self._off_loop.shutdown(wait=False)
        deadline = time.monotonic() + CLOSING_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def usable(self) -> bool:
        """Whether it works, or has lost its device, so that a new engine would do no better."""
        return self._state.failure is None or isinstance(self._state.failure, DeviceError)

    def check_open(self) -> None:
        """Checks that the engine takes calls.

        Raises:
            ClosedError: It was closed, or belongs to the process that this one was forked from.
            ScoringError: It, or its device, has failed for good.
        """
        if os.getpid() != self._process_id:
            # Threads do not survive a fork: the call would never end.
            raise ClosedError(
                "this model was loaded before the process forked, and its threads do not exist in"
                " the child; make a new Reranker or BiEncoder in the child, or start workers with"
                " 'spawn' (gunicorn: without --preload)"
            )
        self._state.raise_failure()

    def _submit(self, items: Sequence[Item], call: Call, notify: Callable[[], None]) -> Job:
        self.check_open()
        if not items:
            raise InputError("there is nothing to run; give at least one item")
        job = Job(items, call, notify)
        self._state.submit(job)
        return job

    def _release(self, job: Job) -> None:
        job.give_up()
        self._state.withdraw(job)

    def _wait_s(self, call: Call) -> float:
        """Seconds that a caller sleeps at most: until its deadline or the next watchdog check."""
        remaining_s = call.remaining_s()
        check_s = self._watchdog.check_interval_s
        return check_s if remaining_s is None else min(check_s, remaining_s + GRACE_S)


def _budget_of(model: BatchModel) -> BatchBudget:
    least, most = model.tokens_per_batch
    return BatchBudget(max(least, model.max_length), max(most, model.max_length))


def _update_progress(job: Job, call: Call) -> None:
    """Reports progress on the caller's own thread; ends a job whose deadline has passed."""
    if not job.expire() and call.on_progress is not None and job.done:
        call.on_progress(job.done, len(job.items))


def _collect_result(job: Job, call: Call, stage: str) -> JobResult:
    result = job.result()
    if call.on_progress is not None:
        call.on_progress(job.done, len(job.items))
    for name, spent_ms in (("tokenize", job.tokenize_ms), (stage, job.run_ms)):
        call.stages_ms[name] = call.stages_ms.get(name, 0.0) + spent_ms
    call.count("model_tokens", job.tokens)
    return result
