"""What Weaviate's local reranker module expects of its inference container."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Body, Endpoint, Lookup
from gpurerank.server.fields import Query, Schema, Text, Texts
from gpurerank.server.liveness import check_devices
from gpurerank.server.refusal import Refusal
from gpurerank.server.rerank_shape import RerankResponse, rerank_response, value_of
from gpurerank.server.routing import service_of


class WeaviateRerankRequest(Schema):
    """Rerank of Weaviate's module."""

    query: Query
    documents: Texts
    property: Text | None = None


class WeaviateScore(TypedDict):
    """The score of one document."""

    document: str
    score: float


class WeaviateRerankResponse(RerankResponse):
    """Scores in the order of the documents, and a ranking as other clients read it."""

    query: str
    scores: list[WeaviateScore]
    property: str


async def rerank(request: Request, body: WeaviateRerankRequest) -> WeaviateRerankResponse:
    """Rerank of Weaviate's module: ``scores`` in the order of the documents."""
    ranking = await operations.rank(service_of(request), request, body.query, body.documents)
    in_order = sorted(ranking.passages, key=lambda passage: passage.index)
    return {
        **rerank_response(ranking, with_documents=True),
        "query": body.query,
        "scores": [
            {"document": passage.passage, "score": value_of(passage, logits=False)}
            for passage in in_order
        ],
        "property": body.property or "",
    }


async def meta(request: Request) -> dict[str, Any]:
    """What is served, for the meta endpoint of Weaviate."""
    service = service_of(request)
    return {
        "server": "gpurerank",
        "version": version("gpurerank"),
        "model": next(service.models.names()),
        "rerankers": list(service.models.rerankers),
    }


async def ready(request: Request) -> dict[str, str]:
    """Whether the server takes work."""
    service = service_of(request)
    check_devices(service)
    if service.draining:
        raise Refusal(503, "the server is shutting down", "draining")
    return {"status": "ok"}


def _is_plain(body: Body) -> bool:
    # The module sends these fields and no other; some other clients may send no more either.
    documents = body.get("documents")
    return (
        set(body) <= {"query", "documents", "property"}
        and isinstance(documents, list)
        and all(isinstance(document, str) for document in documents)
    )


API = Api(
    name="Weaviate",
    prefix="weaviate",
    endpoints=(
        Endpoint(
            paths=("/rerank",),
            request=WeaviateRerankRequest,
            response=WeaviateRerankResponse,
            handler=rerank,
            matches=_is_plain,
        ),
    ),
    lookups=(
        Lookup(path="/meta", handler=meta),
        Lookup(path="/.well-known/ready", handler=ready, needs_key=False),
        Lookup(path="/.well-known/live", handler=ready, needs_key=False),
    ),
)
