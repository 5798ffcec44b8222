"""The open connections of a server, and which of them may make room for others."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

# A connection without a request is closed for another one only after this time, so that a client
# that has just connected, or just read an answer, can send its request.
_GRACE_S = 1.0


class Connection(Protocol):
    """What the server's HTTP protocol offers here; ``close_if_flushed`` tells whether it closed."""

    def close_if_flushed(self) -> bool:
        """Closes the connection unless a part of an answer is still unsent."""
        ...


class Connections:
    """The open connections of one server, those without a request by how long they wait.

    Belongs to one event loop.

    Args:
        limit: Connections that may be open.

    Attributes:
        limit: As given.
        evicted: Idle connections that were closed for new ones.
        on_change: Called when one was closed or became idle.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.evicted = 0
        self.on_change: Callable[[], None] = lambda: None
        self._open: set[Connection] = set()
        # Oldest first.
        self._idle_since: OrderedDict[Connection, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether no other connection may be opened."""
        return len(self._open) >= self.limit

    def add(self, connection: Connection) -> None:
        """Counts a new connection, which has no request yet."""
        self._open.add(connection)
        self._idle_since[connection] = time.monotonic()

    def remove(self, connection: Connection) -> None:
        """Counts a connection no more."""
        self._open.discard(connection)
        self._idle_since.pop(connection, None)
        self.on_change()

    def mark_busy(self, connection: Connection) -> None:
        """Keeps a connection from being closed: it has a request."""
        self._idle_since.pop(connection, None)

    def mark_idle(self, connection: Connection) -> None:
        """Lets a connection be closed for others: its request was answered."""
        if connection in self._open:
            self._idle_since[connection] = time.monotonic()
            self.on_change()

    def evict(self, grace_s: float = _GRACE_S) -> float | None:
        """Closes the connection that has been idle longest, if it was so for ``grace_s``.

        Returns:
            Seconds after which to try again: 0 if one was closed, None if there is nothing to
            wait for but a change.
        """
        now = time.monotonic()
        for connection, since in self._idle_since.items():
            if now - since < grace_s:
                return since + grace_s - now
            if connection.close_if_flushed():
                del self._idle_since[connection]
                self.evicted += 1
                return 0.0
        return None
