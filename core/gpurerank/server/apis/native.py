"""gpurerank's own rank: logits, spans, previous places and the time of each stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Endpoint
from gpurerank.server.fields import Query, Schema, Text, Texts
from gpurerank.server.responses import Usage, usage_of
from gpurerank.server.routing import service_of


class RankRequest(Schema):
    """gpurerank's own rank."""

    query: Query
    passages: Texts
    model: Text | None = None
    method: Literal["cross-encoder", "bi-encoder", "cascade"] = "cross-encoder"
    candidates: Annotated[int, Field(ge=1)] = Field(
        default=50, description="Passages that a cascade's second stage reads."
    )
    top_k: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Maximum results returned."
    )
    threshold: float | None = Field(default=None, allow_inf_nan=False)


class RankResult(TypedDict):
    """One passage of a ranking, with where its place came from."""

    index: int
    score: float
    logit: float
    rank: int
    previous_rank: int
    previous_score: float | None
    span: list[int] | None
    truncated: bool
    model: str


class RankResponse(TypedDict):
    """A ranking, best first, with the time of each stage."""

    results: list[RankResult]
    stages_ms: dict[str, float]
    usage: Usage


async def rank(request: Request, body: RankRequest) -> dict[str, Any]:
    """Logits, spans, previous places, and the time of each stage, as only gpurerank has them."""
    service = service_of(request)
    ranking = await operations.rank(
        service,
        request,
        body.query,
        body.passages,
        model=body.model,
        top_k=body.top_k,
        threshold=body.threshold,
        ranker=service.models.ranker(body.method, body.model, body.candidates),
        field="passages",
    )
    return {
        "results": [passage.provenance() for passage in ranking.passages],
        "stages_ms": ranking.stages_ms,
        "usage": usage_of(ranking.tokens),
    }


API = Api(
    name="gpurerank",
    prefix="gpurerank",
    endpoints=(
        Endpoint(paths=("/v1/rank",), request=RankRequest, response=RankResponse, handler=rank),
    ),
)
