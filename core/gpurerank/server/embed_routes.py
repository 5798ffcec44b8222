"""Embeddings, in the shapes of OpenAI, text-embeddings-inference and Cohere."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import numpy as np
from fastapi import Request

from gpurerank.bi_encoder import BiEncoder
from gpurerank.server.answers import (
    JSON,
    CohereEmbedAnswer,
    CohereFloatsAnswer,
    EmbeddingAnswer,
    usage,
)
from gpurerank.server.refusal import Refusal
from gpurerank.server.routing import inference_router, route, service_of
from gpurerank.server.schemas import (
    CohereEmbedRequest,
    EmbedRequest,
    OpenAIEmbeddingRequest,
    is_query,
)
from gpurerank.server.service import Service
from gpurerank.types import FloatArray

router = inference_router()


@route(router, ("/v1/embeddings", "/embeddings"), EmbeddingAnswer, OpenAIEmbeddingRequest)
async def embeddings(request: Request) -> JSON:
    """OpenAI's embeddings, as numbers or as base64 of little-endian float32."""
    service = service_of(request)
    asked = await service.bodies.read(request, OpenAIEmbeddingRequest)
    encoder = service.models.embedder(asked.model)
    if asked.dimensions is not None and asked.dimensions != encoder.dim:
        raise Refusal(
            422, f"dimensions: this model has {encoder.dim} and cannot be shortened", "invalid"
        )
    vectors, tokens = await _embed(
        service, request, encoder, asked.texts, "input", query=is_query(asked.input_type)
    )
    shown: list[Any] = list(vectors)
    if asked.encoding_format == "base64":
        shown = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    return JSON(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(shown)
            ],
            "model": service.models.served_name(asked.model, embedder=True),
            "usage": usage(tokens),
        }
    )


@route(router, ("/embed",), list[list[float]], EmbedRequest)
async def embed(request: Request) -> JSON:
    """text-embeddings-inference's embed; vectors have length 1 unless ``normalize`` is false."""
    service = service_of(request)
    request.state.as_text_embeddings_inference = True
    asked = await service.bodies.read(request, EmbedRequest)
    encoder = service.models.embedder(None)
    vectors, _ = await _embed(
        service, request, encoder, asked.texts, "inputs", query=is_query(asked.prompt_name)
    )
    if asked.normalize is not False:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(norms, 1e-12)
    return JSON(list(vectors))


@route(router, ("/v2/embed",), CohereEmbedAnswer, CohereEmbedRequest)
async def embed_cohere(request: Request) -> JSON:
    """Cohere's embed, version 2; as float numbers."""
    service = service_of(request)
    asked = await service.bodies.read(request, CohereEmbedRequest)
    return await _cohere(service, request, asked, "2", by_type=True)


@route(router, ("/v1/embed",), CohereEmbedAnswer | CohereFloatsAnswer, CohereEmbedRequest)
async def embed_cohere_v1(request: Request) -> JSON:
    """Cohere's embed, version 1: a plain list of vectors, unless types are asked for."""
    service = service_of(request)
    asked = await service.bodies.read(request, CohereEmbedRequest)
    return await _cohere(service, request, asked, "1", by_type=bool(asked.embedding_types))


async def _cohere(
    service: Service, request: Request, asked: CohereEmbedRequest, version: str, *, by_type: bool
) -> JSON:
    encoder = service.models.embedder(asked.model)
    vectors, tokens = await _embed(
        service, request, encoder, asked.texts, "texts", query=is_query(asked.input_type)
    )
    return JSON(
        {
            "id": str(uuid.uuid4()),
            "embeddings": {"float": list(vectors)} if by_type else list(vectors),
            "texts": asked.texts,
            "meta": {
                "api_version": {"version": version},
                "billed_units": {"input_tokens": tokens},
            },
            "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
        }
    )


async def _embed(
    service: Service,
    request: Request,
    encoder: BiEncoder,
    texts: list[str],
    field: str,
    *,
    query: bool,
) -> tuple[FloatArray, int]:
    service.check_texts(texts, field)
    work = encoder.aembed_queries if query else encoder.aembed_passages
    vectors, call = await service.run(request, "", texts, lambda: work(texts))
    return vectors, call.counted.get("tokens", 0)
