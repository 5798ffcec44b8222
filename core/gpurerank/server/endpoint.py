"""What a provider API declares: its endpoints, and which of them a request is meant for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from gpurerank.server.fields import Schema

Body = Mapping[str, Any]


def any_body(_: Body) -> bool:
    """Matches every request."""
    return True


def has_field(*names: str) -> Callable[[Body], bool]:
    """Matches requests that set one of the fields; ``null`` is as good as absent."""
    return lambda body: any(body.get(name) is not None for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A POST endpoint of one API.

    Attributes:
        paths: Where it is served.
        request: Schema of the body.
        response: Type of the response, for the OpenAPI page.
        handler: Answers a checked body with what is sent as JSON.
        matches: Whether a body is meant for this API, where several share a path.
        aliases: Further paths, which the OpenAPI page leaves out.
        error_is_text: Whether the API's clients read ``error`` as a string.
    """

    paths: tuple[str, ...]
    request: type[Schema]
    response: Any
    handler: Callable[[Request, Any], Awaitable[Any]]
    matches: Callable[[Body], bool] = any_body
    aliases: tuple[str, ...] = ()
    error_is_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A GET endpoint of one API; no model works on it.

    Attributes:
        path: Where it is served.
        handler: Gives what is sent as JSON.
        response: Type of the response, for the OpenAPI page.
        needs_key: Whether it asks for the API key.
    """

    path: str
    handler: Callable[[Request], Awaitable[Any]]
    response: Any = None
    needs_key: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One provider's API.

    Attributes:
        name: As the provider writes it.
        prefix: First part of a path that chooses this API, such as ``/infinity/rerank``.
        endpoints: Its POST endpoints.
        lookups: Its GET endpoints.
    """

    name: str
    prefix: str
    endpoints: tuple[Endpoint, ...] = ()
    lookups: tuple[Lookup, ...] = ()
