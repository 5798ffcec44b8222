"""The application: routes, refusals, what is counted and logged of each request."""

from __future__ import annotations

import string
import time
import uuid
from importlib.metadata import version

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpurerank.errors import DeviceError, GPURerankError
from gpurerank.server import api_page, logs, operation_routes, playground
from gpurerank.server.catalog import APIS
from gpurerank.server.metrics import Metrics
from gpurerank.server.refusal import Refusal, of_error
from gpurerank.server.routing import api_router, describe
from gpurerank.server.service import Service
from gpurerank.server.site_guard import add_site_guard
from gpurerank.server.tracing import REQUEST_SPANS
from gpurerank.server.trailing_slash import TrailingSlash


def build_app(service: Service, *, numbered: bool = False) -> FastAPI:
    """The ASGI application of a service; ``app.state.service`` is that service.

    Args:
        service: What it serves.
        numbered: Whether what stands before it gives each request its id, and the answer too.
    """
    app = FastAPI(
        title="gpurerank",
        version=version("gpurerank"),
        description="Reranking and embeddings, in the shapes that clients already speak.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=REQUEST_SPANS,
    )
    app.state.service = service
    for router in (
        api_router(APIS),
        operation_routes.router,
        playground.router,
        api_page.router,
    ):
        app.include_router(router)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(GPURerankError, _failed)
    app.add_exception_handler(HTTPException, _no_such_route)
    add_site_guard(app, service.options, service.metrics)
    app.add_middleware(TrailingSlash)
    app.add_middleware(Observed, service=service, numbered=numbered)
    describe(app, APIS)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    request.app.state.service.metrics.rejected.labels(error.code).inc()
    return error.response(error_is_text=getattr(request.state, "error_is_text", False))


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, GPURerankError)
    if isinstance(error, DeviceError):
        request.app.state.service.lost = True
    logs.LOGGER.warning("failed", extra={"fields": {"error": type(error).__name__}})
    return await _refused(request, of_error(error))


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "no_such_path", 405: "wrong_method"}
    refusal = Refusal(error.status_code, str(error.detail), codes.get(error.status_code, "http"))
    response = await _refused(request, refusal)
    response.headers.update(error.headers or {})
    return response


class Observed:
    """Gives each request an id, counts it and logs it; ASGI middleware."""

    def __init__(self, app: ASGIApp, service: Service, numbered: bool) -> None:
        self._app = app
        self._metrics = service.metrics
        self._numbered = numbered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on and looks at the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope, _given_id(scope) if self._numbered else uuid.uuid4().hex)
        # Not reset: the task is the request's, and uvicorn may still log about it afterwards.
        logs.REQUEST_ID.set(seen.id)

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                if not self._numbered:
                    message["headers"].append((b"x-request-id", seen.id.encode()))
            elif not message.get("more_body", False):
                # Before it is sent, so that who has an answer finds it counted.
                seen.done(self._metrics)
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            logs.LOGGER.error("internal error", exc_info=error)
            if seen.status:
                raise
            broke = Refusal(500, "the server failed; see its log", "internal")
            await broke.response()(scope, receive, observed)
        finally:
            seen.done(self._metrics)


def _given_id(scope: Scope) -> str:
    """The id that a request came with; a client may have chosen it, so no text passes."""
    given = dict(scope["headers"]).get(b"x-request-id", b"")[:64]
    return "".join(c for c in given.decode("latin-1") if c in string.hexdigits + "-")


class _Seen:
    """What is known of a request so far."""

    def __init__(self, scope: Scope, request_id: str) -> None:
        self.id = request_id
        self.status = 0
        self._scope = scope
        self._started = time.perf_counter()
        self._told = False

    def done(self, metrics: Metrics) -> None:
        """Counts and logs the request, once."""
        if self._told:
            return
        self._told = True
        spent_s = time.perf_counter() - self._started
        # A path that is no route's would make a label of what a client sent.
        path = getattr(self._scope.get("route"), "path", "other")
        metrics.requests.labels(path, str(self.status)).inc()
        metrics.request_seconds.labels(path).observe(spent_s)
        logs.request_done(
            {
                "id": self.id,
                "method": self._scope["method"],
                "path": path,
                "status": self.status,
                "ms": round(spent_s * 1000, 2),
            }
        )
