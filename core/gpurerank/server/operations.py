"""The three operations behind every API: rank, score and embed plain values with a served model."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from gpurerank.ranking import logit_of
from gpurerank.server.refusal import Refusal
from gpurerank.server.service import Service
from gpurerank.types import FloatArray, RankedPassage, Ranker


@dataclass(frozen=True, slots=True)
class Ranking:
    """Passages of one query, best first.

    Attributes:
        passages: At most the requested number.
        model: Name under which the model is served.
        tokens: Tokens that the models read.
        stages_ms: Time of each stage.
    """

    passages: list[RankedPassage]
    model: str
    tokens: int
    stages_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Scores:
    """One score for each pair, in input order.

    Attributes:
        values: Scores, or logits where those were requested.
        model: Name under which the model is served.
        tokens: Tokens that the model read.
    """

    values: list[float]
    model: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each text, in input order.

    Attributes:
        vectors: Shape (texts, dim), float32.
        model: Name under which the model is served.
        tokens: Tokens that the model read.
    """

    vectors: FloatArray
    model: str
    tokens: int


async def rank(
    service: Service,
    request: Request,
    query: str,
    passages: list[str],
    *,
    model: str | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    ranker: Ranker | None = None,
    field: str = "documents",
) -> Ranking:
    """Ranks passages with a served reranker, or with ``ranker``.

    Args:
        service: The running server.
        request: Whose client may leave, which stops the work.
        query: The query.
        passages: What is ranked.
        model: Name of the reranker; None for the first.
        top_k: Maximum passages returned; None for all.
        threshold: Minimum score of a returned passage.
        ranker: Ranks in place of the reranker.
        field: Name of the passages in the request, for errors.

    Raises:
        Refusal: The request is over a limit, or cannot be served now.
        GPURerankError: The model failed.
    """
    service.check_query(query)
    service.check_texts(passages, field)
    chosen = ranker or service.models.reranker(model)
    ranked, call = await service.run(
        request, chosen, query, passages, lambda: chosen.arank(query, passages, top_k, threshold)
    )
    served = service.models.served_name(model)
    return Ranking(ranked, served, call.counted.get("tokens", 0), call.stages_ms)


async def score(
    service: Service,
    request: Request,
    queries: list[str],
    passages: list[str],
    *,
    model: str | None = None,
    logits: bool = False,
    field: str = "documents",
) -> Scores:
    """Scores pairs: one query with every passage, or as many queries as passages.

    With ``logits`` the values are logits.

    Raises:
        Refusal: The request is over a limit, or cannot be served now.
        GPURerankError: The model failed.
    """
    service.check_texts(passages, field)
    if len(queries) not in (1, len(passages)):
        raise Refusal(
            422,
            f"{len(queries)} queries with {len(passages)} documents: give one query, or as many"
            " as documents",
            "invalid",
        )
    for query in queries:
        service.check_query(query)
    repeated = queries * len(passages) if len(queries) == 1 else queries
    pairs = list(zip(repeated, passages, strict=True))
    reranker = service.models.reranker(model)
    values, call = await service.run(
        request, reranker, max(queries, key=len), passages, lambda: reranker.ascore_pairs(pairs)
    )
    if logits:
        values = [logit_of(value) for value in values]
    return Scores(values, service.models.served_name(model), call.counted.get("tokens", 0))


async def embed(
    service: Service,
    request: Request,
    texts: list[str],
    *,
    model: str | None = None,
    query: bool = False,
    field: str = "input",
) -> Embeddings:
    """Embeds texts as passages, or as queries.

    Raises:
        Refusal: The request is over a limit, or cannot be served now.
        GPURerankError: The model failed.
    """
    encoder = service.models.embedder(model)
    service.check_texts(texts, field)
    work = encoder.aembed_queries if query else encoder.aembed_passages
    vectors, call = await service.run(request, encoder, "", texts, lambda: work(texts))
    served = service.models.served_name(model, embedder=True)
    return Embeddings(vectors, served, call.counted.get("tokens", 0))
