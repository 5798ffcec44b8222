"""Bodies of requests: read within limits, and strictly what they say."""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from gpurerank.server.options import Limits
from gpurerank.server.refusal import Refusal

Body = TypeVar("Body", bound=BaseModel)
# Of what is wrong with a body; ten thousand documents may all be.
_MOST_TOLD = 3


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        Refusal: It is too large (before it is read whole), too slow, or no strict JSON object.
    """
    _check_headers(request, limits)
    try:
        body = await asyncio.wait_for(_read(request, limits.body_bytes), limits.body_s)
    except asyncio.TimeoutError:
        message = f"the body did not arrive within {limits.body_s:g} s"
        raise Refusal(408, message, "slow_body") from None
    except ClientDisconnect:
        raise Refusal(400, "the client left before its body arrived", "left") from None
    return parse(body)


def parse(body: bytes) -> dict[str, Any]:
    """Strict JSON in UTF-8: no byte order mark, no NaN, no name twice.

    Raises:
        Refusal: It is something else.
    """
    try:
        found = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except UnicodeDecodeError:
        raise Refusal(422, "the body is not UTF-8", "not_json") from None
    except RecursionError:
        raise Refusal(422, "the body is nested too deeply", "not_json") from None
    except ValueError as error:
        # A decoder's own message names a place and not the text there.
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise Refusal(422, f"the body is not strict JSON: {reason}", "not_json") from None
    if not isinstance(found, dict):
        message = f"the body is a JSON {type(found).__name__}; send an object"
        raise Refusal(422, message, "not_json")
    return found


def checked(model: type[Body], found: dict[str, Any]) -> Body:
    """The body as a schema's object.

    Raises:
        Refusal: A field is missing, of another type, or out of range.
    """
    try:
        return model.model_validate(found)
    except ValidationError as error:
        found_wrong = error.errors(include_input=False, include_url=False)
        told = dict.fromkeys(f"{_place(each['loc'])}: {_said(each['msg'])}" for each in found_wrong)
        raise Refusal(422, "; ".join(list(told)[:_MOST_TOLD]), "invalid") from None


def _place(location: tuple[int | str, ...]) -> str:
    # Where a field may be one of several types pydantic names the type between.
    parts = [str(p) for p in location if isinstance(p, int) or (p.isidentifier() and p.islower())]
    return ".".join(parts) or "the body"


def _said(message: str) -> str:
    return message.removeprefix("Value error, ").split(" or instance of ")[0]


def _check_headers(request: Request, limits: Limits) -> None:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind not in ("application/json", "text/json") and not kind.endswith("+json"):
        raise Refusal(415, f"the body is {kind!r}; send application/json", "not_json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed; send it as it is", "not_json")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise _too_large(limits.body_bytes)


async def _read(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is over {most:,} bytes; send fewer passages", "too_large")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _integer(text: str) -> int:
    # Python converts at most 4,300 digits, and says so in words for programmers.
    if len(text) > 400:
        raise ValueError("a number has too many digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value
