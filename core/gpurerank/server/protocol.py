"""uvicorn's HTTP protocol with what it lacks: limits for headers, and half-closed connections."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gpurerank.server.connections import Connections

# The parser takes no body after it, and Java's client asks for HTTP/2 so with every request.
_UPGRADE = re.compile(rb"(\r\n)upgrade([ \t]*:)", re.IGNORECASE)
# A client may have to read and skip it before any answer, RFC 9110, 15.2.
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
# How often a half-closed connection is looked at.
_LOOK_S = 0.1


class LimitedProtocol(HttpToolsProtocol):
    """One connection: limits the headers of each request, and reports whether it has a request.

    The time for headers counts from the connection, or from a request's first byte.

    Attributes:
        header_s: Seconds until the headers of a request have arrived.
        header_bytes: Bytes of a request's line and headers.
        open_connections: Those of its server.
    """

    header_s = 10.0
    header_bytes = 32 << 10
    open_connections: Connections
    _alarm: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None
    _bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for headers, so that a connection that sends nothing is closed too."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers and counts the connection no more."""
        self._disarm()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)
        self.open_connections.remove(self)

    def data_received(self, data: bytes) -> None:
        """Parses data unless the headers are too long."""
        if self.cycle is None or self.cycle.response_complete:
            data = _UPGRADE.sub(rb"\1ignored\2", data)
        super().data_received(data)
        if self._alarm is not None:
            self._bytes += len(data)
            if self._bytes > self.header_bytes:
                self._disarm()
                self.send_400_response("the headers are too long")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keeps the connection of a client that sends no more and may still read its answer.

        A client that has left looks the same until it refuses data, so it is sent an interim
        response; its refusal ends the request as a broken connection does.
        """
        if self._is_idle() or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        # An answer that is being written to an earlier request must not be broken up.
        is_next = not self.pipeline and not self.cycle.response_started
        if is_next and self.cycle.scope["http_version"] == "1.1":
            self.transport.write(_INTERIM)
        # The event loop watches such a connection no more.
        self._look = self.loop.call_later(_LOOK_S, self._check_still_there)
        return True

    def on_message_begin(self) -> None:
        """Starts the time for the headers of a further request."""
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        """Stops the time: the body has a limit of its own, which the application enforces.

        Raises:
            ValueError: The headers came at once and are too long; uvicorn answers with 400.
        """
        self._disarm()
        lengths = (len(name) + len(value) for name, value in self.headers)
        if len(self.url) + sum(lengths) > self.header_bytes:
            raise ValueError("the headers are too long")
        self.open_connections.mark_busy(self)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Goes on with the next request, or waits for one."""
        super().on_response_complete()
        if self._is_idle():
            self.open_connections.mark_idle(self)

    def close_if_flushed(self) -> bool:
        """Closes the connection unless a part of an answer is still unsent."""
        if self.transport is None or self.transport.get_write_buffer_size():
            return False
        self.transport.close()
        return True

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _check_still_there(self) -> None:
        connection: socket.socket = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._look = self.loop.call_later(_LOOK_S, self._check_still_there)

    def _arm(self) -> None:
        if self._alarm is None:
            self._bytes = 0
            self._alarm = self.loop.call_later(self.header_s, self._close_late)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _close_late(self) -> None:
        self._alarm = None
        transport: Any = self.transport
        if transport is not None and not transport.is_closing():
            transport.close()


def protocol_with(
    header_s: float, header_bytes: int, connections: Connections
) -> type[asyncio.Protocol]:
    """The protocol with its limits; uvicorn takes a class."""
    attributes = {
        "header_s": header_s,
        "header_bytes": header_bytes,
        "open_connections": connections,
    }
    return type("Limited", (LimitedProtocol,), attributes)
