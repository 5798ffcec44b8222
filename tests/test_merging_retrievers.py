"""Retrievers that merge results, around and inside a rerank: one document stays one document."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from langchain_classic.retrievers import EnsembleRetriever, MultiQueryRetriever
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumpd
from langchain_core.retrievers import BaseRetriever as LangChainRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms.mock import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.schema import Document as IndexDocument

from gpurerank import Reranker
from langchain_gpurerank import GPUEmbeddings, GPURerank, rerank
from llamaindex_gpurerank import GPUEmbedding
from llamaindex_gpurerank import GPURerank as NodeReranker
from tests.conftest import WordOverlap
from tests.test_langchain import TEXTS

QUERIES = ["how can I run a command?", "compare two files", "merge sorted inputs"]


@pytest.fixture
def ranker(overlap: WordOverlap) -> Reranker:
    return Reranker.from_scorer(overlap, name="overlap")


@pytest.fixture(scope="module")
def first_stage(bi_encoder: object) -> LangChainRetriever:
    store = InMemoryVectorStore(GPUEmbeddings())
    store.add_documents(
        [Document(text, id=f"id{i}", metadata={"source": i}) for i, text in enumerate(TEXTS)]
    )
    return store.as_retriever(search_kwargs={"k": 6})


def multi_query(retriever: LangChainRetriever) -> MultiQueryRetriever:
    model = FakeListChatModel(responses=["\n".join(QUERIES[1:])])
    return MultiQueryRetriever.from_llm(retriever, model, include_original=True)


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


async def test_multi_query_around_a_rerank_gives_each_document_once(
    first_stage: LangChainRetriever, ranker: Reranker
) -> None:
    bare = multi_query(first_stage).invoke(QUERIES[0])
    around = multi_query(rerank(first_stage, top_n=6, ranker=ranker))
    for found in (around.invoke(QUERIES[0]), await around.ainvoke(QUERIES[0])):
        assert sorted(map(str, ids(found))) == sorted(map(str, ids(bare)))
        for document in found:
            score = document.metadata["relevance_score"]
            assert document.metadata["gpurerank"]["score"] == score


def test_multi_query_inside_a_rerank_gives_the_same_documents(
    first_stage: LangChainRetriever, ranker: Reranker
) -> None:
    inner = multi_query(rerank(first_stage, top_n=6, ranker=ranker))
    found = rerank(inner, top_n=6, ranker=ranker).invoke(QUERIES[1])
    assert sorted(map(str, ids(found))) == [f"id{i}" for i in range(6)]
    assert found[0].id == "id2"
    earlier = [document.metadata["gpurerank"]["previous_score"] for document in found]
    assert None not in earlier


@pytest.mark.parametrize("id_key", [None, "source"])
def test_an_ensemble_sees_one_document(
    first_stage: LangChainRetriever, ranker: Reranker, id_key: str | None
) -> None:
    reranked = rerank(first_stage, top_n=6, ranker=ranker)
    bare = EnsembleRetriever(retrievers=[first_stage, first_stage], id_key=id_key)
    around = EnsembleRetriever(retrievers=[reranked, first_stage], id_key=id_key)
    assert sorted(map(str, ids(around.invoke(QUERIES[0])))) == sorted(
        map(str, ids(bare.invoke(QUERIES[0])))
    )
    inside = rerank(bare, top_n=2, ranker=ranker).invoke(QUERIES[1])
    assert inside[0].id == "id2"


def test_ranked_documents_compare_as_the_documents_they_are(ranker: Reranker) -> None:
    given = [Document(text, metadata={"source": i}) for i, text in enumerate(TEXTS)]
    reranker = GPURerank(ranker=ranker, top_n=None)
    one, other = (
        sorted(reranker.compress_documents(given, query), key=lambda d: d.metadata["source"])
        for query in QUERIES[:2]
    )
    assert [d.metadata["relevance_score"] for d in one] != [
        d.metadata["relevance_score"] for d in other
    ]
    assert one == other == given
    assert given == one
    assert not one[0] != given[0]
    assert one[0] != one[1]
    assert one[0] != Document(TEXTS[0], metadata={"source": 7})
    assert one[0].metadata != ["not", "metadata"]
    assert copy.deepcopy(one) == given


def test_a_ranked_document_is_an_ordinary_document_when_it_is_stored(ranker: Reranker) -> None:
    (found,) = GPURerank(ranker=ranker).compress_documents([Document(TEXTS[0])], QUERIES[0])
    assert type(found) is Document
    dumped = json.loads(json.dumps(dumpd(found)))["kwargs"]
    assert dumped["metadata"]["relevance_score"] == found.metadata["relevance_score"]
    assert Document.model_validate_json(found.model_dump_json()).metadata == dict(found.metadata)


def test_provenance_can_be_left_out(ranker: Reranker) -> None:
    given = [Document(text, metadata={"source": i}) for i, text in enumerate(TEXTS)]
    compressor = GPURerank(ranker=ranker, top_n=2, provenance="none")
    found = compressor.compress_documents(given, QUERIES[1])
    assert found[0].page_content == TEXTS[2]
    assert dict(found[0].metadata) == {"source": 2}
    assert dumpd(found[0]) == dumpd(given[2])


class RerankedRetriever(BaseRetriever):
    """A LlamaIndex retriever whose nodes are reranked for each query."""

    def __init__(self, retriever: BaseRetriever, reranker: NodeReranker) -> None:
        super().__init__()
        self._retriever = retriever
        self._reranker = reranker

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._reranker.postprocess_nodes(
            self._retriever.retrieve(query_bundle), query_bundle
        )


class Queries(MockLLM):
    """A language model that makes further queries."""

    def complete(self, *_: Any, **__: Any) -> Any:
        from llama_index.core.llms import CompletionResponse

        return CompletionResponse(text="\n".join(QUERIES[1:]))


@pytest.fixture(scope="module")
def node_retriever(bi_encoder: object) -> BaseRetriever:
    nodes = [TextNode(text=text, id_=f"n{i}", metadata={"page": i}) for i, text in enumerate(TEXTS)]
    index = VectorStoreIndex(nodes, embed_model=GPUEmbedding())
    return index.as_retriever(similarity_top_k=6)


@pytest.mark.parametrize(
    "mode", ["simple", "reciprocal_rerank", "relative_score", "dist_based_score"]
)
def test_query_fusion_around_a_rerank_gives_each_node_once(
    node_retriever: BaseRetriever, ranker: Reranker, mode: Any
) -> None:
    reranked = RerankedRetriever(node_retriever, NodeReranker(ranker=ranker, top_n=None))
    found = fusion([reranked, node_retriever], mode).retrieve(QUERIES[0])
    bare = fusion([node_retriever, node_retriever], mode).retrieve(QUERIES[0])
    assert sorted(n.node_id for n in found) == sorted(n.node_id for n in bare)
    assert len(found) == 6


def fusion(retrievers: list[BaseRetriever], mode: Any) -> QueryFusionRetriever:
    return QueryFusionRetriever(
        retrievers, llm=Queries(), mode=mode, num_queries=3, similarity_top_k=20, use_async=False
    )


def test_query_fusion_inside_a_rerank(node_retriever: BaseRetriever, ranker: Reranker) -> None:
    inner = fusion([node_retriever], "simple")
    reranker = NodeReranker(ranker=ranker, top_n=6)
    found = reranker.postprocess_nodes(inner.retrieve(QUERIES[0]), query_str=QUERIES[1])
    assert sorted(node.node_id for node in found) == [f"n{i}" for i in range(6)]
    assert found[0].node_id == "n2"


@pytest.mark.parametrize("kind", [TextNode, IndexDocument, IndexNode, ImageNode])
def test_reranking_leaves_hash_and_id_of_every_kind_of_node(
    kind: type[Any], ranker: Reranker
) -> None:
    extra = {"index_id": "other"} if kind is IndexNode else {}
    given: BaseNode = kind(text=TEXTS[0], id_="n0", metadata={"page": 1}, **extra)
    (found,) = NodeReranker(ranker=ranker).postprocess_nodes([given], query_str=QUERIES[0])
    assert type(found.node) is kind
    assert (found.node.hash, found.node.node_id) == (given.hash, "n0")
    assert found.node == given


def test_the_provenance_of_a_node_is_reached_by_its_key_alone(ranker: Reranker) -> None:
    given = TextNode(text=TEXTS[0], metadata={"page": 1})
    (found,) = NodeReranker(ranker=ranker).postprocess_nodes([given], query_str=QUERIES[0])
    metadata = found.node.metadata
    assert metadata["gpurerank"]["score"] == found.score
    assert metadata.get("gpurerank") is metadata["gpurerank"]
    assert "gpurerank" in metadata
    assert (metadata.get("page"), metadata.get("absent", "default")) == (1, "default")
    assert dict(metadata) == {"page": 1}
    assert json.loads(json.dumps(found.to_dict()))["node"]["metadata"] == {"page": 1}
    with pytest.raises(KeyError, match="absent"):
        metadata["absent"]
    for twin in (copy.copy(found), copy.deepcopy(found)):
        assert twin.node.metadata["gpurerank"] == metadata["gpurerank"]
    found.node.embedding = [1.0]
    assert "gpurerank" in found.node.metadata
