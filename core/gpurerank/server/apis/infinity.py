"""Infinity's rerank, whose documents come back as strings."""

from __future__ import annotations

import time
import uuid
from typing import Any

from pydantic import Field
from starlette.requests import Request
from typing_extensions import NotRequired, TypedDict

from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.rerank_shape import DocumentsRequest, rank_documents, rerank_meta, value_of
from gpurerank.server.responses import Usage, usage_of


class InfinityRerankRequest(DocumentsRequest):
    """Infinity's rerank."""

    raw_scores: bool | None = Field(default=None, description="Logits in place of scores.")


class InfinityResult(TypedDict):
    """One document of a ranking."""

    index: int
    relevance_score: float
    document: NotRequired[str]


class InfinityRerankResponse(TypedDict):
    """A ranking, best first."""

    object: str
    results: list[InfinityResult]
    model: str
    usage: Usage
    meta: dict[str, Any]
    id: str
    created: int


async def rerank(request: Request, body: InfinityRerankRequest) -> InfinityRerankResponse:
    """Infinity's rerank, with logits where ``raw_scores`` is true."""
    ranking = await rank_documents(request, body, body.top_n or None)
    results: list[InfinityResult] = []
    for passage in ranking.passages:
        score = value_of(passage, logits=bool(body.raw_scores))
        result = InfinityResult(index=passage.index, relevance_score=score)
        if body.return_documents:
            result["document"] = passage.passage
        results.append(result)
    return {
        "object": "rerank",
        "results": results,
        "model": ranking.model,
        "usage": usage_of(ranking.tokens),
        "meta": rerank_meta("1", ranking.tokens),
        "id": str(uuid.uuid4()),
        "created": int(time.time()),
    }


API = Api(
    name="Infinity",
    prefix="infinity",
    endpoints=(
        Endpoint(
            paths=("/rerank", "/v1/rerank"),
            request=InfinityRerankRequest,
            response=InfinityRerankResponse,
            handler=rerank,
            matches=has_field("raw_scores"),
        ),
    ),
)
