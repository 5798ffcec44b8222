"""OpenAI's embeddings and list of models."""

from __future__ import annotations

import base64
import time
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Endpoint, Lookup
from gpurerank.server.fields import Schema, Text, TextList, as_list, is_query
from gpurerank.server.refusal import Refusal
from gpurerank.server.responses import Usage, usage_of
from gpurerank.server.routing import service_of

_STARTED = int(time.time())


class OpenAIEmbeddingRequest(Schema):
    """OpenAI's embeddings."""

    input: Text | TextList
    model: Text | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: Text | None = None
    input_type: Text | None = Field(default=None, description="'query' or 'passage'.")


class OpenAIEmbedding(TypedDict):
    """One vector: numbers, or base64 of little-endian float32."""

    object: str
    index: int
    embedding: list[float] | str


class OpenAIEmbeddingResponse(TypedDict):
    """One vector for each text, in input order."""

    object: str
    data: list[OpenAIEmbedding]
    model: str
    usage: Usage


class OpenAIModel(TypedDict):
    """A model that is served."""

    id: str
    object: str
    created: int
    owned_by: str


class OpenAIModels(TypedDict):
    """Every model that is served."""

    object: str
    data: list[OpenAIModel]


async def embed(request: Request, body: OpenAIEmbeddingRequest) -> dict[str, Any]:
    """OpenAI's embeddings, as numbers or as base64 of little-endian float32."""
    service = service_of(request)
    dim = service.models.embedder(body.model).dim
    if body.dimensions is not None and body.dimensions != dim:
        raise Refusal(422, f"dimensions: this model has {dim} and cannot be shortened", "invalid")
    embeddings = await operations.embed(
        service,
        request,
        as_list(body.input),
        model=body.model,
        query=is_query(body.input_type),
    )
    shown: list[Any] = list(embeddings.vectors)
    if body.encoding_format == "base64":
        shown = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in shown]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(shown)
        ],
        "model": embeddings.model,
        "usage": usage_of(embeddings.tokens),
    }


async def models(request: Request) -> OpenAIModels:
    """The served models by name."""
    entries: list[OpenAIModel] = [
        {"id": name, "object": "model", "created": _STARTED, "owned_by": "gpurerank"}
        for name in service_of(request).models.names()
    ]
    return {"object": "list", "data": entries}


API = Api(
    name="OpenAI",
    prefix="openai",
    endpoints=(
        Endpoint(
            paths=("/v1/embeddings", "/embeddings"),
            request=OpenAIEmbeddingRequest,
            response=OpenAIEmbeddingResponse,
            handler=embed,
        ),
    ),
    lookups=(Lookup(path="/v1/models", handler=models, response=OpenAIModels),),
)
