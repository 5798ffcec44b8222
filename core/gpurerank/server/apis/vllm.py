"""vLLM's rerank and score."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator
from starlette.requests import Request
from typing_extensions import TypedDict

from gpurerank.server import operations
from gpurerank.server.endpoint import Api, Endpoint
from gpurerank.server.fields import (
    Content,
    Document,
    Documents,
    Query,
    Schema,
    Text,
    refuse_instruction,
)
from gpurerank.server.rerank_shape import (
    DocumentsRequest,
    RerankResponse,
    rank_documents,
    rerank_response,
)
from gpurerank.server.responses import Usage, usage_of
from gpurerank.server.routing import service_of

Side = Text | Content | Annotated[list[Text | Content], Field(fail_fast=True)]
_SIDES = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


class VllmRerankRequest(DocumentsRequest):
    """Rerank of vLLM; ``content`` may hold text parts."""

    query: Query | Content  # type: ignore[assignment]
    documents: Documents | Content  # type: ignore[assignment]
    use_activation: bool | None = Field(default=None, description="False returns logits.")
    chat_template_kwargs: dict[str, Any] | None = None


class VllmScoreRequest(Schema):
    """Score of vLLM: one text with all of the other side, or as many on both sides."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": list(sides)} for sides in _SIDES]}
    )

    model: Text | None = None
    text_1: Side | None = None
    text_2: Side | None = None
    queries: Side | None = None
    documents: Side | None = None
    items: Side | None = None
    data_1: Side | None = None
    data_2: Side | None = None
    instruction: Text | None = None
    use_activation: bool | None = Field(default=None, description="False returns logits.")
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_both_sides(self) -> VllmScoreRequest:
        if self.sides() is None:
            raise ValueError("give text_1 and text_2, queries and documents, or queries and items")
        return self

    def sides(self) -> tuple[list[str], list[str]] | None:
        """Queries and passages, or None where one of them is missing."""
        for names in _SIDES:
            left, right = (getattr(self, name) for name in names)
            if left is not None and right is not None:
                return _texts(left), _texts(right)
        return None


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
    _refuse_template_instruction(body.chat_template_kwargs)
    query = body.query if isinstance(body.query, str) else body.query.joined()
    documents = body.documents
    if not isinstance(documents, list):
        documents = list[Text | Content | Document](_texts(documents))
    plain = DocumentsRequest.model_construct(
        model=body.model,
        query=query,
        documents=documents,
        rank_fields=body.rank_fields,
        instruction=body.instruction,
    )
    ranking = await rank_documents(request, plain, body.top_n or None)
    return rerank_response(
        ranking,
        with_documents=body.return_documents is not False and not _is_litellm(request),
        logits=body.use_activation is False,
    )


async def score(request: Request, body: VllmScoreRequest) -> VllmScoreResponse:
    """Score of vLLM."""
    refuse_instruction(body.instruction)
    _refuse_template_instruction(body.chat_template_kwargs)
    queries, passages = body.sides() or ([], [])
    scores = await operations.score(
        service_of(request),
        request,
        queries,
        passages,
        model=body.model,
        logits=body.use_activation is False,
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


def _texts(side: str | Content | list[str | Content]) -> list[str]:
    """The texts of one side; the parts of a single ``content`` are a text each."""
    if isinstance(side, str):
        return [side]
    if isinstance(side, Content):
        return [part.text for part in side.content]
    return [text if isinstance(text, str) else text.joined() for text in side]


def _refuse_template_instruction(values: dict[str, Any] | None) -> None:
    instruction = (values or {}).get("instruction")
    if instruction is not None:
        refuse_instruction(str(instruction), "chat_template_kwargs.instruction")


def _is_litellm(request: Request) -> bool:
    """Whether LiteLLM sends this to the path that it has for both Infinity and vLLM.

    Both of its providers send the same request; one needs documents as strings, the other as
    objects, and each fails on the other's. Neither fails without documents. Paths that begin with
    ``/infinity`` or ``/vllm`` are not ambiguous.
    """
    agent = request.headers.get("user-agent", "")
    return agent.startswith("litellm/") and request.url.path == "/rerank"


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
