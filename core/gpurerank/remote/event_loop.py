"""One event loop, on a thread of its own, for every remote object of the process.

Threads, and tasks of any event loop, submit their work to it and wait. So all share one set of
connections, and no code is written twice for synchronous and asynchronous callers.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from gpurerank.calls import calling, current_call
from gpurerank.errors import ClosedError

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[], Coroutine[Any, Any, Result]]

# Seconds that the end of the process waits for connections to close.
_CLOSING_S = 1.0


class Resource(Protocol):
    """Something that the loop closes at the latest when the process ends."""

    async def aclose(self) -> None:
        """Closes it."""


class _BackgroundLoop:
    """The loop and its thread, started at first use; a forked process starts its own.

    ``_lock`` guards the start; resources are added and closed on the loop alone.
    """

    def __init__(self) -> None:
        self._parents: list[object] = []
        self._is_shut_down = False
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.resources: weakref.WeakSet[Resource] = weakref.WeakSet()

    def reset_in_child(self) -> None:
        # Kept, not closed: closing would reach the connections of the parent process.
        self._parents.append((self._loop, self._thread, list(self.resources)))
        self._reset()

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._is_shut_down:
                raise ClosedError("the process is ending; no requests are sent any more")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="gpurerank-remote", daemon=True
                )
                self._thread.start()
            return self._loop

    def submit(self, work: Work[Result]) -> Future[Result]:
        # Runs in a copy of the caller's context, so the deadline of the call applies.
        return asyncio.run_coroutine_threadsafe(work(), self._start())

    def shut_down(self) -> None:
        """Cancels all work and closes the loop, so that no connection is left open at exit."""
        self._is_shut_down = True
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        # At exit nobody can act on a failure.
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._cancel_all(), loop).result(_CLOSING_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSING_S)
        if not thread.is_alive():
            loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for resource in list(self.resources):
            await resource.aclose()


_BACKGROUND = _BackgroundLoop()
atexit.register(_BACKGROUND.shut_down)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BACKGROUND.reset_in_child)


def run(work: Work[Result]) -> Result:
    """Runs work on the loop and waits; an interrupt cancels it.

    Progress is reported on the calling thread.
    """
    on_progress = current_call().on_progress
    inbox: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
    with calling(on_progress=lambda done, total: inbox.put((done, total))):
        future = _BACKGROUND.submit(work)
    future.add_done_callback(lambda _: inbox.put(None))
    try:
        while (progress := inbox.get()) is not None:
            if on_progress is not None:
                on_progress(*progress)
        return future.result()
    finally:
        future.cancel()


async def arun(work: Work[Result]) -> Result:
    """As ``run``, without blocking; cancelling the task cancels the work."""
    on_progress, caller_loop = current_call().on_progress, asyncio.get_running_loop()

    def report(done: int, total: int) -> None:
        # The caller's loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            if on_progress is not None:
                caller_loop.call_soon_threadsafe(on_progress, done, total)

    with calling(on_progress=report):
        future = _BACKGROUND.submit(work)
    return await asyncio.wrap_future(future)


def close_at_exit(resource: Resource) -> None:
    """Closes a resource when the process ends, unless it is closed or dropped before."""
    _BACKGROUND.resources.add(resource)


def run_later(work: Work[None]) -> None:
    """Starts work without waiting: for finalizers, which may run on the loop's own thread."""
    with contextlib.suppress(ClosedError):
        _BACKGROUND.submit(work)


async def for_each_concurrently(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, concurrency: int
) -> None:
    """Runs work for every item, a few at the same time; the first failure cancels the rest."""
    # Imported here because this module is also imported where the extra is not installed. Tasks of
    # anyio, not asyncio: httpx shields its cleanup only from anyio's cancellation and leaks a
    # connection whose task is cancelled twice.
    import anyio

    waiting = iter(items)
    failures: list[Exception] = []

    async def run_waiting() -> None:
        try:
            for item in waiting:
                await work(item)
        except Exception as error:
            failures.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(run_waiting)
    if failures:
        raise failures[0]
