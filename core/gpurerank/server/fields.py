"""Field types that the request schemas of every API share."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gpurerank.server.refusal import Refusal

_SURROGATES = re.compile("[\ud800-\udfff]")


def _without_surrogates(value: Any) -> Any:
    """Replaces half of a surrogate pair, which no tokenizer accepts, with U+FFFD."""
    if not isinstance(value, str) or value.isascii():
        return value
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value)


Text = Annotated[str, BeforeValidator(_without_surrogates)]
# For the OpenAPI page only: the service checks it, and answers an empty list with 400.
_NOT_BLANK: dict[str, Any] = {"minLength": 1, "pattern": r"\S"}
NOT_EMPTY: dict[str, Any] = {"minItems": 1}
Query = Annotated[Text, Field(json_schema_extra=_NOT_BLANK)]
# Every list of a schema has fail_fast: a body may hold half a million wrong items.
TextList = Annotated[list[Text], Field(fail_fast=True)]
Texts = Annotated[list[Text], Field(fail_fast=True, json_schema_extra=NOT_EMPTY)]
TopN = Annotated[int, Field(ge=0, description="Maximum results returned; 0 returns all.")]
PositiveTopN = Annotated[int, Field(ge=1, description="Maximum results returned.")]
# RAGFlow sends the words.
Flag = Annotated[
    bool | Literal["true", "false", "True", "False"],
    AfterValidator(lambda value: value in (True, "true", "True")),
]
Cut = Annotated[bool, Field(description="Accepted and ignored: nothing is truncated.")]


class Schema(BaseModel):
    """A strict request body: numbers and strings are not converted, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class TextPart(Schema):
    """A part of vLLM's ``content``; only text can be scored."""

    type: Literal["text"] | None = None
    text: Text


class Content(Schema):
    """Text in parts, as vLLM takes it for models that also read images."""

    content: Annotated[list[TextPart], Field(fail_fast=True, json_schema_extra=NOT_EMPTY)]

    def joined(self) -> str:
        """The parts as one text, a line each."""
        return "\n".join(part.text for part in self.content)


class Document(Schema):
    """A document as an object; its other fields can be named in ``rank_fields``."""

    model_config = ConfigDict(strict=True, extra="allow")

    text: Text | None = None

    def passage(self, rank_fields: Sequence[str] | None, place: str) -> str:
        """The text that is scored.

        Several fields become lines of YAML, ``title: A title``, in the order of ``rank_fields``;
        a single field is scored without its name. Without ``rank_fields`` that is ``text``, or all
        fields of a document that has no ``text``.

        Args:
            rank_fields: Names of the fields to score.
            place: Where the document stands in the request, for the error.

        Raises:
            Refusal: The document has none of the fields.
        """
        values = {"text": self.text, **(self.model_extra or {})}
        names = rank_fields or (["text"] if self.text is not None else list(values))
        lines = {name: _scalar(values[name]) for name in names if values.get(name) is not None}
        if not lines:
            raise Refusal(422, f"{place}: the document has no {' or '.join(names)}", "invalid")
        if len(lines) == 1:
            return next(iter(lines.values()))
        return "\n".join(f"{name}: {line}" for name, line in lines.items())


Documents = Annotated[
    list[Text | Content | Document], Field(fail_fast=True, json_schema_extra=NOT_EMPTY)
]


def passages_of(
    documents: Sequence[str | Content | Document],
    rank_fields: Sequence[str] | None = None,
    *,
    field: str = "documents",
) -> list[str]:
    """The texts of documents that are strings or objects.

    Raises:
        Refusal: A document has no text.
    """
    passages = []
    for index, document in enumerate(documents):
        if isinstance(document, str):
            passages.append(document)
        elif isinstance(document, Content):
            passages.append(document.joined())
        else:
            passages.append(document.passage(rank_fields, f"{field}.{index}"))
    return passages


def as_list(value: str | list[str]) -> list[str]:
    """A single text as a list of one."""
    return [value] if isinstance(value, str) else value


def is_query(role: str | None) -> bool:
    """Whether texts are queries, by the word that any of the APIs has for it."""
    return role is not None and role.lower().replace("retrieval.", "") in ("query", "search_query")


def refuse_instruction(instruction: str | None, field: str = "instruction") -> None:
    """Refuses an instruction, which a served model takes only when it is loaded.

    Raises:
        Refusal: There is an instruction.
    """
    if instruction is not None and instruction.strip():
        raise Refusal(
            422,
            f"{field}: this server's models take no instruction per request; leave it out, or"
            " write it into the query",
            "invalid",
        )


def _scalar(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
