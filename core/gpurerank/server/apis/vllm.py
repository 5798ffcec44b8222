"""vLLM's rerank and score."""

from __future__ import annotations

import time
import uuid

from pydantic import model_validator
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Endpoint
from gpurerank.server.fields import Schema, Text, TextList, as_list
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    rank_documents,
    rerank_response,
)
from gpurerank.server.responses import Usage, usage_of
from gpurerank.server.routing import service_of


class VllmRerankRequest(DocumentsRequest):
    """vLLM's rerank."""


class VllmScoreRequest(Schema):
    """vLLM's score: one text with all of the other side, or as many on both sides."""

    model: Text | None = None
    text_1: Text | TextList | None = None
    text_2: Text | TextList | None = None
    queries: Text | TextList | None = None
    documents: Text | TextList | None = None

    @model_validator(mode="after")
    def _has_both_sides(self) -> VllmScoreRequest:
        if self.sides() is None:
            raise ValueError("give text_1 and text_2, or queries and documents")
        return self

    def sides(self) -> tuple[list[str], list[str]] | None:
        """Queries and passages, or None where one of them is missing."""
        for left, right in ((self.text_1, self.text_2), (self.queries, self.documents)):
            if left is not None and right is not None:
                return as_list(left), as_list(right)
        return None


VllmScoreRequest.model_config["json_schema_extra"] = {
    "anyOf": [{"required": ["text_1", "text_2"]}, {"required": ["queries", "documents"]}]
}


class PairScore(TypedDict):
    """The score of one pair."""

    index: int
    object: str
    score: float


class VllmScoreResponse(TypedDict):
    """One score for each pair, in input order."""

    id: str
    object: str
    created: int
    model: str
    data: list[PairScore]
    usage: Usage


async def rerank(request: Request, body: VllmRerankRequest) -> RerankResponse:
    """Rerank of vLLM; ``top_n`` of 0 returns all."""
    ranking = await rank_documents(request, body, body.top_n or None)
    return rerank_response(ranking, with_documents=body.return_documents is not False)


async def score(request: Request, body: VllmScoreRequest) -> VllmScoreResponse:
    """Score of vLLM."""
    queries, passages = body.sides() or ([], [])
    scores = await operations.score(
        service_of(request), request, queries, passages, model=body.model
    )
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": scores.model,
        "data": [
            {"index": index, "object": "score", "score": value}
            for index, value in enumerate(scores.values)
        ],
        "usage": usage_of(scores.tokens),
    }


API = Api(
    name="vLLM",
    prefix="vllm",
    endpoints=(
        Endpoint(
            paths=("/rerank", "/v1/rerank"),
            aliases=("/v2/rerank",),
            request=VllmRerankRequest,
            response=RerankResponse,
            handler=rerank,
        ),
        Endpoint(
            paths=("/score", "/v1/score"),
            request=VllmScoreRequest,
            response=VllmScoreResponse,
            handler=score,
        ),
    ),
)
