"""Rerank under the paths of llama.cpp's server, which has Jina's shape."""

from __future__ import annotations

from starlette.requests import Request

from gpurerank.server.endpoint import Api, Endpoint
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    rank_documents,
    rerank_response,
)


class LlamaCppRerankRequest(DocumentsRequest):
    """The rerank of llama.cpp's server."""


async def rerank(request: Request, body: LlamaCppRerankRequest) -> RerankResponse:
    """Rerank of llama.cpp's server; with ``texts`` it is that of text-embeddings-inference."""
    ranking = await rank_documents(request, body, body.top_n or None)
    return rerank_response(ranking, with_documents=body.return_documents is not False)


API = Api(
    name="llama.cpp",
    prefix="llamacpp",
    endpoints=(
        Endpoint(
            paths=("/reranking", "/v1/reranking"),
            aliases=("/rerank", "/v1/rerank"),
            request=LlamaCppRerankRequest,
            response=RerankResponse,
            handler=rerank,
        ),
    ),
)
