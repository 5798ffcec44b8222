"""One event loop, on a thread of its own, for every remote object of the process.

Threads, and tasks of any event loop, hand their work over and wait. So one set of connections
serves them all, and no line is written twice for synchronous and asynchronous callers.
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

# What ending the process waits for connections at most.
_CLOSING_S = 1.0


class Resource(Protocol):
    """Something that the loop closes at the latest when the process ends."""

    async def aclose(self) -> None:
        """Closes it."""


class _Home:
    """Where the loop is; begun anew in a forked process, which has no copy of the thread."""

    def __init__(self) -> None:
        self._abandoned: list[object] = []
        self._ended = False
        self.begin()

    def begin(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.resources: weakref.WeakSet[Resource] = weakref.WeakSet()

    def begin_in_child(self) -> None:
        # Kept, not closed: closing would reach the connections of the parent.
        self._abandoned.append((self._loop, self._thread, list(self.resources)))
        self.begin()

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._ended:
                raise ClosedError("the process is ending; no server is asked any more")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="gpurerank-remote", daemon=True
                )
                self._thread.start()
            return self._loop

    def submit(self, work: Work[Result]) -> Future[Result]:
        loop = self.loop()
        # Runs in a copy of the caller's context, and so in its call.
        return asyncio.run_coroutine_threadsafe(work(), loop)

    def end(self) -> None:
        """Ends all work and closes the loop, so that no connection is left to the interpreter."""
        self._ended = True
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        # At exit nobody is left to be told of a failure.
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._finish(), loop).result(_CLOSING_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSING_S)
        if not thread.is_alive():
            loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for resource in list(self.resources):
            await resource.aclose()


_HOME = _Home()
atexit.register(_HOME.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HOME.begin_in_child)


def run(work: Work[Result]) -> Result:
    """Waits for work on the loop; an interrupt cancels it. Progress is told on this thread."""
    tell = current_call().on_progress
    inbox: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
    with calling(on_progress=lambda done, total: inbox.put((done, total))):
        future = _HOME.submit(work)
    future.add_done_callback(lambda _: inbox.put(None))
    try:
        while (progress := inbox.get()) is not None:
            if tell is not None:
                tell(*progress)
        return future.result()
    finally:
        future.cancel()


async def arun(work: Work[Result]) -> Result:
    """As ``run``, without blocking; cancelling the task cancels the work."""
    tell, here = current_call().on_progress, asyncio.get_running_loop()

    def pass_on(done: int, total: int) -> None:
        # The caller's loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            if tell is not None:
                here.call_soon_threadsafe(tell, done, total)

    with calling(on_progress=pass_on):
        future = _HOME.submit(work)
    return await asyncio.wrap_future(future)


def keep(resource: Resource) -> None:
    """Has a resource closed when the process ends, unless it is closed or dropped before."""
    _HOME.resources.add(resource)


def post(work: Work[None]) -> None:
    """Starts work and does not wait: for finalizers, which may run on the loop's own thread."""
    with contextlib.suppress(ClosedError):
        _HOME.submit(work)


async def work_through(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, at_once: int
) -> None:
    """Does the work for each item, a few at once; the first failure ends the rest."""
    # Here, because this module is imported also where the extra is not installed. Not asyncio's
    # own tasks: httpx shields its cleaning up from this library's cancellation alone, and leaks a
    # connection whose task is cancelled twice.
    import anyio

    waiting = iter(items)
    failures: list[Exception] = []

    async def take() -> None:
        try:
            for item in waiting:
                await work(item)
        except Exception as error:
            failures.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(take)
    if failures:
        raise failures[0]
