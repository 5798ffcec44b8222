"""Ollama's embed, and what its clients look up."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.embedding_shape import Dimensions
from gpurerank.server.endpoint import Api, Endpoint, Lookup
from gpurerank.server.fields import Cut, Schema, Text, TextList, as_list
from gpurerank.server.routing import service_of
from gpurerank.server.vector_output import check_dimensions, normalize, shorten

_STARTED = datetime.now(timezone.utc).isoformat()


class OllamaEmbedRequest(Schema):
    """Ollama's embed."""

    model: Text | None = None
    input: Text | TextList
    truncate: Cut | None = None
    dimensions: Dimensions | None = None
    options: dict[str, Any] | None = Field(default=None, description="Ignored.")


class OllamaEmbedResponse(TypedDict):
    """One vector of length 1 for each text, in input order; times in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbeddingsRequest(Schema):
    """Ollama's older embeddings: one text."""

    model: Text | None = None
    prompt: Text
    options: dict[str, Any] | None = Field(default=None, description="Ignored.")


class OllamaEmbeddingsResponse(TypedDict):
    """The vector of one text."""

    embedding: list[float]


async def embed(request: Request, body: OllamaEmbedRequest) -> dict[str, Any]:
    """Ollama's embed; vectors have length 1."""
    started = time.perf_counter_ns()
    service = service_of(request)
    model = _untagged(request, body.model)
    check_dimensions(service.models.embedder(model), body.dimensions, "dimensions")
    embeddings = await operations.embed(service, request, as_list(body.input), model=model)
    return {
        "model": body.model or embeddings.model,
        "embeddings": list(normalize(shorten(embeddings.vectors, body.dimensions))),
        "total_duration": time.perf_counter_ns() - started,
        "load_duration": 0,
        "prompt_eval_count": embeddings.tokens,
    }


async def embeddings(request: Request, body: OllamaEmbeddingsRequest) -> dict[str, Any]:
    """Ollama's older embeddings: one text."""
    model = _untagged(request, body.model)
    result = await operations.embed(
        service_of(request), request, [body.prompt], model=model, field="prompt"
    )
    return {"embedding": result.vectors[0]}


async def api_version(_: Request) -> dict[str, str]:
    """The version of the server."""
    return {"version": version("gpurerank")}


async def tags(request: Request) -> dict[str, Any]:
    """The served models."""
    return {
        "models": [
            {
                "name": name,
                "model": name,
                "modified_at": _STARTED,
                "size": 0,
                "digest": "",
                "details": {"format": "safetensors", "family": "gpurerank"},
            }
            for name in service_of(request).models.names()
        ]
    }


def _untagged(request: Request, name: str | None) -> str | None:
    """The name without the tag that Ollama's clients may add, such as ``:latest``."""
    if name is None or name in service_of(request).models.embedders:
        return name
    return name.removesuffix(":latest")


API = Api(
    name="Ollama",
    prefix="ollama",
    endpoints=(
        Endpoint(
            paths=("/api/embed",),
            request=OllamaEmbedRequest,
            response=OllamaEmbedResponse,
            handler=embed,
            error_is_text=True,
        ),
        Endpoint(
            paths=("/api/embeddings",),
            request=OllamaEmbeddingsRequest,
            response=OllamaEmbeddingsResponse,
            handler=embeddings,
            error_is_text=True,
        ),
    ),
    lookups=(
        Lookup(path="/api/version", handler=api_version, needs_key=False),
        Lookup(path="/api/tags", handler=tags),
    ),
)
