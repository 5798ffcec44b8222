"""OpenAI's embeddings and list of models."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server.embedding_shape import (
    Dimensions,
    EmbeddingInput,
    EmbeddingResponse,
    embed_texts,
)
from gpurerank.server.endpoint import Api, Endpoint, Lookup
from gpurerank.server.fields import Schema, Text, as_list, is_query, refuse_instruction
from gpurerank.server.refusal import Refusal
from gpurerank.server.routing import service_of

_STARTED = int(time.time())


class OpenAIEmbeddingRequest(Schema):
    """OpenAI's embeddings."""

    input: EmbeddingInput
    model: Text | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Dimensions | None = None
    user: Text | None = None
    input_type: Text | None = Field(default=None, description="'query' or 'passage'.")
    instruction: Text | None = None
    prompt: Text | None = None


class OpenAIModel(TypedDict):
    """A model that is served; beside OpenAI's fields those of NVIDIA and Xinference."""

    id: str
    object: str
    created: int
    owned_by: str
    root: str
    model_name: str
    model_type: str


class OpenAIModels(TypedDict):
    """Every model that is served."""

    object: str
    data: list[OpenAIModel]


async def embed(request: Request, body: OpenAIEmbeddingRequest) -> dict[str, Any]:
    """OpenAI's embeddings, as numbers or as base64 of little-endian float32."""
    refuse_instruction(body.instruction)
    refuse_instruction(body.prompt, "prompt")
    return await embed_texts(
        request,
        as_list(body.input),
        model=body.model,
        query=is_query(body.input_type),
        dimensions=body.dimensions,
        encoding=body.encoding_format,
    )


async def models(request: Request) -> OpenAIModels:
    """The served models by name."""
    names = service_of(request).models.names()
    return {"object": "list", "data": [_entry(request, name) for name in names]}


async def model(request: Request) -> OpenAIModel:
    """One served model."""
    name: str = request.path_params["model"]
    if name not in service_of(request).models.names():
        raise Refusal(404, f"there is no model {name[:100]!r}", "no_model")
    return _entry(request, name)


def _entry(request: Request, name: str) -> OpenAIModel:
    is_reranker = name in service_of(request).models.rerankers
    return {
        "id": name,
        "object": "model",
        "created": _STARTED,
        "owned_by": "gpurerank",
        "root": name,
        "model_name": name,
        "model_type": "rerank" if is_reranker else "embedding",
    }


API = Api(
    name="OpenAI",
    prefix="openai",
    endpoints=(
        Endpoint(
            paths=("/v1/embeddings", "/embeddings"),
            request=OpenAIEmbeddingRequest,
            response=EmbeddingResponse,
            handler=embed,
        ),
    ),
    lookups=(
        Lookup(path="/v1/models", handler=models, response=OpenAIModels),
        Lookup(path="/v1/models/{model:path}", handler=model, response=OpenAIModel),
    ),
)
