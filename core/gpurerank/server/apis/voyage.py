"""Voyage's rerank and embeddings."""

from __future__ import annotations

from pydantic import Field
from starlette.requests import Request

from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.fields import Cut, PositiveTopN
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    rank_documents,
    rerank_response,
)


class VoyageRerankRequest(DocumentsRequest):
    """Voyage's rerank."""

    top_k: PositiveTopN | None = Field(default=None)
    truncation: Cut | None = None


async def rerank(request: Request, body: VoyageRerankRequest) -> RerankResponse:
    """Voyage's rerank: the ranking is in ``data``."""
    limits = [limit for limit in (body.top_k, body.top_n or None) if limit is not None]
    ranking = await rank_documents(request, body, min(limits, default=None))
    shown = bool(body.return_documents)
    return rerank_response(ranking, with_documents=shown, with_data_documents=shown)


API = Api(
    name="Voyage",
    prefix="voyage",
    endpoints=(
        Endpoint(
            paths=("/v1/rerank", "/rerank"),
            request=VoyageRerankRequest,
            response=RerankResponse,
            handler=rerank,
            matches=has_field("top_k", "truncation"),
        ),
    ),
)
