"""Logs as JSON lines on standard error: what happened to each request, and none of its text."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any

LOGGER = logging.getLogger("gpurerank.server")
# Of the request that the current task answers; every line that is logged meanwhile carries it.
REQUEST_ID: ContextVar[str | None] = ContextVar("gpurerank_request_id", default=None)
_LOGGERS = ("gpurerank", "gpurerank.server", "uvicorn", "uvicorn.error", "asyncio")
_REPEATED_S = 60.0


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line. Of an exception it has type and place only: its text may hold a passage."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + "Z",
            "level": record.levelname.lower(),
            # asyncio adds lines with the values at hand, which may hold a passage.
            "message": record.getMessage().partition("\n")[0],
        }
        if (request_id := REQUEST_ID.get()) is not None:
            line["id"] = request_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            trace = record.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            if trace is not None:
                line["where"] = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
        return json.dumps(line)


class RepeatedWarning:
    """A warning that is logged at once, and then at most once a minute with a count.

    Belongs to one event loop.

    Args:
        message: Of every line.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._count = 0
        self._fields: dict[str, Any] = {}
        self._timer: asyncio.TimerHandle | None = None

    def log(self, **fields: Any) -> None:
        """Logs the warning, or counts it for the line of this minute.

        Args:
            fields: Of the line; those of the last call are logged.
        """
        self._count += 1
        self._fields = fields
        if self._timer is None:
            self._write()

    def _write(self) -> None:
        self._timer = None
        if self._count:
            fields = {**self._fields, "count": self._count}
            LOGGER.warning(self._message, extra={"fields": fields})
            self._count = 0
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_REPEATED_S, self._write)


def configure(level: int = logging.INFO) -> None:
    """Sends the logs of this package, uvicorn and asyncio to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def request_done(fields: dict[str, Any]) -> None:
    """Logs that a request was answered."""
    LOGGER.info("request", extra={"fields": fields})
