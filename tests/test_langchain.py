"""The LangChain plugin, in the chains that people build."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_chroma import Chroma
from langchain_classic.retrievers.contextual_compression import ContextualCompressionRetriever
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError

from gpurerank import Cascade, GPURerankError, InputError, MemoryStore, Reranker
from gpurerank.engine.registry import REGISTRY
from langchain_gpurerank import (
    GPUCrossEncoder,
    GPUEmbeddings,
    GPURerank,
    RerankRetriever,
    rerank,
)
from tests.conftest import WordOverlap

TEXTS = [
    "subprocess.run executes a command and returns its output",
    "heapq.merge merges several sorted inputs into one",
    "difflib compares two files and shows the differences",
    "the quick brown fox jumps over the lazy dog",
    "pathlib walks through folders",
    "json writes and reads data",
]


@pytest.fixture(scope="module")
def store(bi_encoder: object) -> InMemoryVectorStore:
    documents = [
        Document(text, id=f"id{i}", metadata={"page": i, "nested": {"a": [1]}})
        for i, text in enumerate(TEXTS)
    ]
    store = InMemoryVectorStore(GPUEmbeddings())
    store.add_documents(documents)
    return store


@pytest.fixture
def retriever(store: InMemoryVectorStore, embedded: object) -> BaseRetriever:
    return store.as_retriever(search_kwargs={"k": 6})


class Recorder(BaseCallbackHandler):
    """Remembers the runs of a trace."""

    def __init__(self) -> None:
        self.started: dict[Any, tuple[str, Any]] = {}
        self.ended: dict[Any, Any] = {}
        self.failed: dict[Any, BaseException] = {}

    def on_chain_start(self, serialized: Any, inputs: Any, **run: Any) -> None:
        self.started[run["run_id"]] = (run.get("name") or "", run.get("parent_run_id"))

    def on_retriever_start(self, serialized: Any, query: str, **run: Any) -> None:
        self.started[run["run_id"]] = (run.get("name") or "", run.get("parent_run_id"))

    def on_chain_end(self, outputs: Any, **run: Any) -> None:
        self.ended[run["run_id"]] = outputs

    def on_chain_error(self, error: BaseException, **run: Any) -> None:
        self.failed[run["run_id"]] = error

    def run(self, name: str) -> Any:
        return next(run_id for run_id, (found, _) in self.started.items() if found == name)


def test_one_line_reranks(retriever: BaseRetriever) -> None:
    found = rerank(retriever, top_n=2).invoke("how can I run a shell command?")
    assert len(found) == 2
    assert found[0].page_content == TEXTS[0]
    assert found[0].id == "id0"
    assert found[0].metadata["page"] == 0
    score = found[0].metadata["relevance_score"]
    assert type(score) is float
    assert score > found[1].metadata["relevance_score"]
    told = found[0].metadata["gpurerank"]
    assert told["rank"] == 1
    assert told["score"] == score
    assert told["model"] == "embedded"
    json.dumps([document.metadata for document in found])


async def test_async_gives_the_same(retriever: BaseRetriever) -> None:
    wrapped = rerank(retriever, top_n=3)
    query = "compare two files"
    assert_same(await wrapped.ainvoke(query), wrapped.invoke(query))
    batches = await wrapped.abatch([query, "merge sorted lists"])
    for found, wanted in zip(batches, wrapped.batch([query, "merge sorted lists"]), strict=True):
        assert_same(found, wanted)


def assert_same(found: list[Document], wanted: list[Document]) -> None:
    """Equal documents in the same order; who shared a batch may move a score's last bits."""
    assert [plain(document) for document in found] == [plain(document) for document in wanted]
    for one, other in zip(found, wanted, strict=True):
        score = pytest.approx(other.metadata["relevance_score"], abs=1e-5)
        assert one.metadata["relevance_score"] == score


def plain(document: Document) -> tuple[object, ...]:
    told = document.metadata["gpurerank"]
    return document.id, document.page_content, told["rank"], told["index"], told["span"]


