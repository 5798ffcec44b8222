"""The LlamaIndex plugin, in real engines over a real index."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import pytest
from chromadb.config import Settings as ChromaSettings
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms.mock import MockLLM
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.vector_stores.chroma import ChromaVectorStore
from pydantic import ValidationError

from gpurerank import InputError, Reranker
from gpurerank.engine.registry import REGISTRY
from llamaindex_gpurerank import GPUEmbedding, GPURerank
from tests.conftest import WordOverlap
from tests.test_langchain import TEXTS


def nodes(texts: list[str] = TEXTS) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=t, id_=f"n{i}", metadata={"page": i}), score=0.5 - i / 100)
        for i, t in enumerate(texts)
    ]


class Events(BaseEventHandler):
    """Remembers what was dispatched."""

    seen: list[Any] = []  # noqa: RUF012 - a pydantic field

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.seen.append(event)

    def reranks(self) -> list[Any]:
        return [e for e in self.seen if isinstance(e, ReRankStartEvent | ReRankEndEvent)]


@pytest.fixture
def events() -> Iterator[Events]:
    root, handler = get_dispatcher(), Events(seen=[])
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    root, handler = get_dispatcher(), SimpleSpanHandler()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


@pytest.fixture(scope="module")
def index(bi_encoder: object) -> VectorStoreIndex:
    return VectorStoreIndex([n.node for n in nodes()], embed_model=GPUEmbedding())


def test_nodes_are_reranked_as_copies(embedded: object) -> None:
    given = nodes()
    before = copy.deepcopy(given)
    found = GPURerank(top_n=2).postprocess_nodes(given, query_str="run a shell command")
    assert given == before
    assert found[0].node.node_id == "n0"
    assert len(found) == 2
    assert type(found[0].score) is float
    told = found[0].node.metadata["gpurerank"]
    assert told["score"] == found[0].score
    assert told["previous_score"] == 0.5
    assert found[0].node.metadata["page"] == 0
    json.dumps([n.to_dict() for n in found])


def test_what_models_read_is_unchanged_by_reranking(embedded: object) -> None:
    reranker = GPURerank(top_n=3)
    first = reranker.postprocess_nodes(nodes(), query_str="merge sorted lists")
    by_id = {n.node.node_id: n.node for n in nodes()}
    for node in first:
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            original = by_id[node.node.node_id].get_content(metadata_mode=mode)
            assert node.node.get_content(metadata_mode=mode) == original
    again = reranker.postprocess_nodes(first, query_str="merge sorted lists")
    assert [n.node.node_id for n in again] == [n.node.node_id for n in first]
    assert [n.score for n in again] == pytest.approx([n.score for n in first], abs=1e-3)


async def test_async_gives_the_same(embedded: object) -> None:
    reranker = GPURerank(top_n=3)
    sync = reranker.postprocess_nodes(nodes(), query_str="compare files")
    assert await reranker.apostprocess_nodes(nodes(), query_str="compare files") == sync


def test_query_engine_over_an_index(index: VectorStoreIndex, embedded: object) -> None:
    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=6, node_postprocessors=[GPURerank(top_n=2)]
    )
    answer = engine.query("how do I compare two files?")
    assert answer.source_nodes[0].node.node_id == "n2"
    assert len(answer.source_nodes) == 2
    answer = asyncio.run(engine.aquery("how do I compare two files?"))
    assert answer.source_nodes[0].node.node_id == "n2"


def test_chat_engine_over_an_index(index: VectorStoreIndex, embedded: object) -> None:
    engine = index.as_chat_engine(
        chat_mode="context",
        llm=MockLLM(),
        similarity_top_k=6,
        node_postprocessors=[GPURerank(top_n=1)],
    )
    answer = engine.chat("how do I compare two files?")
    assert [n.node.node_id for n in answer.source_nodes] == ["n2"]


def test_chroma_store(tmp_path: Path, embedded: object, bi_encoder: object) -> None:
    client = chromadb.PersistentClient(str(tmp_path), ChromaSettings(anonymized_telemetry=False))
    store = ChromaVectorStore(chroma_collection=client.get_or_create_collection("docs"))
    index = VectorStoreIndex(
        [n.node for n in nodes()],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=GPUEmbedding(),
    )
    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=6, node_postprocessors=[GPURerank(top_n=1)]
    )
    assert engine.query("run a command").source_nodes[0].node.node_id == "n0"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_start_event_has_its_end(how: str, events: Events, overlap: WordOverlap) -> None:
    reranker = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"), top_n=None)
    run(reranker, nodes(), "compares two files", how)
    run(reranker, [], "compares two files", how)
    start, end, start_empty, end_empty = events.reranks()
    assert (start.query.query_str, start.top_n) == ("compares two files", 6)
    assert start.model_name == "overlap"
    assert "gpurerank" not in start.nodes[0].node.metadata
    assert end.nodes[0].node.node_id == "n2"
    assert (start_empty.top_n, end_empty.nodes) == (0, [])


@pytest.mark.parametrize("how", ["sync", "async"])
def test_events_and_spans_end_on_failure(
    how: str, events: Events, spans: SimpleSpanHandler
) -> None:
    class Broken:
        def score_pairs(self, pairs: Any) -> list[float]:
            raise RuntimeError("gone")

    reranker = GPURerank(ranker=Reranker.from_scorer(Broken(), name="broken"))
    with pytest.raises(RuntimeError, match="gone"):
        run(reranker, nodes(), "q", how)
    assert [type(e).__name__ for e in events.reranks()] == ["ReRankStartEvent", "ReRankEndEvent"]
    assert any("postprocess_nodes" in span.id_ for span in spans.dropped_spans)
    assert not spans.open_spans


def test_async_path_has_a_span(spans: SimpleSpanHandler, overlap: WordOverlap) -> None:
    reranker = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"))
    run(reranker, nodes(), "q", "async")
    assert any("_apostprocess_nodes" in span.id_ for span in spans.completed_spans)


def test_legacy_callback_has_start_and_end(overlap: WordOverlap) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    reranker = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"))
    reranker.callback_manager = CallbackManager([debug])
    reranker.postprocess_nodes(nodes(), query_str="files")
    (pair,) = debug.get_event_pairs(CBEventType.RERANKING)
    assert pair[0].payload is not None
    assert pair[0].payload["model_name"] == "overlap"
    assert len(pair) == 2


def test_span_lies_in_the_nodes_own_text(embedded: Reranker) -> None:
    text = " ".join(f"Sentence {i}: {TEXTS[i % 6]}." for i in range(300)) + " "
    given = [NodeWithScore(node=TextNode(text=text, metadata={"title": "A long header " * 5}))]
    (found,) = GPURerank().postprocess_nodes(given, query_str="run a command")
    start, stop = found.node.metadata["gpurerank"]["span"]
    content = given[0].node.get_content(metadata_mode=MetadataMode.EMBED)
    window = embedded.rank("run a command", [content])[0].span
    assert window is not None
    assert 0 < stop - start < len(text) / 3
    assert content[slice(*window)].endswith(text[start:stop].rstrip())
    short = [NodeWithScore(node=TextNode(text="a short node", metadata={"title": "header"}))]
    (found,) = GPURerank().postprocess_nodes(short, query_str="run a command")
    assert found.node.metadata["gpurerank"]["span"] == [0, 12]


def test_a_ranker_is_pickled_or_refused(overlap: WordOverlap) -> None:
    class Local:
        def score_pairs(self, pairs: Any) -> list[float]:
            return [0.5] * len(pairs)

    kept = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"), top_n=1)
    twin = pickle.loads(pickle.dumps(kept))
    found = twin.postprocess_nodes(nodes(), query_str="compares two files")
    assert found == kept.postprocess_nodes(nodes(), query_str="compares two files")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(GPURerank(ranker=Reranker.from_scorer(Local(), name="local")))


def test_kept_order_keeps_the_scores() -> None:
    class Broken:
        def score_pairs(self, pairs: Any) -> list[float]:
            raise RuntimeError("gone")

    ranker = Reranker.from_scorer(Broken(), name="broken", on_error="keep_order")
    kept = GPURerank(ranker=ranker, top_n=2).postprocess_nodes(nodes(), query_str="q")
    assert [(n.node.node_id, n.score) for n in kept] == [("n0", 0.5), ("n1", 0.49)]
    assert kept[0].node.metadata["gpurerank"]["error"] == "RuntimeError: gone"


def test_bare_nodes_are_taken(overlap: WordOverlap) -> None:
    reranker = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"), top_n=1)
    bare: list[Any] = [TextNode(text=text, id_=f"n{i}") for i, text in enumerate(TEXTS)]
    for how in ("sync", "async"):
        (found,) = run(reranker, bare, "compares two files", how)
        assert (type(found), found.node_id) == (NodeWithScore, "n2")
        assert found.node.metadata["gpurerank"]["previous_score"] is None
    with pytest.raises(InputError, match="node 1 is str; give a NodeWithScore or a TextNode"):
        reranker.postprocess_nodes([bare[0], "text"], query_str="q")
    with pytest.raises(InputError, match="the nodes are one TextNode; give a list"):
        reranker.postprocess_nodes(bare[0], query_str="q")


@pytest.mark.parametrize("top_n", [None, 3, 2, 1])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_nodes_without_text_keep_their_place(
    top_n: int | None, how: str, overlap: WordOverlap
) -> None:
    image = NodeWithScore(
        node=ImageNode(image_url="http://a/b.png", id_="image", metadata={"file_path": "b.png"}),
        score=0.25,
    )
    given = [nodes()[0], image, nodes()[1], nodes()[2], NodeWithScore(node=TextNode(id_="blank"))]
    reranker = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"), top_n=top_n)
    found = run(reranker, given, "compares two files", how)
    assert [n.node_id for n in found] == ["n2", "image", "n0", "n1", "blank"][:top_n]
    assert [n.node.metadata["gpurerank"]["rank"] for n in found] == list(range(1, len(found) + 1))
    if top_n != 1:
        provenance = found[1].node.metadata["gpurerank"]
        assert (found[1].score, provenance["score"], provenance["span"]) == (0.25, None, None)
        assert (provenance["error"], provenance["previous_rank"]) == ("the node has no text", 2)
    assert "b.png" not in str(overlap.seen)


def test_a_threshold_leaves_nodes_without_text(overlap: WordOverlap) -> None:
    ranker = Reranker.from_scorer(overlap, name="overlap")
    given = [*nodes(), NodeWithScore(node=TextNode(id_="blank"))]
    for top_n, expected in ((None, ["n2", "blank"]), (3, ["n2"])):
        reranker = GPURerank(ranker=ranker, threshold=0.6, top_n=top_n)
        found = reranker.postprocess_nodes(given, query_str="compares two files")
        assert [node.node_id for node in found] == expected


def test_a_query_bundle_is_handed_on_whole(events: Events, overlap: WordOverlap) -> None:
    bundle = QueryBundle("files", custom_embedding_strs=["other"], embedding=[0.5])
    reranker = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"))
    reranker.postprocess_nodes(nodes(), query_bundle=bundle)
    assert events.reranks()[0].query == bundle
    assert bundle == QueryBundle("files", custom_embedding_strs=["other"], embedding=[0.5])


def test_wrong_arguments_are_refused(overlap: WordOverlap) -> None:
    reranker = GPURerank(ranker=Reranker.from_scorer(overlap, name="overlap"))
    with pytest.raises(InputError, match="there is no query"):
        reranker.postprocess_nodes(nodes())
    with pytest.raises(InputError, match="the query is blank"):
        reranker.postprocess_nodes(nodes(), query_bundle=QueryBundle(""))
    with pytest.raises(ValidationError, match="top_m"):
        GPURerank(top_m=3)
    assert reranker.class_name() == "GPURerank"


def test_embedding_batches_and_awaits(bi_encoder: object) -> None:
    before = REGISTRY.loaded()
    embedding = GPUEmbedding()
    assert REGISTRY.loaded() == before
    together = embedding.get_text_embedding_batch(TEXTS)
    assert len(together) == 6
    assert len(together[0]) == 384
    assert {type(value) for value in together[0]} == {float}
    one = embedding.get_text_embedding(TEXTS[1])
    assert one == pytest.approx(together[1], abs=5e-3)
    assert asyncio.run(embedding.aget_query_embedding("q")) == pytest.approx(
        embedding.get_query_embedding("q"), abs=1e-6
    )
    assert asyncio.run(embedding.aget_text_embedding_batch(TEXTS[:2]))[0] == pytest.approx(
        together[0], abs=5e-3
    )
    assert embedding.class_name() == "GPUEmbedding"


def run(reranker: GPURerank, given: list[NodeWithScore], query: str, how: str) -> Any:
    if how == "sync":
        return reranker.postprocess_nodes(given, query_str=query)
    return asyncio.run(reranker.apostprocess_nodes(given, query_str=query))
