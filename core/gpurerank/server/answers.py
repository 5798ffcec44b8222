"""What responses hold, as the OpenAPI page tells it, and how they are written."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response
from typing_extensions import NotRequired, TypedDict


class Usage(TypedDict):
    """Tokens that models read."""

    total_tokens: int
    prompt_tokens: int


class RerankedText(TypedDict):
    """A document as it was sent."""

    text: str


class RerankResult(TypedDict):
    """One document of a ranking."""

    index: int
    relevance_score: float
    document: NotRequired[RerankedText]


class VoyageResult(TypedDict):
    """One document of a ranking, for Voyage."""

    index: int
    relevance_score: float
    document: NotRequired[str]


class RerankAnswer(TypedDict):
    """Best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: dict[str, Any]
    object: NotRequired[str]
    data: NotRequired[list[VoyageResult]]


class CohereAnswer(TypedDict):
    """Cohere v2: best first."""

    id: str
    results: list[RerankResult]
    meta: dict[str, Any]


class TextResult(TypedDict):
    """One text of a ranking, for text-embeddings-inference."""

    index: int
    score: float
    text: NotRequired[str]


class ScoredPair(TypedDict):
    """The score of one pair."""

    index: int
    object: str
    score: float


class ScoreAnswer(TypedDict):
    """One score a pair, input order."""

    id: str
    object: str
    created: int
    model: str
    data: list[ScoredPair]
    usage: Usage


class RankedResult(TypedDict):
    """One passage of a ranking and all that is known of its place."""

    index: int
    score: float
    logit: float
    rank: int
    previous_rank: int
    previous_score: float | None
    span: list[int] | None
    truncated: bool
    model: str


class RankAnswer(TypedDict):
    """Best first, with the time of each stage."""

    results: list[RankedResult]
    stages_ms: dict[str, float]
    usage: Usage


class Embedding(TypedDict):
    """One vector: numbers, or base64 of little-endian float32."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingAnswer(TypedDict):
    """OpenAI's embeddings, input order."""

    object: str
    data: list[Embedding]
    model: str
    usage: Usage


class CohereEmbeddings(TypedDict):
    """Vectors by type."""

    float: list[list[float]]


class CohereEmbedAnswer(TypedDict):
    """Cohere's embeddings, input order."""

    id: str
    embeddings: CohereEmbeddings
    texts: list[str]
    meta: dict[str, Any]
    response_type: str


class CohereFloatsAnswer(TypedDict):
    """Cohere's embeddings, version 1, input order."""

    id: str
    embeddings: list[list[float]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: str


class ModelEntry(TypedDict):
    """A model that is served."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelList(TypedDict):
    """Every model that is served."""

    object: str
    data: list[ModelEntry]


class ErrorBody(TypedDict):
    """What went wrong, for OpenAI's clients."""

    message: str
    type: str
    code: str


class ErrorAnswer(TypedDict):
    """What went wrong, for every client; ``error`` is a string for text-embeddings-inference."""

    error: ErrorBody | str
    message: str
    detail: str
    error_type: str


class JSON(Response):
    """JSON of plain values and of arrays, whose numbers keep all their digits."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def usage(tokens: int) -> Usage:
    """As OpenAI and others name it."""
    return {"total_tokens": tokens, "prompt_tokens": tokens}
