"""The end of a serving process: when it is asked to, and within its time limit."""

from __future__ import annotations

import atexit
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# What shells report of a process that Ctrl-C ended.
_INTERRUPTED = 128 + signal.SIGINT


class ProcessEnd:
    """Ends this process at the latest ``limit_s`` seconds after it was asked to end.

    A model thread inside a long batch, an executor thread, or the interpreter's own teardown
    (a second with torch loaded, ten on a busy machine) can hold a process that has answered
    everything. Nothing of them is worth waiting for, so the process leaves without them.

    Args:
        limit_s: Seconds from the first signal to the end of the process. Where it is infinite,
            something outside the process must be cleaned up, and a second SIGINT interrupts that.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._begun = False
        self._status = 0
        # Its put is reentrant, as a signal handler needs it; that of an Event is not.
        self._begins: queue.SimpleQueue[None] = queue.SimpleQueue()

    @contextmanager
    def on_signals(self, request_exit: Callable[[], None]) -> Iterator[None]:
        """Calls ``request_exit`` at SIGTERM or SIGINT; a second SIGINT ends the process at once.

        The handlers stay until the process ends, unless the body raises.

        Args:
            request_exit: Must be safe in a signal handler.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            if self._begun and number == signal.SIGINT:
                if math.isinf(self._limit_s):
                    raise KeyboardInterrupt
                os._exit(_INTERRUPTED)
            self.begin()
            request_exit()

        watchdog = threading.Thread(target=self._enforce, name="gpurerank-shutdown", daemon=True)
        watchdog.start()
        before = {each: signal.signal(each, handle) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except BaseException:
            for each, handler in before.items():
                signal.signal(each, handler)
            raise

    def begin(self, status: int = 0) -> None:
        """Starts the time limit; a second call changes nothing.

        Args:
            status: Exit status of a process that reaches the limit.
        """
        if not self._begun:
            self._begun = True
            self._status = status
            self._begins.put(None)

    def exit(self, status: int = 0) -> NoReturn:
        """Runs what was registered with ``atexit``, then ends without the interpreter's teardown.

        Args:
            status: Exit status.
        """
        self.begin(status)
        atexit._run_exitfuncs()
        _leave(status)

    def _enforce(self) -> None:
        self._begins.get()
        if self._limit_s < math.inf:
            time.sleep(self._limit_s)
            _leave(self._status)


def _leave(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # its reader left, or it was closed
            continue
    os._exit(status)
