"""The rerank request and response that most APIs share: ``documents`` in, ``results`` out."""

from __future__ import annotations

import uuid
from typing import Any

from starlette.requests import Request
from typing_extensions import NotRequired, TypedDict

from gpurerank.server import operations
from gpurerank.server.fields import (
    Documents,
    Flag,
    Query,
    Schema,
    Text,
    TextList,
    TopN,
    passages_of,
    refuse_instruction,
)
from gpurerank.server.operations import Ranking
from gpurerank.server.responses import Usage, usage_of
from gpurerank.server.routing import service_of
from gpurerank.types import RankedPassage


class DocumentsRequest(Schema):
    """The fields that Cohere v1, Jina, vLLM, Infinity, Together and Xinference share."""

    model: Text | None = None
    query: Query
    documents: Documents
    top_n: TopN | None = None
    rank_fields: TextList | None = None
    return_documents: Flag | None = None
    instruction: Text | None = None


class ResultDocument(TypedDict):
    """A document as it was scored."""

    text: str


class RerankResult(TypedDict):
    """One document of a ranking."""

    index: int
    relevance_score: float
    document: NotRequired[ResultDocument]


class RerankData(TypedDict):
    """One document of a ranking, as Voyage's clients read it."""

    index: int
    relevance_score: float
    document: NotRequired[str]


class RerankResponse(TypedDict):
    """A ranking, best first: ``results`` for most clients, ``data`` for Voyage's."""

    id: str
    object: str
    model: str
    results: list[RerankResult]
    data: list[RerankData]
    usage: Usage
    meta: dict[str, Any]


async def rank_documents(request: Request, body: DocumentsRequest, top_k: int | None) -> Ranking:
    """Ranks the documents of a request.

    Raises:
        Refusal: A document has none of ``rank_fields``, or the request cannot be served.
        GPURerankError: The model failed.
    """
    refuse_instruction(body.instruction)
    passages = passages_of(body.documents, body.rank_fields)
    return await operations.rank(
        service_of(request), request, body.query, passages, model=body.model, top_k=top_k
    )


def rerank_response(
    ranking: Ranking,
    *,
    with_documents: bool,
    with_data_documents: bool = False,
    logits: bool = False,
) -> RerankResponse:
    """The response that clients of most APIs can read.

    Args:
        ranking: Best first.
        with_documents: Whether ``results`` have the documents.
        with_data_documents: Whether ``data`` has them too.
        logits: Whether scores are logits.
    """
    data: list[RerankData] = []
    for passage in ranking.passages:
        entry = RerankData(index=passage.index, relevance_score=value_of(passage, logits=logits))
        if with_data_documents:
            entry["document"] = passage.passage
        data.append(entry)
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": ranking.model,
        "results": rerank_results(ranking, with_documents=with_documents, logits=logits),
        "data": data,
        "usage": usage_of(ranking.tokens),
        "meta": rerank_meta("1", ranking.tokens),
    }


def rerank_results(
    ranking: Ranking, *, with_documents: bool, logits: bool = False
) -> list[RerankResult]:
    """Index and score of each document, best first."""
    results: list[RerankResult] = []
    for passage in ranking.passages:
        result = RerankResult(index=passage.index, relevance_score=value_of(passage, logits=logits))
        if with_documents:
            result["document"] = {"text": passage.passage}
        results.append(result)
    return results


def value_of(passage: RankedPassage, *, logits: bool) -> float:
    """The score of a passage, or its logit; the server's rankings always have both."""
    value = passage.logit if logits else passage.score
    return 0.0 if value is None else value


def rerank_meta(version: str, tokens: int) -> dict[str, Any]:
    """Cohere's account of a request."""
    return {
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": tokens},
    }
