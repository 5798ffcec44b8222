"""Voyage's rerank and embeddings."""

from __future__ import annotations

from typing import Any, Literal

from starlette.requests import Request

from gpurerank.server.embedding_shape import (
    Dimensions,
    EmbeddingInput,
    EmbeddingResponse,
    embed_texts,
)
from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.fields import Cut, PositiveTopN, Schema, Text, as_list, is_query
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    rank_documents,
    rerank_response,
)
from gpurerank.server.vector_output import VectorType


class VoyageRerankRequest(DocumentsRequest):
    """Voyage's rerank."""

    top_k: PositiveTopN | None = None
    truncation: Cut | None = None


async def rerank(request: Request, body: VoyageRerankRequest) -> RerankResponse:
    """Voyage's rerank: the ranking is in ``data``."""
    limits = [limit for limit in (body.top_k, body.top_n or None) if limit is not None]
    ranking = await rank_documents(request, body, min(limits, default=None))
    shown = bool(body.return_documents)
    return rerank_response(ranking, with_documents=shown, with_data_documents=shown)


class VoyageEmbeddingRequest(Schema):
    """Voyage's embeddings."""

    input: EmbeddingInput
    model: Text | None = None
    input_type: Text | None = None
    truncation: Cut | None = None
    output_dimension: Dimensions | None = None
    output_dtype: VectorType | None = None
    encoding_format: Literal["base64"] | None = None


async def embed(request: Request, body: VoyageEmbeddingRequest) -> dict[str, Any]:
    """Voyage's embeddings, in the requested type and length."""
    return await embed_texts(
        request,
        as_list(body.input),
        model=body.model,
        query=is_query(body.input_type),
        dimensions=body.output_dimension,
        dimensions_field="output_dimension",
        kind=body.output_dtype or "float",
        encoding=body.encoding_format,
    )


API = Api(
    name="Voyage",
    prefix="voyage",
    endpoints=(
        Endpoint(
            paths=("/v1/rerank", "/rerank"),
            request=VoyageRerankRequest,
            response=RerankResponse,
            handler=rerank,
            matches=has_field("top_k", "truncation"),
        ),
        Endpoint(
            paths=("/v1/embeddings", "/embeddings"),
            request=VoyageEmbeddingRequest,
            response=EmbeddingResponse,
            handler=embed,
            matches=has_field("output_dtype", "output_dimension", "truncation"),
        ),
    ),
)
