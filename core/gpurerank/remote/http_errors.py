"""Errors from HTTP error responses: the server's message, advice, and no text that was sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpurerank.errors import OverloadedError, RemoteError

# Characters of a server's message that are shown.
_MAX_MESSAGE = 300
# This many characters in a row that also occur in a text are treated as a quote from it.
_QUOTE = 24
# Any quote of that length contains one block of this size that starts at a multiple of it.
_ANCHOR = _QUOTE // 2

_SIZE_ADVICE = (
    "if a text is too long, let the server truncate it (RemoteScorer's truncate=True, Reranker's"
    " long_passages='truncate'); if there are too many, lower RemoteScorer's texts_per_request"
)
_ADVICE = {
    400: _SIZE_ADVICE,
    401: "check api_key",
    403: "check api_key and its permissions",
    404: "check base_url, api and model",
    405: "check base_url and api",
    413: _SIZE_ADVICE,
    422: _SIZE_ADVICE,
}


def http_error(
    url: str,
    status: int,
    body: bytes,
    *,
    retry_after_s: float | None,
    hidden: Sequence[str],
) -> RemoteError:
    """The error for an HTTP error response.

    Args:
        url: The address that answered.
        status: HTTP status, not a success.
        body: Body of the response, or its start.
        retry_after_s: Seconds that the server asks to wait; None if it does not say.
        hidden: The texts that were sent and the key, which the message must not show.
    """
    server_message = redact(error_message(body), hidden)
    message = f"{url} answered {status}" + (f": {server_message}" if server_message else "")
    if status in (429, 503):
        wait = "" if retry_after_s is None else f"; it asks to wait {retry_after_s:.0f} s"
        return OverloadedError(
            f"{message}{wait}; lower concurrency, or try again later",
            status=status,
            retry_after_s=retry_after_s,
            transient=True,
        )
    advice = _ADVICE.get(status)
    return RemoteError(
        f"{message}; {advice}" if advice else message,
        status=status,
        retry_after_s=retry_after_s,
        # A gateway that reached no server may reach one next time; after a 500 or 504 the same
        # work would be done once more, and may fail the same way.
        transient=status == 502,
    )


def error_message(body: bytes) -> str:
    """The message in an error body, in any of the usual shapes; empty if there is none.

    Supported are ``{"error": text}``, ``{"error": {"message"}}``, ``{"message"}``, ``{"detail":
    text}`` and FastAPI's ``{"detail": [{"loc", "msg"}]}``, whose ``input`` would quote a text.
    """
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return "a page of HTML; is there a proxy or a login in front of the server?"
    try:
        message = _find_message(json.loads(text))
    except (ValueError, RecursionError):
        message = text
    return " ".join(message.split())


def redact(message: str, hidden: Sequence[str]) -> str:
    """The start of a message, with every quote from the hidden texts replaced by "…"."""
    message = message[: 4 * _MAX_MESSAGE]
    for text in hidden:
        if 4 <= len(text.strip()) < _QUOTE:
            message = message.replace(text.strip(), "…")
    joined = "\0".join(" ".join(text.split()) for text in hidden)
    is_quoted = [False] * len(message)
    for anchor in range(0, len(message), _ANCHOR):
        if message[anchor : anchor + _ANCHOR] not in joined:
            continue
        for start in range(max(0, anchor - _ANCHOR), anchor + 1):
            if start + _QUOTE <= len(message) and message[start : start + _QUOTE] in joined:
                is_quoted[start : start + _QUOTE] = [True] * _QUOTE
    shown = "".join(
        character if not quoted else "" if index and is_quoted[index - 1] else "…"
        for index, (character, quoted) in enumerate(zip(message, is_quoted, strict=True))
    )
    return shown if len(shown) <= _MAX_MESSAGE else shown[: _MAX_MESSAGE - 1] + "…"


def _find_message(body: Any) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_find_message, body[:3])))
    if not isinstance(body, Mapping):
        return ""
    if isinstance(body.get("msg"), str):
        location = body.get("loc")
        field = ".".join(map(str, location)) if isinstance(location, list) else ""
        return f"{field}: {body['msg']}" if field else str(body["msg"])
    messages = (_find_message(body.get(key)) for key in ("error", "message", "detail"))
    return next(filter(None, messages), "")
