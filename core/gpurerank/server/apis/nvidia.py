"""Ranking of NVIDIA NIM."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Endpoint
from gpurerank.server.fields import NOT_EMPTY, Query, Schema, Text
from gpurerank.server.rerank_shape import value_of
from gpurerank.server.responses import Usage, usage_of
from gpurerank.server.routing import service_of


class NvidiaQuery(Schema):
    """A query as an object."""

    text: Query


class NvidiaPassage(Schema):
    """A passage as an object."""

    text: Text


class NvidiaRankingRequest(Schema):
    """Ranking of NVIDIA NIM."""

    model: Text | None = None
    query: NvidiaQuery
    passages: Annotated[list[NvidiaPassage], Field(fail_fast=True, json_schema_extra=NOT_EMPTY)]
    truncate: Text | None = Field(
        default=None, description="Accepted and ignored: nothing is truncated."
    )


class NvidiaRank(TypedDict):
    """One passage of a ranking."""

    index: int
    logit: float


class NvidiaRankingResponse(TypedDict):
    """A ranking, best first."""

    rankings: list[NvidiaRank]
    usage: Usage


async def rank(request: Request, body: NvidiaRankingRequest) -> NvidiaRankingResponse:
    """Ranking of NVIDIA NIM: logits, best first."""
    ranking = await operations.rank(
        service_of(request),
        request,
        body.query.text,
        [passage.text for passage in body.passages],
        model=body.model,
        field="passages",
    )
    return {
        "rankings": [
            {"index": passage.index, "logit": value_of(passage, logits=True)}
            for passage in ranking.passages
        ],
        "usage": usage_of(ranking.tokens),
    }


API = Api(
    name="NVIDIA NIM",
    prefix="nvidia",
    endpoints=(
        Endpoint(
            paths=("/v1/ranking",),
            # A base URL without /v1, and that of the hosted models.
            aliases=("/ranking", "/v1/retrieval/{model:path}/reranking"),
            request=NvidiaRankingRequest,
            response=NvidiaRankingResponse,
            handler=rank,
        ),
    ),
)
