"""Logs as JSON lines on standard error: what was asked of the server, and no text of it."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

LOGGER = logging.getLogger("gpurerank.server")


class JsonLines(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; of an exception its type and place alone, since its text may hold a passage."""
        told: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + "Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        told.update(getattr(record, "fields", {}))
        if record.exc_info is not None and record.exc_info[0] is not None:
            told["exception"] = record.exc_info[0].__name__
            frame = record.exc_info[2]
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            if frame is not None:
                code = frame.tb_frame.f_code
                told["where"] = f"{code.co_name}:{frame.tb_lineno}"
        return json.dumps(told)


def configure(level: int = logging.INFO) -> None:
    """Sends this server's and uvicorn's logs to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("gpurerank.server", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def request_done(fields: dict[str, Any]) -> None:
    """Tells that a request was answered."""
    LOGGER.info("request", extra={"fields": fields})
