"""What an operator and a client ask of the server itself; none of it waits for a model."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response

from gpurerank.server.liveness import check_alive, check_devices
from gpurerank.server.refusal import Refusal
from gpurerank.server.responses import JSON
from gpurerank.server.routing import get_route, has_key, refusals, service_of

router = APIRouter()
_PROBE: dict[str, Any] = {"response_model": None, "responses": refusals(503)}


@get_route(router, "/livez", operation_id="livez", **_PROBE)
async def live(request: Request) -> JSON:
    """Alive: every busy device has ended a batch lately; names models only with the key."""
    ages = check_alive(service_of(request))
    return JSON({"status": "ok", **({"heartbeat_age_s": ages} if has_key(request) else {})})


@get_route(router, "/readyz", operation_id="readyz", **_PROBE)
@get_route(router, "/health", operation_id="health", **_PROBE)
async def ready(request: Request) -> JSON:
    """Ready: takes work."""
    check_devices(service_of(request))
    if service_of(request).draining:
        raise Refusal(503, "the server is shutting down", "draining")
    return JSON({"status": "ok"})


@get_route(
    router,
    "/metrics",
    operation_id="metrics",
    response_class=PlainTextResponse,
    needs_key=True,
    responses=refusals(401),
)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus. Needs the key: its labels name models and show their load."""
    text = generate_latest(service_of(request).metrics)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
