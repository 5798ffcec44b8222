"""Routes that read their bodies themselves, and still stand right in the OpenAPI page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gpurerank.server.answers import ErrorAnswer
from gpurerank.server.service import Service

_TEMPLATE = "#/components/schemas/{model}"
_REFUSALS: dict[int, dict[str, Any]] = {
    400: {"description": "Nothing to work on."},
    401: {"description": "The API key is missing or wrong."},
    403: {"description": "Sent by a page of another site, or to a wrong host name."},
    404: {"description": "No such model."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "Over a limit."},
    415: {"description": "Not JSON."},
    422: {"description": "Not what the route takes."},
    424: {"description": "The model failed on this request."},
    429: {"description": "Too much waits; Retry-After says when to come again."},
    503: {"description": "Shutting down, or the model is gone."},
    504: {"description": "Not answered in time."},
}


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service: Service = request.app.state.service
    return service


async def key_required(request: Request) -> None:
    """Lets in who shows the key.

    Raises:
        Refusal: It was not shown.
    """
    service_of(request).check_key(request)


async def accepted(request: Request) -> AsyncIterator[None]:
    """Takes a request in, before its body is read: from here on it is answered.

    Raises:
        Refusal: The server ends.
    """
    with service_of(request).accepted():
        yield


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the page tells of answers that are none."""
    return {status: {**_REFUSALS[status], "model": ErrorAnswer} for status in statuses}


def inference_router() -> APIRouter:
    """A router whose routes all ask for the key."""
    # The schemes are for the page; ``key_required`` decides.
    shown = [
        Depends(HTTPBearer(auto_error=False, description="Where the server has a key.")),
        Depends(APIKeyHeader(name="x-api-key", auto_error=False)),
    ]
    return APIRouter(dependencies=[*shown, Depends(key_required), Depends(accepted)])


def route(
    router: APIRouter, paths: tuple[str, ...], answer: Any, *bodies: type[BaseModel]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds a POST route under every path; its body is one of ``bodies``."""
    refs = [{"$ref": _TEMPLATE.format(model=body.__name__)} for body in bodies]
    schema: dict[str, Any] = refs[0] if len(refs) == 1 else {"anyOf": refs}
    extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    responses: dict[int | str, Any] = {200: {"model": answer}, **refusals(*_REFUSALS)}

    def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        for path in paths:
            name = path.strip("/").replace("/", "_")
            router.add_api_route(
                path,
                endpoint,
                methods=["POST"],
                operation_id=name,
                name=name,
                openapi_extra=extra,
                response_model=None,
                responses=responses,
            )
        endpoint.__dict__.setdefault("bodies", bodies)
        return endpoint

    return add


def describe(app: FastAPI, bodies: tuple[type[BaseModel], ...]) -> None:
    """Adds the bodies' schemas to the app's OpenAPI page."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, found = models_json_schema(
                [(body, "validation") for body in bodies], ref_template=_TEMPLATE
            )
            schema.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
