"""Retrievers of LangChain and LlamaIndex, evaluated by questions with relevant ids."""

from __future__ import annotations

from pathlib import Path

import chromadb
import pytest
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_core.documents import Document as LangChainDocument
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms.mock import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import QueryBundle, TextNode

import langchain_gpurerank
import llamaindex_gpurerank
from gpurerank import BiEncoder, InputError, Reranker
from gpurerank.evaluation import EvalOptions, QuerySet, evaluate
from tests.conftest import WordOverlap
from tests.test_cli_eval import FACTS, QUESTIONS

RELEVANT_IDS = [(question, {answer}) for question, answer in QUESTIONS.values()]


@pytest.fixture
def chroma(tmp_path: Path, bi_encoder: BiEncoder) -> Chroma:
    documents = [
        LangChainDocument(text, id=f"chunk-{name}", metadata={"source": name})
        for name, text in FACTS.items()
    ]
    client = chromadb.PersistentClient(str(tmp_path), Settings(anonymized_telemetry=False))
    return Chroma.from_documents(documents, langchain_gpurerank.GPUEmbeddings(), client=client)


def test_a_langchain_retriever_and_its_reranked_chain_are_evaluated(
    chroma: Chroma, embedded: Reranker
) -> None:
    retriever = chroma.as_retriever(search_kwargs={"k": 4})
    search = langchain_gpurerank.as_search(retriever, id_key="source")
    queries = QuerySet.from_search(
        search, RELEVANT_IDS, depth=4, name="facts", first_stage="Chroma"
    )
    assert [len(query.candidates) for query in queries.queries] == [4] * 4
    reranked = langchain_gpurerank.rerank(retriever, top_n=2, ranker=embedded)
    evaluation = evaluate(
        queries,
        {
            "cross-encoder": embedded,
            "chain": langchain_gpurerank.as_search(reranked, id_key="source"),
        },
        EvalOptions(depth=4),
    )
    ranker, chain = evaluation.at("cross-encoder", 4), evaluation.at("chain", 4)
    assert ranker is not None
    assert chain is not None
    # The chain keeps the first two passages of the same ranking.
    assert chain.values["Success@1"] == ranker.values["Success@1"]
    assert ranker.mean("Success@5") == 1.0
    assert evaluation.first_stage == "Chroma"


def test_ids_of_langchain_documents_come_from_the_id_or_the_given_key(chroma: Chroma) -> None:
    retriever = chroma.as_retriever(search_kwargs={"k": 1})
    (result,) = langchain_gpurerank.as_search(retriever)("merge sorted lists")
    assert result == ("chunk-merge", FACTS["merge"], 0.0)
    with pytest.raises(InputError, match=r"no metadata\['page'\].*'source'"):
        langchain_gpurerank.as_search(retriever, id_key="page")("merge")


@pytest.fixture
def index(bi_encoder: BiEncoder) -> VectorStoreIndex:
    documents = [Document(text=text, doc_id=name) for name, text in FACTS.items()]
    return VectorStoreIndex.from_documents(
        documents,
        embed_model=llamaindex_gpurerank.GPUEmbedding(),
        transformations=[SentenceSplitter(chunk_size=16, chunk_overlap=0)],
    )


def test_a_llamaindex_retriever_and_query_engine_are_evaluated(
    index: VectorStoreIndex, overlap: WordOverlap
) -> None:
    search = llamaindex_gpurerank.as_search(index.as_retriever(similarity_top_k=5))
    queries = QuerySet.from_search(search, RELEVANT_IDS, depth=5, first_stage="index")
    ranker = Reranker.from_scorer(overlap, name="words")
    engine = index.as_query_engine(
        llm=MockLLM(),
        similarity_top_k=5,
        node_postprocessors=[llamaindex_gpurerank.GPURerank(ranker=ranker, top_n=3)],
    )
    contenders = {"words": ranker, "engine": llamaindex_gpurerank.as_search(engine)}
    evaluation = evaluate(queries, contenders, EvalOptions(depth=5))
    words, pipeline = evaluation.at("words", 5), evaluation.at("engine", 5)
    assert words is not None
    assert pipeline is not None
    assert pipeline.values["Success@1"] == words.values["Success@1"]
    assert all(query.reachable for query in evaluation.queries)


def test_ids_of_nodes_come_from_the_document_the_node_or_the_given_key(
    index: VectorStoreIndex,
) -> None:
    retriever = index.as_retriever(similarity_top_k=1)
    (node,) = retriever.retrieve(QueryBundle("compare two files"))
    (result,) = llamaindex_gpurerank.as_search(retriever)("compare two files")
    assert result[0] == "diff"
    assert result[2] == pytest.approx(node.score)
    (node_result,) = llamaindex_gpurerank.as_search(retriever, ids="node")("compare two files")
    assert node_result[0] == node.node_id
    with pytest.raises(InputError, match=r"no metadata\['source'\]"):
        llamaindex_gpurerank.as_search(retriever, id_key="source")("compare")
    single_node = VectorStoreIndex(
        [TextNode(text="a node of its own", id_="n1", metadata={"source": "s"})],
        embed_model=llamaindex_gpurerank.GPUEmbedding(),
    ).as_retriever()
    assert llamaindex_gpurerank.as_search(single_node)("a node")[0][0] == "n1"
    assert llamaindex_gpurerank.as_search(single_node, id_key="source")("a node")[0][0] == "s"
