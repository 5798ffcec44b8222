"""The embedding response of OpenAI, which Voyage and Jina share, and its token check."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.fields import Text, TextList
from gpurerank.server.responses import Usage, usage_of
from gpurerank.server.routing import service_of
from gpurerank.server.vector_output import (
    VectorType,
    check_dimensions,
    encode,
    normalize,
    quantize,
    shorten,
)


def _no_tokens(value: Any) -> Any:
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, int | list) and not isinstance(first, bool):
        raise ValueError(
            "tokens of another model's vocabulary cannot be embedded; send text (in LangChain:"
            " OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    return value


EmbeddingInput = Annotated[Text | TextList, BeforeValidator(_no_tokens)]
Dimensions = Annotated[int, Field(ge=1)]


class EmbeddingData(TypedDict):
    """One vector: numbers, or base64."""

    object: str
    index: int
    embedding: list[float] | list[int] | str


class EmbeddingResponse(TypedDict):
    """One vector for each text, in input order."""

    object: str
    data: list[EmbeddingData]
    model: str
    usage: Usage


async def embed_texts(
    request: Request,
    texts: list[str],
    *,
    model: str | None,
    query: bool,
    dimensions: int | None = None,
    dimensions_field: str = "dimensions",
    kind: VectorType = "float",
    encoding: str | None = None,
    normalized: bool = False,
) -> dict[str, Any]:
    """Embeds texts and answers in OpenAI's shape.

    Raises:
        Refusal: The model's vectors cannot have that length, or the request cannot be served.
        GPURerankError: The model failed.
    """
    service = service_of(request)
    check_dimensions(service.models.embedder(model), dimensions, dimensions_field)
    embeddings = await operations.embed(service, request, texts, model=model, query=query)
    vectors = shorten(embeddings.vectors, dimensions)
    if normalized:
        vectors = normalize(vectors)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(encode(quantize(vectors, kind), encoding))
        ],
        "model": embeddings.model,
        "usage": usage_of(embeddings.tokens),
    }
