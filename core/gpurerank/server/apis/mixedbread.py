"""Mixedbread's reranking."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from typing_extensions import NotRequired, TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.fields import (
    Content,
    Documents,
    PositiveTopN,
    Query,
    Schema,
    Text,
    TextList,
    passages_of,
    refuse_instruction,
)
from gpurerank.server.refusal import Refusal
from gpurerank.server.rerank_shape import value_of
from gpurerank.server.routing import service_of


class MixedbreadRerankRequest(Schema):
    """Mixedbread's reranking."""

    model: Text | None = None
    query: Query
    input: Documents
    rank_fields: TextList | None = None
    top_k: PositiveTopN | None = None
    return_input: bool | None = None
    rewrite_query: bool | None = None
    instruction: Text | None = None


class MixedbreadRank(TypedDict):
    """One document of a ranking."""

    index: int
    score: float
    object: str
    input: NotRequired[Any]


class MixedbreadUsage(TypedDict):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class MixedbreadRerankResponse(TypedDict):
    """A ranking, best first."""

    model: str
    object: str
    data: list[MixedbreadRank]
    usage: MixedbreadUsage
    top_k: int
    return_input: bool


async def rerank(request: Request, body: MixedbreadRerankRequest) -> MixedbreadRerankResponse:
    """Mixedbread's reranking."""
    refuse_instruction(body.instruction)
    if body.rewrite_query:
        raise Refusal(422, "rewrite_query: this server does not rewrite queries", "invalid")
    passages = passages_of(body.input, body.rank_fields, field="input")
    ranking = await operations.rank(
        service_of(request),
        request,
        body.query,
        passages,
        model=body.model,
        top_k=body.top_k,
        field="input",
    )
    data: list[MixedbreadRank] = []
    for passage in ranking.passages:
        score = value_of(passage, logits=False)
        rank = MixedbreadRank(index=passage.index, score=score, object="rank_result")
        if body.return_input:
            rank["input"] = _as_sent(body.input[passage.index])
        data.append(rank)
    return {
        "model": ranking.model,
        "object": "list",
        "data": data,
        "usage": {
            "prompt_tokens": ranking.tokens,
            "total_tokens": ranking.tokens,
            "completion_tokens": 0,
        },
        "top_k": body.top_k or len(passages),
        "return_input": bool(body.return_input),
    }


def _as_sent(document: str | Content | Schema) -> Any:
    if isinstance(document, str):
        return document
    return document.model_dump(exclude_unset=True)


API = Api(
    name="Mixedbread",
    prefix="mixedbread",
    endpoints=(
        Endpoint(
            paths=("/v1/reranking",),
            aliases=("/reranking",),
            request=MixedbreadRerankRequest,
            response=MixedbreadRerankResponse,
            handler=rerank,
            matches=has_field("input"),
        ),
    ),
)
