"""Xinference's rerank; its model list has the fields of OpenAI's and more."""

from __future__ import annotations

import json

from pydantic import Field
from starlette.requests import Request

from gpurerank.server.endpoint import Api, Endpoint, has_field
from gpurerank.server.fields import Text, refuse_instruction
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    rank_documents,
    rerank_response,
)


class XinferenceRerankRequest(DocumentsRequest):
    """Xinference's rerank."""

    max_chunks_per_doc: int | None = Field(
        default=None, ge=1, description="Ignored: a long document is scored by its best window."
    )
    return_len: bool | None = None
    kwargs: Text | None = Field(default=None, description="Further options as JSON.")


async def rerank(request: Request, body: XinferenceRerankRequest) -> RerankResponse:
    """Xinference's rerank."""
    refuse_instruction(_instruction(body.kwargs), "kwargs.instruction")
    ranking = await rank_documents(request, body, body.top_n or None)
    return rerank_response(ranking, with_documents=bool(body.return_documents))


def _instruction(kwargs: str | None) -> str | None:
    try:
        options = json.loads(kwargs or "{}")
    except (ValueError, RecursionError):
        return None
    value = options.get("instruction") if isinstance(options, dict) else None
    return None if value is None else str(value)


API = Api(
    name="Xinference",
    prefix="xinference",
    endpoints=(
        Endpoint(
            paths=("/v1/rerank",),
            request=XinferenceRerankRequest,
            response=RerankResponse,
            handler=rerank,
            matches=has_field("kwargs", "return_len"),
        ),
    ),
)
