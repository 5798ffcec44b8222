"""What OpenInference's tracers, which Phoenix reads, are told of a rerank."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import LangChainTracer
from llama_index.core.schema import NodeWithScore, TextNode
from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gpurerank import Reranker
from langchain_gpurerank import GPURerank, rerank
from langchain_gpurerank.tracing import RerankRun
from llamaindex_gpurerank import GPURerank as NodeReranker
from tests.conftest import WordOverlap

QUERY = "compares two files"
TEXTS = ["bread and bees", "difflib compares two files", "files"]
SCORES = [0.0, 0.75, 0.25]


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentors = (LangChainInstrumentor(), LlamaIndexInstrumentor())
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=provider)
    yield exporter
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


@pytest.fixture
def ranker(overlap: WordOverlap) -> Reranker:
    return Reranker.from_scorer(overlap, name="overlap")


def finished(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def documents(found: dict[str, Any], which: str, name: str, count: int) -> list[Any]:
    key = f"reranker.{which}_documents"
    assert f"{key}.{count}.document.content" not in found
    return [found.get(f"{key}.{index}.document.{name}") for index in range(count)]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_langchain_rerank_is_a_reranker_span(
    how: str, exporter: InMemorySpanExporter, ranker: Reranker
) -> None:
    given = [
        Document(text, id=f"id{i}", metadata={"page": i, "relevance_score": i / 4})
        for i, text in enumerate(TEXTS)
    ]
    retriever = rerank(RunnableLambda(lambda _: given), top_n=2, ranker=ranker)
    if how == "sync":
        retriever.invoke(QUERY)
    else:
        asyncio.run(retriever.ainvoke(QUERY))
    spans = finished(exporter)
    parent, span = spans["RerankRetriever"].context, spans["GPURerank"]
    assert span.parent is not None
    assert span.parent.span_id == parent.span_id
    found = attributes(span)
    assert found["openinference.span.kind"] == "RERANKER"
    assert found["reranker.query"] == QUERY
    assert (found["reranker.model_name"], found["reranker.top_k"]) == ("overlap", 2)
    assert documents(found, "input", "content", 3) == TEXTS
    assert documents(found, "input", "id", 3) == ["id0", "id1", "id2"]
    assert documents(found, "input", "score", 3) == [0.0, 0.25, 0.5]
    assert documents(found, "output", "content", 2) == [TEXTS[1], TEXTS[2]]
    assert documents(found, "output", "score", 2) == [0.75, 0.25]
    metadata = json.loads(found["reranker.output_documents.0.document.metadata"])
    assert (metadata["page"], metadata["gpurerank"]["previous_rank"]) == (1, 2)
    assert json.loads(found["metadata"])["reranker.model_name"] == "overlap"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_llamaindex_rerank_is_a_reranker_span(
    how: str, exporter: InMemorySpanExporter, ranker: Reranker
) -> None:
    nodes = [
        NodeWithScore(node=TextNode(text=text, id_=f"n{i}"), score=0.5)
        for i, text in enumerate(TEXTS)
    ]
    reranker = NodeReranker(ranker=ranker, top_n=2)
    if how == "sync":
        reranker.postprocess_nodes(iter(nodes), query_str=QUERY)
    else:
        asyncio.run(reranker.apostprocess_nodes(iter(nodes), query_str=QUERY))
    (span,) = exporter.get_finished_spans()
    found = attributes(span)
    assert found["openinference.span.kind"] == "RERANKER"
    assert found["reranker.query"] == QUERY
    assert (found["reranker.model_name"], found["reranker.top_k"]) == ("overlap", 2)
    assert documents(found, "input", "id", 3) == ["n0", "n1", "n2"]
    assert documents(found, "output", "id", 2) == ["n1", "n2"]
    assert documents(found, "output", "score", 2) == [0.75, 0.25]


def test_a_failed_rerank_shows_what_went_in(exporter: InMemorySpanExporter) -> None:
    class Broken:
        def score_pairs(self, pairs: Any) -> list[float]:
            raise RuntimeError("gone")

    compressor = GPURerank(ranker=Reranker.from_scorer(Broken(), name="broken"))
    with pytest.raises(RuntimeError, match="gone"):
        compressor.compress_documents([Document(text) for text in TEXTS], QUERY)
    found = attributes(finished(exporter)["GPURerank"])
    assert documents(found, "input", "content", 3) == TEXTS
    assert (found["reranker.query"], found["reranker.top_k"]) == (QUERY, 5)


class Kinds(BaseCallbackHandler):
    """Remembers the type of each chain run, as a tracer is told."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **run: Any) -> None:
        self.seen.append(run.get("run_type"))


class OfflineLangSmith(LangChainTracer):
    """LangSmith's tracer, which keeps the runs that it would send."""

    def __init__(self) -> None:
        super().__init__(client=cast(Any, object()))
        self.sent: list[str] = []

    def _persist_run_single(self, run: Any) -> None:
        self.sent.append(run.run_type)

    def _update_run_single(self, run: Any) -> None:
        pass


def test_the_run_type_is_one_that_every_tracer_takes(exporter: InMemorySpanExporter) -> None:
    kinds, langsmith = Kinds(), OfflineLangSmith()
    RerankRun(QUERY, [], None, "overlap").start([kinds]).on_chain_end({})
    assert kinds.seen == ["reranker"]
    RerankRun(QUERY, [], None, "overlap").start([kinds, langsmith]).on_chain_end({})
    assert kinds.seen == ["reranker", None]
    assert langsmith.sent == ["chain"]
    spans = [attributes(span) for span in exporter.get_finished_spans()]
    assert [span["openinference.span.kind"] for span in spans] == ["RERANKER", "CHAIN"]
    assert [span["reranker.query"] for span in spans] == [QUERY, QUERY]


def test_without_openinference_the_run_is_a_chain() -> None:
    kinds = Kinds()
    RerankRun(QUERY, [], None, "overlap").start([kinds]).on_chain_end({})
    assert kinds.seen == [None]