def test_input_documents_are_unchanged(embedded: object) -> None:
    documents = [Document(t, id=str(i), metadata={"a": {"b": i}}) for i, t in enumerate(TEXTS)]
    before = copy.deepcopy(documents)
    first = GPURerank(top_n=3).compress_documents(documents, "merge sorted lists")
    assert documents == before
    again = GPURerank(top_n=3).compress_documents(first, "merge sorted lists")
    assert [d.page_content for d in again] == [d.page_content for d in first]
    assert [d.metadata["relevance_score"] for d in again] == pytest.approx(
        [d.metadata["relevance_score"] for d in first], abs=1e-3
    )
    earlier = [d.metadata["gpurerank"]["previous_score"] for d in again]
    assert earlier == [d.metadata["relevance_score"] for d in first]


def test_contextual_compression_retriever(retriever: BaseRetriever) -> None:
    chain = ContextualCompressionRetriever(
        base_compressor=GPURerank(top_n=2), base_retriever=retriever
    )
    assert chain.invoke("compare two files")[0].page_content == TEXTS[2]
    found = asyncio.run(chain.ainvoke("compare two files"))
    assert found[0].page_content == TEXTS[2]


def test_lcel_chain(retriever: BaseRetriever) -> None:
    prompt = ChatPromptTemplate.from_template("{context}\n\nQuestion: {question}")
    joined = RunnableLambda(lambda documents: "\n".join(d.page_content for d in documents))
    chain = {
        "context": rerank(retriever, top_n=1) | joined,
        "question": RunnablePassthrough(),
    } | prompt
    messages = chain.invoke("merge several sorted lists").to_messages()
    assert TEXTS[1] in messages[0].text
    assert TEXTS[3] not in messages[0].text


def test_chroma_vector_store(tmp_path: Path, embedded: object, bi_encoder: object) -> None:
    chroma = Chroma("docs", GPUEmbeddings(), persist_directory=str(tmp_path))
    chroma.add_texts(TEXTS, ids=[f"id{i}" for i in range(len(TEXTS))])
    wrapped = rerank(chroma.as_retriever(search_kwargs={"k": 6}), top_n=2)
    found = wrapped.invoke("run a command")
    assert found[0].id == "id0"
    assert asyncio.run(wrapped.ainvoke("run a command"))[0].id == "id0"


def test_rerank_is_a_child_run_with_stage_times(retriever: BaseRetriever) -> None:
    recorder = Recorder()
    rerank(retriever, top_n=1).invoke("run a command", {"callbacks": [recorder]})
    run_id = recorder.run("GPURerank")
    parent = recorder.started[run_id][1]
    assert recorder.started[parent][0] == "RerankRetriever"
    outputs = recorder.ended[run_id]
    assert outputs["model"] == "embedded"
    assert outputs["stages_ms"]["model"] > 0
    assert outputs["documents"][0].page_content == TEXTS[0]


async def test_async_rerank_is_a_child_run(retriever: BaseRetriever) -> None:
    recorder = Recorder()
    await rerank(retriever, top_n=1).ainvoke("run a command", {"callbacks": [recorder]})
    assert recorder.ended[recorder.run("GPURerank")]["stages_ms"]["model"] > 0


def test_failure_ends_its_run(retriever: BaseRetriever) -> None:
    class Broken:
        def score_pairs(self, pairs: Any) -> list[float]:
            raise RuntimeError("gone")

    recorder = Recorder()
    compressor = GPURerank(ranker=Reranker.from_scorer(Broken(), name="broken"))
    with pytest.raises(RuntimeError, match="gone"):
        compressor.compress_documents([Document("a")], "q", [recorder])
    assert str(recorder.failed[recorder.run("GPURerank")]) == "gone"


def test_kept_order_is_marked() -> None:
    class Broken:
        def score_pairs(self, pairs: Any) -> list[float]:
            raise RuntimeError("gone")

    ranker = Reranker.from_scorer(Broken(), name="broken", on_error="keep_order")
    documents = [Document(text) for text in TEXTS]
    kept = GPURerank(ranker=ranker, top_n=2).compress_documents(documents, "q")
    assert [d.page_content for d in kept] == TEXTS[:2]
    assert "relevance_score" not in kept[0].metadata
    assert kept[0].metadata["gpurerank"]["error"] == "RuntimeError: gone"


