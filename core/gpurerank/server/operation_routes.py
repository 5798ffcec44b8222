"""What an operator and a client ask of the server itself; none of it waits for a model."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response

from gpurerank.server.liveness import check_alive, check_devices
from gpurerank.server.refusal import Refusal
from gpurerank.server.responses import JSON
from gpurerank.server.routing import refusals, service_of

router = APIRouter()


@router.get("/livez", operation_id="livez", response_model=None, responses=refusals(503))
async def live(request: Request) -> JSON:
    """Alive: every busy device has ended a batch lately."""
    ages = check_alive(service_of(request))
    return JSON({"status": "ok", "heartbeat_age_s": ages})


@router.get("/readyz", operation_id="readyz", response_model=None, responses=refusals(503))
@router.get("/health", operation_id="health", response_model=None, responses=refusals(503))
async def ready(request: Request) -> JSON:
    """Ready: takes work."""
    check_devices(service_of(request))
    if service_of(request).draining:
        raise Refusal(503, "the server is shutting down", "draining")
    return JSON({"status": "ok"})


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    text = generate_latest(service_of(request).metrics)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
