"""uvicorn's HTTP protocol with what it lacks: a deadline and a limit for headers."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def protocol_with(header_s: float, header_bytes: int) -> type[asyncio.Protocol]:
    """A protocol that closes a connection whose headers are late or too long."""

    class HeaderLimits(HttpToolsProtocol):
        """Counts from the first byte of a request, or from the connection, to its headers' end."""

        _alarm: asyncio.TimerHandle | None = None
        _bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._arm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._alarm is not None:
                self._bytes += len(data)
                if self._bytes > header_bytes and not _ends_headers(data):
                    self._disarm()
                    self.send_400_response("the headers are too long")
                    return
            super().data_received(data)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._arm()

        def on_headers_complete(self) -> None:
            self._disarm()
            super().on_headers_complete()

        def _arm(self) -> None:
            if self._alarm is None:
                self._bytes = 0
                self._alarm = self.loop.call_later(header_s, self._late)

        def _disarm(self) -> None:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

        def _late(self) -> None:
            self._alarm = None
            transport: Any = self.transport
            if transport is not None and not transport.is_closing():
                transport.close()

    return HeaderLimits


def _ends_headers(data: bytes) -> bool:
    return b"\r\n\r\n" in data
