"""Accepting connections: never more than there are file descriptors for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from gpurerank.server.connections import Connections
from gpurerank.server.logs import RepeatedWarning
from gpurerank.server.protocol import LimitedProtocol

# After accept() failed.
_RETRY_S = 1.0
# Per turn of the event loop, so that a burst of connections does not hold back requests.
_ACCEPTS_PER_TURN = 64


class Acceptor:
    """Accepts the connections of a listening socket while there is room for them.

    It stands in for ``asyncio.Server``, which accepts without limit, and logs two thousand
    tracebacks a second while file descriptors are exhausted. Where there is no room, clients wait
    in the socket's backlog until an idle connection was closed or a request was answered.

    Args:
        listening: Bound; it is closed with this.
        backlog: Connections that the kernel holds.
        connections: Those that are open, and how many may be.
        make_protocol: Makes the protocol of a connection.
    """

    def __init__(
        self,
        listening: socket.socket,
        backlog: int,
        connections: Connections,
        make_protocol: Callable[[], LimitedProtocol],
    ) -> None:
        self._listening = listening
        self._connections = connections
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._paused = self._closed = False
        self._no_room = RepeatedWarning("no more connections are accepted until others end")
        self._failed = RepeatedWarning("a connection could not be accepted")
        connections.on_change = self._make_room
        listening.setblocking(False)
        listening.listen(backlog)
        self._loop.add_reader(listening, self._accept)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """As ``asyncio.Server``."""
        return self._loop

    def close(self) -> None:
        """Accepts what has connected already, as far as there is room, then stops."""
        if self._closed:
            return
        if not self._paused:
            self._accept()
        self._pause()
        self._closed = True
        self._listening.close()

    async def wait_closed(self) -> None:
        """As ``asyncio.Server``: closing needs no time."""

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self._connections.full:
                self._no_room.log(limit=self._connections.limit)
                self._pause()
                self._make_room()
                return
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._failed.log(error=error.strerror or str(error), open=len(self._connections))
                self._connections.evict(grace_s=0.0)
                self._pause()
                self._resume_after(_RETRY_S)
                return
            self._start(accepted)

    def _start(self, accepted: socket.socket) -> None:
        protocol = self._make_protocol()
        self._connections.add(protocol)
        accepted.setblocking(False)
        task = self._loop.create_task(self._connect(accepted, protocol))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _connect(self, accepted: socket.socket, protocol: LimitedProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted)
        except BaseException:
            self._connections.remove(protocol)
            accepted.close()
            raise

    def _make_room(self) -> None:
        """Goes on accepting if there is room; otherwise closes an idle connection for it."""
        if not self._paused or self._closed:
            return
        if self._connections.full:
            wait_s = self._connections.evict()
            if wait_s:
                self._resume_after(wait_s)
        else:
            self._resume()

    def _resume_after(self, wait_s: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(wait_s, self._resume)

    def _resume(self) -> None:
        self._cancel_timer()
        if self._paused and not self._closed:
            self._paused = False
            self._loop.add_reader(self._listening, self._accept)

    def _pause(self) -> None:
        self._cancel_timer()
        self._paused = True
        self._loop.remove_reader(self._listening)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
