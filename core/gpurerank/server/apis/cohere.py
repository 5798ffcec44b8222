"""Cohere's rerank and embed, versions 1 and 2."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from starlette.requests import Request
from typing_extensions import NotRequired, TypedDict

from gpurerank.server import operations
from gpurerank.server.embedding_shape import Dimensions
from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.fields import Content, PositiveTopN, Schema, Text, Texts, is_query
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
from gpurerank.server.vector_output import check_dimensions, encode, quantize, shorten
from gpurerank.types import FloatArray


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


CohereType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class CohereEmbedRequest(Schema):
    """Cohere's embed; ``texts``, or ``inputs`` of text parts."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["texts"]}, {"required": ["inputs"]}]}
    )

    texts: Texts | None = None
    inputs: Annotated[list[Content], Field(fail_fast=True)] | None = None
    model: Text | None = None
    input_type: Text | None = None
    embedding_types: Annotated[list[CohereType], Field(fail_fast=True)] | None = None
    output_dimension: Dimensions | None = None
    truncate: Text | None = None

    @model_validator(mode="after")
    def _has_texts(self) -> CohereEmbedRequest:
        if self.texts is None and self.inputs is None:
            raise ValueError("give texts, or inputs of text parts")
        return self

    def passages(self) -> list[str]:
        """The texts, from either field."""
        if self.texts is not None:
            return self.texts
        return [content.joined() for content in self.inputs or []]


class CohereEmbeddings(TypedDict):
    """Vectors by type."""

    float: NotRequired[list[list[float]]]
    int8: NotRequired[list[list[int]]]
    uint8: NotRequired[list[list[int]]]
    binary: NotRequired[list[list[int]]]
    ubinary: NotRequired[list[list[int]]]
    base64: NotRequired[list[str]]


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
    service = service_of(request)
    check_dimensions(service.models.embedder(body.model), body.output_dimension, "output_dimension")
    texts = body.passages()
    embeddings = await operations.embed(
        service,
        request,
        texts,
        model=body.model,
        query=is_query(body.input_type),
        field="texts",
    )
    vectors = shorten(embeddings.vectors, body.output_dimension)
    types = body.embedding_types or ["float"]
    return {
        "id": str(uuid.uuid4()),
        "embeddings": {kind: _as_type(vectors, kind) for kind in types}
        if by_type
        else list(vectors),
        "texts": texts,
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"input_tokens": embeddings.tokens},
        },
        "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
    }


def _as_type(vectors: FloatArray, kind: CohereType) -> list[Any]:
    if kind == "base64":
        return encode(vectors, "base64")
    return encode(quantize(vectors, kind), None)


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
