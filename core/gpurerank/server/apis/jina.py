"""Jina's rerank and embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request

from gpurerank.server.embedding_shape import (
    Dimensions,
    EmbeddingInput,
    EmbeddingResponse,
    embed_texts,
)
from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.fields import Cut, Schema, Text, is_query
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    rank_documents,
    rerank_response,
)
from gpurerank.server.vector_output import VectorType


class JinaRerankRequest(DocumentsRequest):
    """Jina's rerank."""

    max_doc_length: int | None = Field(
        default=None, ge=1, description="Ignored: a long document is scored by its best window."
    )
    max_query_length: int | None = Field(default=None, ge=1, description="Ignored.")


async def rerank(request: Request, body: JinaRerankRequest) -> RerankResponse:
    """Jina's rerank."""
    ranking = await rank_documents(request, body, body.top_n or None)
    return rerank_response(ranking, with_documents=body.return_documents is not False)


class JinaText(Schema):
    """A text as an object."""

    text: Text


class JinaEmbeddingRequest(Schema):
    """Jina's embeddings of text."""

    input: EmbeddingInput | Annotated[list[Text | JinaText], Field(fail_fast=True)]
    model: Text | None = None
    task: Text | None = Field(default=None, description="'retrieval.query' for queries.")
    dimensions: Dimensions | None = None
    embedding_type: Literal["float", "base64", "binary", "ubinary"] | None = None
    normalized: bool | None = None
    truncate: Cut | None = None
    late_chunking: Literal[False] | None = None


async def embed(request: Request, body: JinaEmbeddingRequest) -> dict[str, Any]:
    """Jina's embeddings, in the requested type and length."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    kind: VectorType = "float"
    if body.embedding_type in ("binary", "ubinary"):
        kind = body.embedding_type
    return await embed_texts(
        request,
        [text if isinstance(text, str) else text.text for text in texts],
        model=body.model,
        query=is_query(body.task),
        dimensions=body.dimensions,
        kind=kind,
        encoding=body.embedding_type,
        normalized=body.normalized is True,
    )


API = Api(
    name="Jina",
    prefix="jina",
    endpoints=(
        Endpoint(
            paths=("/v1/rerank",),
            request=JinaRerankRequest,
            response=RerankResponse,
            handler=rerank,
            matches=has_field("max_doc_length", "max_query_length"),
        ),
        Endpoint(
            paths=("/v1/embeddings", "/embeddings"),
            request=JinaEmbeddingRequest,
            response=EmbeddingResponse,
            handler=embed,
            matches=has_field("task", "embedding_type", "normalized", "late_chunking"),
        ),
    ),
)
