"""A retriever as ``gpurerank.evaluation`` takes it."""

from __future__ import annotations

from collections.abc import Callable

from langchain_core.documents import Document
from langchain_core.runnables import Runnable

from gpurerank import InputError


def as_search(
    retriever: Runnable[str, list[Document]], *, id_key: str | None = None
) -> Callable[[str], list[tuple[str, str, float]]]:
    """A function from a question to (id, text, score) of each document found, best first.

    Args:
        retriever: Anything that takes a question and returns documents, ``rerank(...)`` too.
        id_key: Where in the metadata the id stands that judgements name, such as "source"; None
            for ``Document.id``.

    Returns:
        The function. A retriever gives no scores: they count down from 0.

    Raises:
        InputError: When it is called: a document has no such id.
    """

    def search(question: str) -> list[tuple[str, str, float]]:
        found = retriever.invoke(question)
        return [
            (_id(document, id_key), document.page_content, -float(place))
            for place, document in enumerate(found)
        ]

    return search


def _id(document: Document, id_key: str | None) -> str:
    found = document.id if id_key is None else document.metadata.get(id_key)
    if found is None:
        wanted = "id" if id_key is None else f"metadata[{id_key!r}]"
        keys = ", ".join(map(repr, document.metadata)) or "none"
        raise InputError(
            f"a document has no {wanted}; give id_key, one of its metadata keys ({keys}), or store"
            " documents with ids"
        )
    return str(found)
