"""What a call says reaches the first stage of a rerank: configuration and keywords."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableLambda,
    ensure_config,
)
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from gpurerank import InputError, Reranker
from langchain_gpurerank import GPUEmbeddings, GPURerank, RerankRetriever, rerank
from tests.conftest import WordOverlap
from tests.test_langchain import Recorder

QUERY = "where is the spanner?"
ONLY_X: RunnableConfig = {
    "configurable": {"search": {"k": 6, "filter": lambda d: d.metadata["tenant"] == "x"}}
}


@pytest.fixture(scope="module")
def store(bi_encoder: object) -> InMemoryVectorStore:
    store = InMemoryVectorStore(GPUEmbeddings())
    store.add_documents(
        [
            Document(f"spanner {i} is in drawer {i}", metadata={"tenant": "x" if i % 2 else "y"})
            for i in range(6)
        ]
    )
    return store


@pytest.fixture
def ranker(overlap: WordOverlap) -> Reranker:
    return Reranker.from_scorer(overlap, name="overlap")


@pytest.fixture
def filtered(store: InMemoryVectorStore, ranker: Reranker) -> RerankRetriever:
    """Reranks a retriever whose filter is set by the configuration of a call."""
    base = store.as_retriever(search_kwargs={"k": 6}).configurable_fields(
        search_kwargs=ConfigurableField(id="search")
    )
    return rerank(base, top_n=6, ranker=ranker)


def tenants(documents: list[Document]) -> str:
    return "".join(sorted(document.metadata["tenant"] for document in documents))


def test_a_configured_filter_is_obeyed_however_the_call_is_made(filtered: RerankRetriever) -> None:
    assert tenants(filtered.invoke(QUERY)) == "xxxyyy"
    chain = filtered | RunnableLambda(tenants)
    found = {
        "invoke": tenants(filtered.invoke(QUERY, ONLY_X)),
        "ainvoke": tenants(asyncio.run(filtered.ainvoke(QUERY, ONLY_X))),
        "batch": tenants(filtered.batch([QUERY, QUERY], ONLY_X)[1]),
        "abatch": tenants(asyncio.run(filtered.abatch([QUERY, QUERY], ONLY_X))[1]),
        "stream": tenants(next(iter(filtered.stream(QUERY, ONLY_X)))),
        "astream": tenants(asyncio.run(first_of(filtered.astream(QUERY, ONLY_X)))),
        "with_config": tenants(filtered.with_config(**ONLY_X).invoke(QUERY)),
        "chain": chain.invoke(QUERY, ONLY_X),
        "chain, async": asyncio.run(chain.ainvoke(QUERY, ONLY_X)),
        "chain with_config": chain.with_config(**ONLY_X).batch([QUERY])[0],
        "nested": tenants(RerankRetriever(retriever=filtered).invoke(QUERY, ONLY_X)),
    }
    assert set(found.values()) == {"xxx"}, found


async def first_of(stream: Any) -> Any:
    parts = [part async for part in stream]
    return parts[0]


def test_each_input_of_a_batch_has_its_own_configuration(filtered: RerankRetriever) -> None:
    found = filtered.batch([QUERY, QUERY], [ONLY_X, {}])
    assert [tenants(documents) for documents in found] == ["xxx", "xxxyyy"]


def test_what_can_be_configured_is_declared(filtered: RerankRetriever) -> None:
    assert [spec.id for spec in filtered.config_specs] == ["search"]


def test_a_configurable_rerank_passes_the_configuration_on(filtered: RerankRetriever) -> None:
    wrapped = filtered.configurable_fields(top_n=ConfigurableField(id="top_n"))
    config: RunnableConfig = {"configurable": {**ONLY_X["configurable"], "top_n": 2}}
    assert tenants(wrapped.invoke(QUERY, config)) == "xx"


class Watched(BaseRetriever):
    """A first stage that remembers how it was invoked."""

    seen: list[tuple[RunnableConfig, dict[str, Any]]] = []  # noqa: RUF012 - a pydantic field

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        self.seen.append((ensure_config(config), kwargs))
        return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        self.seen.append((ensure_config(config), kwargs))
        return await super().ainvoke(input, config, **kwargs)

    def _get_relevant_documents(self, query: str, *, run_manager: Any, **_: Any) -> Any:
        return [Document("spanner"), Document("gate")]

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, **_: Any) -> Any:
        return [Document("spanner"), Document("gate")]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_whole_configuration_arrives_and_the_trace_stays_a_tree(
    how: str, ranker: Reranker
) -> None:
    watched, recorder = Watched(seen=[]), Recorder()
    run_id = uuid.uuid4()
    config: RunnableConfig = {
        "tags": ["a tag"],
        "metadata": {"user": 7},
        "run_name": "tenant search",
        "recursion_limit": 7,
        "max_concurrency": 3,
        "configurable": {"tenant": "x"},
        "callbacks": [recorder],
        "run_id": run_id,
    }
    invoke(rerank(watched, ranker=ranker), how, config, filter="f", k=2, top_n=1)
    ((seen, kwargs),) = watched.seen
    assert {key: seen[key] for key in ("recursion_limit", "max_concurrency", "configurable")} == {
        "recursion_limit": 7,
        "max_concurrency": 3,
        "configurable": {"tenant": "x"},
    }
    assert (seen["tags"], seen["metadata"]["user"]) == (["a tag"], 7)
    assert seen["run_name"] == "tenant search"
    assert kwargs == {"filter": "f", "k": 2}
    outer, first, compressor = recorder.started.items()
    assert outer[1] == ("tenant search", None)
    assert first[1] == ("tenant search", outer[0])
    assert compressor[1] == ("GPURerank", outer[0])
    assert "run_id" not in seen
    assert config["callbacks"] == [recorder]


def invoke(retriever: Runnable[Any, Any], how: str, config: RunnableConfig, **kwargs: Any) -> Any:
    if how == "sync":
        return retriever.invoke(QUERY, config, **kwargs)
    return asyncio.run(retriever.ainvoke(QUERY, config, **kwargs))


def test_keywords_reach_a_vector_store(store: InMemoryVectorStore, ranker: Reranker) -> None:
    retriever = rerank(store.as_retriever(), top_n=6, ranker=ranker)
    only_x = {"filter": lambda d: d.metadata["tenant"] == "x", "k": 2}
    assert tenants(retriever.invoke(QUERY, **only_x)) == "xx"
    assert tenants(asyncio.run(retriever.ainvoke(QUERY, **only_x))) == "xx"
    assert tenants(retriever.batch([QUERY], **only_x)[0]) == "xx"
    assert tenants(retriever.bind(**only_x).invoke(QUERY)) == "xx"
    assert tenants(retriever.invoke(QUERY, top_n=1, **only_x)) == "x"


def test_a_first_stage_that_is_no_runnable_is_refused(
    store: InMemoryVectorStore, ranker: Reranker
) -> None:
    def search(query: str) -> list[Document]:
        return []

    with pytest.raises(InputError, match=r"is function, which is no Runnable; wrap it in .*Lambda"):
        rerank(search, ranker=ranker)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"InMemoryVectorStore, .*; give its as_retriever\(\)"):
        rerank(store, ranker=ranker)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"is NoneType, .*; give a retriever"):
        rerank(None, ranker=ranker)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="the first stage is function"):
        RerankRetriever(retriever=search, compressor=GPURerank(ranker=ranker))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([{"page_content": "a"}], "document 0 is dict; give a langchain_core.documents.Document"),
        ([Document("a"), "b"], "document 1 is str; give"),
        ({"documents": []}, "the documents are of type dict"),
        (Document("a"), "the documents are one Document; give a list"),
        (None, "the documents are of type NoneType"),
    ],
)
def test_what_is_no_document_is_refused(returned: Any, message: str, ranker: Reranker) -> None:
    retriever = rerank(RunnableLambda(lambda _: returned), ranker=ranker)
    with pytest.raises(InputError, match=message):
        retriever.invoke(QUERY)
    with pytest.raises(InputError, match=message):
        asyncio.run(retriever.ainvoke(QUERY))
    with pytest.raises(InputError, match=message):
        GPURerank(ranker=ranker).compress_documents(returned, QUERY)