@pytest.mark.parametrize(
    ("earlier", "kept"), [(0.25, 0.25), (1, 1.0), (np.float32(0.5), 0.5), ("high", None)]
)
def test_a_kept_order_shows_no_score_of_an_earlier_stage(earlier: object, kept: object) -> None:
    class Broken:
        def score_pairs(self, pairs: Any) -> list[float]:
            raise RuntimeError("gone")

    ranker = Reranker.from_scorer(Broken(), name="broken", on_error="keep_order")
    given = [Document("a", metadata={"relevance_score": earlier})]
    (found,) = GPURerank(ranker=ranker).compress_documents(given, "q")
    assert "relevance_score" not in found.metadata
    assert found.metadata["gpurerank"]["previous_score"] == kept
    assert type(found.metadata["gpurerank"]["previous_score"]) is type(kept)
    assert given[0].metadata == {"relevance_score": earlier}


def test_threshold_and_empty_input(overlap: WordOverlap) -> None:
    ranker = Reranker.from_scorer(overlap, name="overlap")
    documents = [Document(text) for text in TEXTS]
    assert GPURerank(ranker=ranker, threshold=0.9).compress_documents(documents, "zebra") == []
    assert GPURerank(ranker=ranker).compress_documents([], "zebra") == []
    with pytest.raises(InputError, match="the query is blank"):
        GPURerank(ranker=ranker).compress_documents(documents, "")


def test_any_ranker_serves(overlap: WordOverlap) -> None:
    stage = Reranker.from_scorer(overlap, name="overlap")
    compressor = GPURerank(ranker=Cascade(stage, stage, candidates=3), top_n=1)
    found = compressor.compress_documents([Document(t) for t in TEXTS], "compares two files")
    assert found[0].page_content == TEXTS[2]
    assert found[0].metadata["gpurerank"]["model"] == "overlap"


def test_wrong_arguments_are_refused(retriever: BaseRetriever) -> None:
    with pytest.raises(ValidationError, match="top_m"):
        rerank(retriever, top_m=3)  # type: ignore[call-arg]
    with pytest.raises(GPURerankError, match="'embedded'"):
        rerank(retriever, model="nobody/has-this-model")


def test_limits_are_checked_at_once_and_models_are_fixed(overlap: WordOverlap) -> None:
    with pytest.raises(ValidationError, match="top_n"):
        GPURerank(top_n=-1)
    with pytest.raises(ValidationError, match="threshold"):
        GPURerank(threshold=float("nan"))
    compressor = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"), top_n=3)
    compressor.top_n = 2
    assert len(compressor.compress_documents([Document(t) for t in TEXTS], "files")) == 2
    with pytest.raises(ValidationError, match="frozen"):
        compressor.model = "another"


def test_retriever_follows_its_compressor(store: InMemoryVectorStore, embedded: object) -> None:
    first = store.as_retriever(search_kwargs={"k": 6})
    wrapped = RerankRetriever(retriever=first, compressor=GPURerank(top_n=6))
    assert len(wrapped.invoke("run a command")) == 6
    assert len(wrapped.invoke("run a command", top_n=1)) == 1


def test_plugins_are_copied_and_pickled(overlap: WordOverlap) -> None:
    documents = [Document(text) for text in TEXTS]
    ranker = Reranker.from_scorer(overlap, name="overlap", cache=MemoryStore())
    for compressor in (GPURerank(top_n=1), GPURerank(top_n=1, ranker=ranker)):
        expected = compressor.compress_documents(documents, "compares two files")
        for twin in (copy.deepcopy(compressor), pickle.loads(pickle.dumps(compressor))):
            assert twin.compress_documents(documents, "compares two files") == expected


def test_all_adapters_share_one_model(retriever: BaseRetriever) -> None:
    before = REGISTRY.loaded()
    kept = [rerank(retriever), GPURerank(), GPUCrossEncoder(), GPUEmbeddings()]
    assert REGISTRY.loaded() == before
    assert len(kept) == 4


def test_cross_encoder_scores(embedded: Reranker) -> None:
    pairs = [("run a command", text) for text in TEXTS]
    scores = GPUCrossEncoder().score(pairs)
    assert scores == embedded.score_pairs(pairs)
    assert {type(score) for score in scores} == {float}


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return GPUEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "embedded"}


class TestEmbeddingsIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return GPUEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "embedded"}


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _first_stage(self, store: InMemoryVectorStore, embedded: object) -> None:
        type(self).first_stage = store.as_retriever(search_kwargs={"k": 6})

    first_stage: BaseRetriever

    @property
    def retriever_constructor(self) -> type[RerankRetriever]:
        return RerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": self.first_stage}

    @property
    def retriever_query_example(self) -> str:
        return "run a command"

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"
