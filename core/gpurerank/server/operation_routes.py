"""What an operator and a client ask of the server itself; none of it waits for a model."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response

from gpurerank.server.answers import JSON, ModelList
from gpurerank.server.liveness import check_alive, check_devices
from gpurerank.server.refusal import Refusal
from gpurerank.server.routing import key_required, refusals, service_of

router = APIRouter()
guarded = APIRouter(dependencies=[Depends(key_required)], responses=refusals(401))
_STARTED = int(time.time())


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


@guarded.get("/v1/models", operation_id="models", responses={200: {"model": ModelList}})
async def models(request: Request) -> JSON:
    """The models by name."""
    served = service_of(request).models
    entries = [
        {"id": name, "object": "model", "created": _STARTED, "owned_by": "gpurerank"}
        for name in served.names()
    ]
    return JSON({"object": "list", "data": entries})


@guarded.get("/info", operation_id="info", response_model=None)
async def info(request: Request) -> JSON:
    """What is served and within which limits, as text-embeddings-inference tells it."""
    service = service_of(request)
    served, limits = service.models, service.limits
    kind = "reranker" if served.rerankers else "embedding"
    told: dict[str, Any] = {
        "server": "gpurerank",
        "model_id": next(served.names()),
        "model_type": {kind: {}},
        "version": version("gpurerank"),
        "rerankers": list(served.rerankers),
        "embedders": {name: encoder.dim for name, encoder in served.embedders.items()},
        "max_client_batch_size": limits.passages,
        "max_input_length": service.options.max_length,
        "auto_truncate": False,
        "limits": {name: getattr(limits, name) for name in limits.__slots__},
    }
    return JSON(told)
