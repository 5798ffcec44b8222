"""What a server says when it refuses, and what to do about it; never a word of what was sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpurerank.errors import OverloadedError, RemoteError

_LONGEST = 300
# A run of this many characters that also stands in a text is taken for a quote from it.
_QUOTE = 24
# Of a quote, whatever its place, one block of this size begins at a multiple of this size.
_ANCHOR = _QUOTE // 2

_TOO_MUCH = (
    "if a text is too long, let the server cut it (RemoteScorer's truncate=True, Reranker's"
    " long_passages='truncate'); if there are too many, lower RemoteScorer's texts_per_request"
)
_ADVICE = {
    400: _TOO_MUCH,
    401: "check api_key",
    403: "check api_key, and what it may do",
    404: "check base_url, api and model",
    405: "check base_url and api",
    413: _TOO_MUCH,
    422: _TOO_MUCH,
}


def refusal(
    where: str,
    status: int,
    body: bytes,
    *,
    retry_after_s: float | None,
    hidden: Sequence[str],
) -> RemoteError:
    """The error of an answer that is none.

    Args:
        where: The address that was asked.
        status: Of HTTP, not a success.
        body: Of the answer, or its beginning.
        retry_after_s: What the server asked to wait.
        hidden: The texts that were sent and the key, of which nothing may show.
    """
    said = without(message_of(body), hidden)
    told = f"{where} answered {status}" + (f": {said}" if said else "")
    if status in (429, 503):
        pause = "" if retry_after_s is None else f"; it asks to wait {retry_after_s:.0f} s"
        advice = f"{pause}; ask less at once (concurrency), or later"
        return OverloadedError(
            f"{told}{advice}", status=status, retry_after_s=retry_after_s, transient=True
        )
    hint = _ADVICE.get(status)
    return RemoteError(
        f"{told}; {hint}" if hint else told,
        status=status,
        retry_after_s=retry_after_s,
        # A gateway found nobody; 500 and 504 may come again after the same work.
        transient=status == 502,
    )


def message_of(body: bytes) -> str:
    """What an error body says, in any of the shapes in use; empty where it says nothing.

    Known are ``{"error": text}``, ``{"error": {"message"}}``, ``{"message"}``, ``{"detail": text}``
    and FastAPI's ``{"detail": [{"loc", "msg"}]}``, whose ``input`` would quote what was sent.
    """
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return "a page of HTML; does a proxy or a login stand before the server?"
    try:
        found = _said(json.loads(text))
    except (ValueError, RecursionError):
        found = text
    return " ".join(found.split())


def without(message: str, hidden: Sequence[str]) -> str:
    """The beginning of a message, with every quote from the hidden texts left out."""
    message = message[: 4 * _LONGEST]
    for text in hidden:
        if 4 <= len(text.strip()) < _QUOTE:
            message = message.replace(text.strip(), "…")
    joined = "\0".join(" ".join(text.split()) for text in hidden)
    quoted = [False] * len(message)
    for anchor in range(0, len(message), _ANCHOR):
        if message[anchor : anchor + _ANCHOR] not in joined:
            continue
        for start in range(max(0, anchor - _ANCHOR), anchor + 1):
            if start + _QUOTE <= len(message) and message[start : start + _QUOTE] in joined:
                quoted[start : start + _QUOTE] = [True] * _QUOTE
    shown = "".join(
        character if not quote else "" if index and quoted[index - 1] else "…"
        for index, (character, quote) in enumerate(zip(message, quoted, strict=True))
    )
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _said(body: Any) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_said, body[:3])))
    if not isinstance(body, Mapping):
        return ""
    if isinstance(body.get("msg"), str):
        place = body.get("loc")
        names = ".".join(map(str, place)) if isinstance(place, list) else ""
        return f"{names}: {body['msg']}" if names else str(body["msg"])
    return next(filter(None, (_said(body.get(key)) for key in ("error", "message", "detail"))), "")
