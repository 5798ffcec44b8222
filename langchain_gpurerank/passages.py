"""The text that is scored for each document."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from langchain_core.documents import Document

from gpurerank import InputError

DocumentText = Callable[[Document], str] | Sequence[str]


def check_document_text(value: object) -> object:
    """Checks the option ``document_text``; a single metadata key becomes a tuple of one.

    Raises:
        InputError: It is an asynchronous function.
    """
    if inspect.iscoroutinefunction(value):
        raise InputError(
            "document_text is an asynchronous function; give one that returns the text directly"
        )
    return (value,) if isinstance(value, str) else value


def passages_of(documents: Sequence[Document], document_text: DocumentText | None) -> list[str]:
    """The text to score for each document.

    Args:
        documents: What is ranked.
        document_text: A function that makes the text, or the metadata keys whose values are put
            before ``page_content``, each on a line of its own; None for ``page_content`` alone.

    Raises:
        InputError: The function returned something else than a string.
    """
    if document_text is None:
        return [document.page_content for document in documents]
    if not callable(document_text):
        return [_with_metadata(document, document_text) for document in documents]
    passages = []
    for index, document in enumerate(documents):
        passage = document_text(document)
        if not isinstance(passage, str):
            raise InputError(
                f"document_text returned {type(passage).__name__} for document {index}; it must"
                " return a string"
            )
        passages.append(passage)
    return passages


def _with_metadata(document: Document, keys: Sequence[str]) -> str:
    lines = [_line(document.metadata.get(key)) for key in keys]
    return "\n".join([*filter(None, lines), document.page_content])


def _line(value: object) -> str:
    """A metadata value as text; a list of headings becomes one line."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_line, value)))
    return str(value).strip()
