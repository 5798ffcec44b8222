"""Parts of responses that every API shares, and how responses are encoded."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response
from typing_extensions import TypedDict


class Usage(TypedDict):
    """Tokens that the models read for a request."""

    total_tokens: int
    prompt_tokens: int


class ErrorBody(TypedDict):
    """The error of a request, as OpenAI's clients read it."""

    message: str
    type: str
    code: str


class ErrorAnswer(TypedDict):
    """The error of a request for every client; ``error`` is a string in some APIs."""

    error: ErrorBody | str
    message: str
    detail: str
    error_type: str


class JSON(Response):
    """A JSON response of plain values and arrays; floats keep all their digits."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encodes the body."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def usage_of(tokens: int) -> Usage:
    """Token counts under the names that OpenAI and others give them."""
    return {"total_tokens": tokens, "prompt_tokens": tokens}
