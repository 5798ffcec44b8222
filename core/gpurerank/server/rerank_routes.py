"""Reranking and scoring, in the shapes of Cohere, Jina, Voyage, vLLM, Infinity and TEI."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import Request

from gpurerank.server.answers import (
    JSON,
    CohereAnswer,
    RankAnswer,
    RerankAnswer,
    ScoreAnswer,
    TextResult,
    usage,
)
from gpurerank.server.refusal import Refusal
from gpurerank.server.routing import inference_router, route, service_of
from gpurerank.server.schemas import RankRequest, RerankRequest, ScoreRequest, TextsRequest
from gpurerank.server.service import Service
from gpurerank.types import RankedPassage, Ranker

router = inference_router()


@route(router, ("/v2/rerank",), CohereAnswer, RerankRequest)
async def rerank_cohere(request: Request) -> JSON:
    """Cohere's rerank, version 2."""
    service = service_of(request)
    asked = await service.bodies.read(request, RerankRequest)
    ranked, tokens = await _rerank(service, request, asked)
    return JSON(
        {
            "id": str(uuid.uuid4()),
            "results": _results(ranked, with_documents=bool(asked.return_documents)),
            "meta": _meta("2", tokens),
        }
    )


@route(router, ("/v1/rerank", "/v1/reranking"), RerankAnswer, RerankRequest)
async def rerank(request: Request) -> JSON:
    """Rerank as Cohere v1, Jina, Voyage, Xinference and LiteLLM ask for it."""
    service = service_of(request)
    asked = await service.bodies.read(request, RerankRequest)
    return await _rerank_answer(service, request, asked)


@route(router, ("/rerank",), RerankAnswer | list[TextResult], RerankRequest, TextsRequest)
async def rerank_or_texts(request: Request) -> JSON:
    """With ``documents`` as ``/v1/rerank``; with ``texts`` as text-embeddings-inference."""
    service = service_of(request)
    values = await service.bodies.read_object(request)
    if "texts" not in values:
        body = await service.bodies.check(request, RerankRequest, values)
        return await _rerank_answer(service, request, body)
    request.state.as_text_embeddings_inference = True
    asked = await service.bodies.check(request, TextsRequest, values)
    ranked, _ = await _rank(service, request, None, asked.query, asked.texts, "texts")
    return JSON([_text_result(passage, asked) for passage in ranked])


@route(router, ("/score", "/v1/score"), ScoreAnswer, ScoreRequest)
async def score(request: Request) -> JSON:
    """The score of vLLM: one query with each passage, or as many of both, side by side."""
    service = service_of(request)
    asked = await service.bodies.read(request, ScoreRequest)
    queries, passages = asked.sides() or ([], [])
    service.check_texts(passages, "documents")
    pairs = _pairs(queries, passages)
    for query in queries:
        service.check_query(query)
    reranker = service.models.reranker(asked.model)
    scores, call = await service.run(
        request, max(queries, key=len), passages, lambda: reranker.ascore_pairs(pairs)
    )
    return JSON(
        {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": service.models.served_name(asked.model),
            "data": [
                {"index": index, "object": "score", "score": value}
                for index, value in enumerate(scores)
            ],
            "usage": usage(call.counted.get("tokens", 0)),
        }
    )


@route(router, ("/v1/rank",), RankAnswer, RankRequest)
async def rank(request: Request) -> JSON:
    """This package's own: logits, spans, where each passage came from, the time of each stage."""
    service = service_of(request)
    asked = await service.bodies.read(request, RankRequest)
    service.check_query(asked.query)
    service.check_texts(asked.passages, "passages")
    ranker = service.models.ranker(asked.method, asked.model, asked.candidates)
    ranked, call = await service.run(
        request,
        asked.query,
        asked.passages,
        lambda: ranker.arank(asked.query, asked.passages, asked.top_k, asked.threshold),
    )
    return JSON(
        {
            "results": [passage.provenance() for passage in ranked],
            "stages_ms": call.stages_ms,
            "usage": usage(call.counted.get("tokens", 0)),
        }
    )


async def _rerank(
    service: Service, request: Request, asked: RerankRequest
) -> tuple[list[RankedPassage], int]:
    limits = [limit for limit in (asked.top_n, asked.top_k) if limit is not None]
    top_k = min(limits, default=None)
    passages = asked.passages
    return await _rank(service, request, asked.model, asked.query, passages, "documents", top_k)


async def _rank(
    service: Service,
    request: Request,
    model: str | None,
    query: str,
    passages: list[str],
    field: str,
    top_k: int | None = None,
) -> tuple[list[RankedPassage], int]:
    service.check_query(query)
    service.check_texts(passages, field)
    reranker: Ranker = service.models.reranker(model)
    ranked, call = await service.run(
        request, query, passages, lambda: reranker.arank(query, passages, top_k)
    )
    return ranked, call.counted.get("tokens", 0)


async def _rerank_answer(service: Service, request: Request, asked: RerankRequest) -> JSON:
    ranked, tokens = await _rerank(service, request, asked)
    shown = asked.return_documents is not False
    answer: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "model": service.models.served_name(asked.model),
        "results": _results(ranked, with_documents=shown),
        "usage": usage(tokens),
        "meta": _meta("1", tokens),
    }
    if asked.top_k is not None:
        # Voyage's client reads this one.
        answer["object"] = "list"
        answer["data"] = [
            {"index": p.index, "relevance_score": p.score}
            | ({"document": p.passage} if asked.return_documents else {})
            for p in ranked
        ]
    return JSON(answer)


def _results(ranked: list[RankedPassage], *, with_documents: bool) -> list[dict[str, Any]]:
    return [
        {"index": passage.index, "relevance_score": passage.score}
        | ({"document": {"text": passage.passage}} if with_documents else {})
        for passage in ranked
    ]


def _text_result(passage: RankedPassage, asked: TextsRequest) -> dict[str, Any]:
    value = passage.logit if asked.raw_scores else passage.score
    result: dict[str, Any] = {"index": passage.index, "score": value}
    if asked.return_text:
        result["text"] = passage.passage
    return result


def _meta(version: str, tokens: int) -> dict[str, Any]:
    return {
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": tokens},
    }


def _pairs(queries: list[str], passages: list[str]) -> list[tuple[str, str]]:
    """Pairs side by side; one query goes with every passage.

    Raises:
        Refusal: Both sides have several texts, and not as many.
    """
    if len(queries) == 1:
        return [(queries[0], passage) for passage in passages]
    if len(queries) != len(passages):
        raise Refusal(
            422,
            f"{len(queries)} queries with {len(passages)} documents: give one query, or as many"
            " as documents",
            "invalid",
        )
    return list(zip(queries, passages, strict=True))
