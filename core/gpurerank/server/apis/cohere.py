"""Cohere's rerank and embed, versions 1 and 2."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.fields import PositiveTopN, Schema, Text, Texts, is_query
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    RerankResult,
    rank_documents,
    rerank_meta,
    rerank_response,
    rerank_results,
)
from gpurerank.server.routing import service_of


class CohereRerankRequest(DocumentsRequest):
    """Cohere's rerank, version 2."""

    top_n: PositiveTopN | None = None
    max_tokens_per_doc: int | None = Field(
        default=None, ge=1, description="Ignored: a long document is scored by its best window."
    )


class CohereV1RerankRequest(CohereRerankRequest):
    """Cohere's rerank, version 1."""

    max_chunks_per_doc: int | None = Field(
        default=None, ge=1, description="Ignored: a long document is scored by its best window."
    )


class CohereRerankResponse(TypedDict):
    """A ranking, best first."""

    id: str
    results: list[RerankResult]
    meta: dict[str, Any]


class CohereEmbedRequest(Schema):
    """Cohere's embed."""

    texts: Texts
    model: Text | None = None
    input_type: Text | None = None
    embedding_types: Annotated[list[Literal["float"]], Field(fail_fast=True)] | None = None
    truncate: Text | None = None


class CohereEmbeddings(TypedDict):
    """Vectors by type."""

    float: list[list[float]]


class CohereEmbedResponse(TypedDict):
    """Embeddings by type, in input order."""

    id: str
    embeddings: CohereEmbeddings
    texts: list[str]
    meta: dict[str, Any]
    response_type: str


class CohereFloatsResponse(TypedDict):
    """Embeddings of version 1 without types, in input order."""

    id: str
    embeddings: list[list[float]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: str


async def rerank(request: Request, body: CohereRerankRequest) -> CohereRerankResponse:
    """Cohere's rerank, version 2."""
    ranking = await rank_documents(request, body, body.top_n)
    return {
        "id": str(uuid.uuid4()),
        "results": rerank_results(ranking, with_documents=bool(body.return_documents)),
        "meta": rerank_meta("2", ranking.tokens),
    }


async def rerank_v1(request: Request, body: CohereV1RerankRequest) -> RerankResponse:
    """Cohere's rerank, version 1."""
    ranking = await rank_documents(request, body, body.top_n)
    return rerank_response(ranking, with_documents=body.return_documents is not False)


async def embed(request: Request, body: CohereEmbedRequest) -> dict[str, Any]:
    """Cohere's embed, version 2."""
    return await _embed(request, body, "2", by_type=True)


async def embed_v1(request: Request, body: CohereEmbedRequest) -> dict[str, Any]:
    """Cohere's embed, version 1: a plain list of vectors unless ``embedding_types`` is given."""
    return await _embed(request, body, "1", by_type=bool(body.embedding_types))


async def _embed(
    request: Request, body: CohereEmbedRequest, version: str, *, by_type: bool
) -> dict[str, Any]:
    embeddings = await operations.embed(
        service_of(request),
        request,
        body.texts,
        model=body.model,
        query=is_query(body.input_type),
        field="texts",
    )
    vectors = list(embeddings.vectors)
    return {
        "id": str(uuid.uuid4()),
        "embeddings": {"float": vectors} if by_type else vectors,
        "texts": body.texts,
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"input_tokens": embeddings.tokens},
        },
        "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
    }


API = Api(
    name="Cohere",
    prefix="cohere",
    endpoints=(
        # The clients add the version to a base URL that may end in one already.
        Endpoint(
            paths=("/v2/rerank",),
            aliases=("/v1/v2/rerank", "/v2/v2/rerank"),
            request=CohereRerankRequest,
            response=CohereRerankResponse,
            handler=rerank,
        ),
        Endpoint(
            paths=("/v1/rerank", "/rerank"),
            aliases=("/v1/v1/rerank", "/v2/v1/rerank"),
            request=CohereV1RerankRequest,
            response=RerankResponse,
            handler=rerank_v1,
            matches=has_field("max_chunks_per_doc", "rank_fields"),
        ),
        Endpoint(
            paths=("/v2/embed",),
            aliases=("/v1/v2/embed", "/v2/v2/embed"),
            request=CohereEmbedRequest,
            response=CohereEmbedResponse,
            handler=embed,
        ),
        Endpoint(
            paths=("/v1/embed",),
            aliases=("/v1/v1/embed", "/v2/v1/embed"),
            request=CohereEmbedRequest,
            response=CohereEmbedResponse | CohereFloatsResponse,
            handler=embed_v1,
        ),
    ),
)
