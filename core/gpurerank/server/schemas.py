"""What requests hold, in every shape that is spoken: unknown fields are ignored, null is absent."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_SURROGATES = re.compile("[\ud800-\udfff]")


def _readable(value: Any) -> Any:
    """Half of a surrogate pair is no character, and no tokenizer takes it: U+FFFD in its place."""
    if not isinstance(value, str) or value.isascii():
        return value
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value)


Text = Annotated[str, BeforeValidator(_readable)]
# Every list of a schema has fail_fast: a body may hold half a million wrong items.
Texts = Annotated[list[Text], Field(fail_fast=True)]
# What the page tells and the service checks, which answers an empty list with 400.
_NOT_BLANK: dict[str, Any] = {"minLength": 1, "pattern": r"\S"}
_SOME: dict[str, Any] = {"minItems": 1}
Query = Annotated[Text, Field(json_schema_extra=_NOT_BLANK)]
TopN = Annotated[int, Field(ge=0, description="Results returned at most.")]


class Schema(BaseModel):
    """Strict: a number is no text, and a text is no number."""

    model_config = ConfigDict(strict=True, extra="ignore")


class TextDocument(Schema):
    """A document as an object."""

    text: Text


class RerankRequest(Schema):
    """Cohere v1 and v2, Jina, Voyage, vLLM, Infinity, LiteLLM."""

    model: Text | None = None
    query: Query
    documents: Annotated[list[Text | TextDocument], Field(fail_fast=True)] = Field(
        json_schema_extra=_SOME
    )
    top_n: TopN | None = None
    top_k: TopN | None = Field(default=None, description="Voyage's name for top_n.")
    return_documents: bool | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Accepted; long documents are scored by their best window."
    )
    truncation: bool | None = Field(default=None, description="Accepted; nothing is cut.")

    @property
    def passages(self) -> list[str]:
        """The documents' texts."""
        return [d if isinstance(d, str) else d.text for d in self.documents]


class TextsRequest(Schema):
    """text-embeddings-inference's rerank."""

    query: Query
    texts: Texts = Field(json_schema_extra=_SOME)
    raw_scores: bool | None = Field(default=None, description="Logits in place of scores.")
    return_text: bool | None = None
    truncate: bool | None = Field(default=None, description="Accepted; nothing is cut.")
    truncation_direction: Text | None = None


class ScoreRequest(Schema):
    """vLLM's score: each with each, or one with all."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["text_1", "text_2"]}, {"required": ["queries", "documents"]}]
        }
    )

    model: Text | None = None
    text_1: Text | Texts | None = None
    text_2: Text | Texts | None = None
    queries: Text | Texts | None = None
    documents: Text | Texts | None = None

    @model_validator(mode="after")
    def _one_pair_of_names(self) -> ScoreRequest:
        if self.sides() is None:
            raise ValueError("give text_1 and text_2, or queries and documents")
        return self

    def sides(self) -> tuple[list[str], list[str]] | None:
        """Queries and passages, or None where one is missing."""
        for left, right in ((self.text_1, self.text_2), (self.queries, self.documents)):
            if left is not None and right is not None:
                return _listed(left), _listed(right)
        return None


class RankRequest(Schema):
    """This package's own: everything that a ranking knows of itself."""

    query: Query
    passages: Texts = Field(json_schema_extra=_SOME)
    model: Text | None = None
    method: Literal["cross-encoder", "bi-encoder", "cascade"] = "cross-encoder"
    candidates: Annotated[int, Field(ge=1)] = Field(
        default=50, description="Passages that a cascade's second stage reads."
    )
    top_k: TopN | None = None
    threshold: float | None = Field(default=None, allow_inf_nan=False)


class OpenAIEmbeddingRequest(Schema):
    """OpenAI's embeddings."""

    input: Text | Texts
    model: Text | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: Text | None = None
    input_type: Text | None = Field(default=None, description="'query' or 'passage'.")

    @property
    def texts(self) -> list[str]:
        """What is embedded."""
        return _listed(self.input)


class EmbedRequest(Schema):
    """text-embeddings-inference's embed."""

    inputs: Text | Texts
    normalize: bool | None = None
    truncate: bool | None = None
    prompt_name: Text | None = Field(default=None, description="'query' or 'passage'.")

    @property
    def texts(self) -> list[str]:
        """What is embedded."""
        return _listed(self.inputs)


class CohereEmbedRequest(Schema):
    """Cohere's embed, version 2."""

    texts: Texts = Field(json_schema_extra=_SOME)
    model: Text | None = None
    input_type: Text | None = None
    embedding_types: Annotated[list[Literal["float"]], Field(fail_fast=True)] | None = None
    truncate: Text | None = None


def is_query(kind: str | None) -> bool:
    """Whether texts are queries, in the words of any of the clients."""
    return kind is not None and kind.lower().replace("retrieval.", "") in ("query", "search_query")


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
