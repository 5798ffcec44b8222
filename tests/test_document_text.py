"""What of a LangChain document is scored can be chosen."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

from gpurerank import InputError, Reranker
from langchain_gpurerank import GPURerank, rerank
from tests.conftest import WordOverlap

QUERY = "torque of wheel nuts"
DOCUMENTS = [
    Document("Tighten to 110 Nm.", id="bolts", metadata={"title": "Engine bolts", "page": 3}),
    Document("Tighten to 90 Nm.", id="wheels", metadata={"title": "Torque of wheel nuts"}),
    Document("Check the oil.", id="oil", metadata={"title": None, "heading": ["Care", "Oil"]}),
]


def titled(document: Document) -> str:
    return f"{document.metadata['title']}: {document.page_content}"


@pytest.fixture
def ranker(overlap: WordOverlap) -> Reranker:
    return Reranker.from_scorer(overlap, name="overlap")


@pytest.mark.parametrize("document_text", [titled, ["title"], ("title", "heading"), "title"])
def test_a_title_counts(document_text: Any, ranker: Reranker, overlap: WordOverlap) -> None:
    given = [document.model_copy() for document in DOCUMENTS]
    assert GPURerank(ranker=ranker).compress_documents(given, QUERY)[0].id == "bolts"
    compressor = GPURerank(ranker=ranker, document_text=document_text)
    overlap.seen.clear()
    for found in (
        compressor.compress_documents(given, QUERY),
        asyncio.run(compressor.acompress_documents(given, QUERY)),
    ):
        assert found[0].id == "wheels"
        assert found[0].page_content == "Tighten to 90 Nm."
        start, stop = found[0].metadata["gpurerank"]["span"]
        assert found[0].page_content[start:stop] == "Tighten to 90 Nm."
    assert given == DOCUMENTS
    seen = overlap.seen[1][1]
    assert seen in ("Torque of wheel nuts: Tighten to 90 Nm.", text_of("Tighten to 90 Nm."))


def text_of(content: str) -> str:
    return f"Torque of wheel nuts\n{content}"


def test_metadata_keys_become_lines(ranker: Reranker, overlap: WordOverlap) -> None:
    keys = ["title", "heading", "page", "absent"]
    GPURerank(ranker=ranker, document_text=keys).compress_documents(DOCUMENTS, QUERY)
    assert [passage for _, passage in overlap.seen] == [
        "Engine bolts\n3\nTighten to 110 Nm.",
        "Torque of wheel nuts\nTighten to 90 Nm.",
        "Care, Oil\nCheck the oil.",
    ]


def test_a_retriever_takes_it(ranker: Reranker) -> None:
    retriever = rerank(
        RunnableLambda(lambda _: DOCUMENTS), top_n=1, ranker=ranker, document_text=["title"]
    )
    assert retriever.invoke(QUERY)[0].id == "wheels"
    assert asyncio.run(retriever.ainvoke(QUERY))[0].id == "wheels"


def test_the_span_of_a_long_document_counts_in_its_own_text(embedded: Reranker) -> None:
    filler = "The quick brown fox jumps over the lazy dog. " * 200
    content = f"{filler}The torque of wheel nuts is 90 Nm. {filler}"
    document = Document(content, metadata={"title": "A long title " * 20})
    found = GPURerank(ranker=embedded, document_text=["title"]).compress_documents(
        [document], QUERY
    )
    start, stop = found[0].metadata["gpurerank"]["span"]
    assert "torque of wheel nuts" in content[start:stop]
    assert stop - start < len(content) / 2
    plain = GPURerank(ranker=embedded).compress_documents([document], QUERY)
    assert plain[0].metadata["gpurerank"]["span"] == pytest.approx([start, stop], abs=800)


def test_a_text_without_the_content_has_no_span(ranker: Reranker) -> None:
    compressor = GPURerank(ranker=ranker, document_text=lambda d: str(d.metadata["title"]))
    (found,) = compressor.compress_documents(DOCUMENTS[1:2], QUERY)
    assert found.metadata["gpurerank"]["span"] is None
    assert found.metadata["gpurerank"]["score"] > 0.5


def test_wrong_texts_are_refused(ranker: Reranker) -> None:
    async def slow(document: Document) -> str:
        return document.page_content

    with pytest.raises(ValidationError, match="an asynchronous function"):
        GPURerank(ranker=ranker, document_text=slow)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="document_text"):
        GPURerank(ranker=ranker, document_text=3)  # type: ignore[arg-type]
    wrong = GPURerank(ranker=ranker, document_text=lambda document: document.metadata["title"])
    with pytest.raises(InputError, match="returned NoneType for document 2; it must return a"):
        wrong.compress_documents(DOCUMENTS, QUERY)


def test_it_is_pickled_and_dumped(ranker: Reranker) -> None:
    for document_text in (titled, ["title"]):
        compressor = GPURerank(ranker=ranker, document_text=document_text, top_n=1)
        twin = pickle.loads(pickle.dumps(compressor))
        assert twin.compress_documents(DOCUMENTS, QUERY)[0].id == "wheels"
    assert GPURerank(ranker=ranker, document_text="title").model_dump(mode="json")[
        "document_text"
    ] == ["title"]
