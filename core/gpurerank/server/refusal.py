"""Answers to what cannot be served, in a shape that every client can read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.responses import JSONResponse

from gpurerank.errors import (
    ClosedError,
    DeadlineError,
    DeviceError,
    GPURerankError,
    InputError,
    OutOfMemoryError,
)


@dataclass(slots=True)
class Refusal(Exception):
    """A request that is not served.

    Attributes:
        status: HTTP status.
        message: What is wrong and what to change; holds no passage text.
        code: Of the reason, for programs and for the metrics.
        retry_after_s: When it is worth to try again, or None.
        closes_connection: Whether the connection ends with the answer, because the rest of the
            body is not read.
    """

    status: int
    message: str
    code: str
    retry_after_s: float | None = None
    closes_connection: bool = False

    def response(self, *, error_is_text: bool = False) -> JSONResponse:
        """The response: ``error`` is an object, or only the message where the API has it so."""
        error_type = _TYPES.get(self.status, "api_error")
        told: dict[str, object] = {
            "error": {"message": self.message, "type": error_type, "code": self.code},
            "message": self.message,
            "detail": self.message,
            "error_type": error_type,
        }
        if error_is_text:
            told["error"] = self.message
            told["error_type"] = _TEI_TYPES.get(self.status, "Backend")
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        closes = self.closes_connection or self.status in (408, 413)
        if closes or self.code == "draining":
            # A server that shuts down keeps no connection either.
            headers["Connection"] = "close"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(told, self.status, headers)


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "unavailable_error",
    504: "timeout_error",
}
_TEI_TYPES = {
    400: "Empty",
    413: "Validation",
    422: "Validation",
    429: "Overloaded",
    503: "Unhealthy",
}


def of_error(error: GPURerankError) -> Refusal:
    """The refusal for what the core raised; its messages hold no passage text."""
    if isinstance(error, InputError):
        return Refusal(422, str(error), "invalid")
    if isinstance(error, DeadlineError):
        return Refusal(504, "the request was not answered in time; send fewer passages", "deadline")
    if isinstance(error, DeviceError | ClosedError):
        return Refusal(503, "the model is not there any more", "unavailable", retry_after_s=30)
    if isinstance(error, OutOfMemoryError):
        return Refusal(413, "one passage alone does not fit into memory", "too_large")
    # text-embeddings-inference answers 424 where its backend fails; several clients retry a 500.
    return Refusal(424, "the model failed on this request", "backend")
