"""Routes for the endpoints of all APIs: one per path, which picks an API by the body's fields."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Union

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic.json_schema import models_json_schema

from gpurerank.server.endpoint import Api, Endpoint, Lookup
from gpurerank.server.refusal import Refusal
from gpurerank.server.responses import JSON, ErrorAnswer
from gpurerank.server.service import Service

_TEMPLATE = "#/components/schemas/{model}"
_REFUSALS: dict[int, dict[str, Any]] = {
    400: {"description": "The request has nothing to work on."},
    401: {"description": "The API key is missing or wrong."},
    403: {"description": "Sent by a page of another site, or to a wrong host name."},
    404: {"description": "No such model."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The request is over a limit."},
    415: {"description": "The body is not JSON."},
    422: {"description": "The body is not what the path takes."},
    424: {"description": "The model failed on this request."},
    429: {"description": "Too much work is queued; Retry-After says when to try again."},
    503: {"description": "The server is shutting down, or the model is gone."},
    504: {"description": "The request was not answered in time."},
}
# For the OpenAPI page; ``key_required`` decides.
_KEY_SCHEMES = [
    Depends(HTTPBearer(auto_error=False, description="Where the server has a key.")),
    Depends(APIKeyHeader(name="x-api-key", auto_error=False)),
]


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service: Service = request.app.state.service
    return service


async def key_required(request: Request) -> None:
    """Admits requests that carry the API key.

    Raises:
        Refusal: The key is missing or wrong.
    """
    service_of(request).check_key(request)


def has_key(request: Request) -> bool:
    """Whether a request may see what the key protects; any may where there is no key."""
    try:
        service_of(request).check_key(request)
    except Refusal:
        return False
    return True


def get_route(
    router: APIRouter, path: str, *, needs_key: bool = False, **described: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds a GET route that answers HEAD too, which load balancers and monitors send.

    Args:
        router: Gets the route.
        path: Of the route.
        needs_key: Whether it asks for the API key.
        described: As ``add_api_route`` has it, for the OpenAPI schema.
    """

    def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        dependencies = [Depends(key_required)] if needs_key else []
        router.add_api_route(
            path, endpoint, methods=["GET"], dependencies=dependencies, **described
        )
        # Apart, because an operation of the schema has one method. The server leaves out the body.
        router.add_api_route(
            path, endpoint, methods=["HEAD"], dependencies=dependencies, include_in_schema=False
        )
        return endpoint

    return add


async def accepted(request: Request) -> AsyncIterator[None]:
    """Accepts a request before its body is read: from here on it is answered.

    Raises:
        Refusal: The server is shutting down.
    """
    with service_of(request).accepted():
        yield


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses for the OpenAPI page."""
    return {status: {**_REFUSALS[status], "model": ErrorAnswer} for status in statuses}


def api_router(apis: Iterable[Api]) -> APIRouter:
    """A router for the endpoints of APIs.

    Where APIs share a path, the first whose endpoint matches the body answers, and the last one
    answers what none matches.
    """
    apis = tuple(apis)
    router = APIRouter()
    for path, candidates in _by_path(apis).items():
        _add_endpoint(router, path, candidates)
    for api in apis:
        for lookup in api.lookups:
            _add_lookup(router, lookup)
    return router


def model_paths(apis: Iterable[Api]) -> tuple[str, ...]:
    """Every path on which a model works."""
    return tuple(_by_path(tuple(apis)))


def describe(app: FastAPI, apis: Iterable[Api]) -> None:
    """Adds the request schemas of APIs to the app's OpenAPI page."""
    bodies = dict.fromkeys(endpoint.request for api in apis for endpoint in api.endpoints)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            _, definitions = models_json_schema(
                [(body, "validation") for body in bodies], ref_template=_TEMPLATE
            )
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            components.update(definitions["$defs"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _by_path(apis: tuple[Api, ...]) -> Mapping[str, list[Endpoint]]:
    """Endpoints of each path in order of precedence."""
    paths: dict[str, list[Endpoint]] = {}
    for api in apis:
        for endpoint in api.endpoints:
            for path in (*endpoint.paths, *endpoint.aliases):
                paths.setdefault(path, []).append(endpoint)
                prefixed = f"/{api.prefix}{path}".rstrip("/")
                paths.setdefault(prefixed, []).append(endpoint)
    return paths


def _add_endpoint(router: APIRouter, path: str, candidates: list[Endpoint]) -> None:
    refs = [{"$ref": _TEMPLATE.format(model=each.request.__name__)} for each in candidates]
    schema: dict[str, Any] = refs[0] if len(refs) == 1 else {"anyOf": refs}
    extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    response: Any = Union[tuple(each.response for each in candidates)]  # noqa: UP007
    name = path.strip("/").replace("/", "_") or "root"
    router.add_api_route(
        path,
        _dispatch(candidates),
        methods=["POST"],
        operation_id=name,
        name=name,
        description="\n\n".join(each.handler.__doc__ or "" for each in candidates),
        openapi_extra=extra,
        response_model=None,
        responses={200: {"model": response}, **refusals(*_REFUSALS)},
        include_in_schema=any(path in each.paths for each in candidates),
        dependencies=[*_KEY_SCHEMES, Depends(key_required), Depends(accepted)],
    )


def _dispatch(candidates: list[Endpoint]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> JSON:
        request.state.error_is_text = all(each.error_is_text for each in candidates)
        bodies = service_of(request).bodies
        body = await bodies.read_object(request)
        chosen = next((each for each in candidates if each.matches(body)), candidates[-1])
        request.state.error_is_text = chosen.error_is_text
        checked = await bodies.check(request, chosen.request, body)
        return JSON(await chosen.handler(request, checked))

    answer.__dict__["bodies"] = tuple(each.request for each in candidates)
    return answer


def _add_lookup(router: APIRouter, lookup: Lookup) -> None:
    async def answer(request: Request) -> JSON:
        return JSON(await lookup.handler(request))

    described = refusals(404, 503)
    if lookup.response is not None:
        described[200] = {"model": lookup.response}
    if lookup.needs_key:
        described.update(refusals(401))
    parameters = [
        {"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}
        for parameter in re.findall(r"\{(\w+)", lookup.path)
    ]
    name = re.sub(r"[^a-z0-9]+", "_", lookup.path).strip("_")
    get_route(
        router,
        lookup.path,
        needs_key=lookup.needs_key,
        operation_id=name,
        name=name,
        description=lookup.handler.__doc__,
        response_model=None,
        responses=described,
        openapi_extra={"parameters": parameters} if parameters else None,
    )(answer)
