"""text-embeddings-inference: rerank, embed and info."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import Field
from starlette.requests import Request
from typing_extensions import NotRequired, TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Endpoint, Lookup, has_field
from gpurerank.server.fields import Cut, Query, Schema, Text, TextList, Texts, as_list, is_query
from gpurerank.server.routing import service_of


class TeiRerankRequest(Schema):
    """text-embeddings-inference's rerank."""

    query: Query
    texts: Texts
    raw_scores: bool | None = Field(default=None, description="Logits in place of scores.")
    return_text: bool | None = None
    truncate: Cut | None = None
    truncation_direction: Text | None = None


class TeiEmbedRequest(Schema):
    """text-embeddings-inference's embed."""

    inputs: Text | TextList
    normalize: bool | None = None
    truncate: Cut | None = None
    truncation_direction: Text | None = None
    prompt_name: Text | None = Field(default=None, description="'query' or 'passage'.")


class TeiRank(TypedDict):
    """One text of a ranking."""

    index: int
    score: float
    text: NotRequired[str]


async def rerank(request: Request, body: TeiRerankRequest) -> list[TeiRank]:
    """text-embeddings-inference's rerank: a list, best first."""
    ranking = await operations.rank(
        service_of(request), request, body.query, body.texts, field="texts"
    )
    ranks: list[TeiRank] = []
    for passage in ranking.passages:
        value = passage.logit if body.raw_scores else passage.score
        rank = TeiRank(index=passage.index, score=value or 0.0)
        if body.return_text:
            rank["text"] = passage.passage
        ranks.append(rank)
    return ranks


async def embed(request: Request, body: TeiEmbedRequest) -> list[Any]:
    """text-embeddings-inference's embed; vectors have length 1 unless ``normalize`` is false."""
    embeddings = await operations.embed(
        service_of(request),
        request,
        as_list(body.inputs),
        query=is_query(body.prompt_name),
        field="inputs",
    )
    vectors = embeddings.vectors
    if body.normalize is not False:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(norms, 1e-12)
    return list(vectors)


async def info(request: Request) -> dict[str, Any]:
    """What is served and within which limits."""
    service = service_of(request)
    served, limits = service.models, service.limits
    kind = "reranker" if served.rerankers else "embedding"
    return {
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


API = Api(
    name="text-embeddings-inference",
    prefix="tei",
    endpoints=(
        Endpoint(
            paths=("/rerank",),
            aliases=("/v1/rerank", "/reranking", "/v1/reranking"),
            request=TeiRerankRequest,
            response=list[TeiRank],
            handler=rerank,
            matches=has_field("texts"),
            error_is_text=True,
        ),
        Endpoint(
            paths=("/embed",),
            request=TeiEmbedRequest,
            response=list[list[float]],
            handler=embed,
            error_is_text=True,
        ),
    ),
    lookups=(Lookup(path="/info", handler=info),),
)
