"""Jina's rerank and embeddings."""

from __future__ import annotations

from pydantic import Field
from starlette.requests import Request

from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    rank_documents,
    rerank_response,
)


class JinaRerankRequest(DocumentsRequest):
    """Jina's rerank."""

    max_doc_length: int | None = Field(
        default=None, ge=1, description="Ignored: a long document is scored by its best window."
    )
    max_query_length: int | None = Field(default=None, ge=1, description="Ignored.")


async def rerank(request: Request, body: JinaRerankRequest) -> RerankResponse:
    """Jina's rerank."""
    ranking = await rank_documents(request, body, body.top_n or None)
    return rerank_response(ranking, with_documents=body.return_documents is not False)


API = Api(
    name="Jina",
    prefix="jina",
    endpoints=(
        Endpoint(
            paths=("/v1/rerank",),
            request=JinaRerankRequest,
            response=RerankResponse,
            handler=rerank,
            matches=has_field("max_doc_length", "max_query_length"),
        ),
    ),
)
