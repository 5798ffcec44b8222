"""The one thread that tokenizes for a model and runs it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from gpurerank.calls import current_call
from gpurerank.errors import ClosedError, DeadlineError

Result = TypeVar("Result")
Cancelled = Callable[[], bool]
Job = Callable[[Cancelled], Result]

# Over the deadline that a job checks itself, so that its own error is the one that is seen.
GRACE_S = 0.05
_TOO_LATE = "the deadline passed before the model answered; raise timeout_s or send fewer passages"
_CLOSED_MEANWHILE = "the model was closed while this call waited"


class Owner:
    """Runs jobs one after another on a thread of its own.

    Tokenizers and CUDA graphs must not be shared between threads, and a thread pool of the caller's
    must not be starved: so one thread owns a model, and everybody else waits for futures.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"gpurerank-{name}")
        self._thread: int | None = None
        self._closed = False
        self._process = os.getpid()

    def run(self, job: Job[Result]) -> Result:
        """Runs a job and waits, until the deadline of the current call.

        Raises:
            ClosedError: The owner was closed.
            DeadlineError: The deadline passed first; the job stops at its next batch.
        """
        if threading.get_ident() == self._thread:
            return job(lambda: False)
        future, cancelled = self._submit(job)
        remaining = current_call().remaining_s()
        try:
            return future.result(None if remaining is None else remaining + GRACE_S)
        except DeadlineError:
            raise
        except FutureTimeoutError:
            raise DeadlineError(_TOO_LATE) from None
        except CancelledError:
            raise ClosedError(_CLOSED_MEANWHILE) from None
        finally:
            cancelled.set()
            future.cancel()

    async def arun(self, job: Job[Result]) -> Result:
        """As ``run``, without blocking the event loop; cancelling the task stops the job."""
        future, cancelled = self._submit(job)
        remaining = current_call().remaining_s()
        try:
            return await asyncio.wait_for(
                asyncio.wrap_future(future), None if remaining is None else remaining + GRACE_S
            )
        except DeadlineError:
            raise
        except asyncio.TimeoutError:
            raise DeadlineError(_TOO_LATE) from None
        except asyncio.CancelledError:
            if self._closed and future.cancelled():
                raise ClosedError(_CLOSED_MEANWHILE) from None
            raise
        finally:
            cancelled.set()
            future.cancel()

    def close(self) -> None:
        """Drops waiting jobs; the running one ends by itself."""
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _submit(self, job: Job[Result]) -> tuple[Future[Result], threading.Event]:
        if self._closed:
            raise ClosedError("this model was closed; make a new Reranker or BiEncoder")
        if os.getpid() != self._process:
            # Threads do not survive a fork: the future would never end.
            raise ClosedError(
                "this model was loaded before the process forked; make the Reranker or BiEncoder"
                " in the child, or start workers with 'spawn'"
            )
        cancelled = threading.Event()
        context = contextvars.copy_context()

        def work() -> Result:
            self._thread = threading.get_ident()
            return context.run(job, cancelled.is_set)

        return self._executor.submit(work), cancelled
