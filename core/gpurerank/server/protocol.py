"""uvicorn's HTTP protocol with what it lacks: a deadline and a limit for headers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# The parser takes no body after it, and Java's client asks for HTTP/2 so with every request.
_UPGRADE = re.compile(rb"(\r\n)upgrade([ \t]*:)", re.IGNORECASE)


class HeaderLimits(HttpToolsProtocol):
    """Counts from the connection, or from a request's first byte, to the end of its headers.

    Attributes:
        header_s: Seconds that headers may take.
        header_bytes: Bytes that they may have.
    """

    header_s = 10.0
    header_bytes = 32 << 10
    _alarm: asyncio.TimerHandle | None = None
    _bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to count: a connection on which nothing comes is closed too."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Counts no more."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Passes data on, unless headers grow too long before they end."""
        if self.cycle is None or self.cycle.response_complete:
            data = _UPGRADE.sub(rb"\1ignored\2", data)
        super().data_received(data)
        if self._alarm is not None:
            self._bytes += len(data)
            if self._bytes > self.header_bytes:
                self._disarm()
                self.send_400_response("the headers are too long")

    def on_message_begin(self) -> None:
        """Begins to count the next request of a connection that is kept."""
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        """Counts no more: the application reads the body, and has a deadline of its own.

        Raises:
            ValueError: The headers came at once and are too long; uvicorn answers with 400.
        """
        self._disarm()
        lengths = (len(name) + len(value) for name, value in self.headers)
        if len(self.url) + sum(lengths) > self.header_bytes:
            raise ValueError("the headers are too long")
        super().on_headers_complete()

    def _arm(self) -> None:
        if self._alarm is None:
            self._bytes = 0
            self._alarm = self.loop.call_later(self.header_s, self._late)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _late(self) -> None:
        self._alarm = None
        transport: Any = self.transport
        if transport is not None and not transport.is_closing():
            transport.close()


def protocol_with(header_s: float, header_bytes: int) -> type[asyncio.Protocol]:
    """The protocol with its limits; uvicorn takes a class."""
    limits = {"header_s": header_s, "header_bytes": header_bytes}
    return type("Limited", (HeaderLimits,), limits)
