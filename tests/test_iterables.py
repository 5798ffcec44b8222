"""Every public door reads what it is given once: a generator counts like a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.schema import NodeWithScore, TextNode

from gpurerank import (
    BiEncoder,
    Cascade,
    CrossEncoder,
    Fusion,
    InputError,
    RemoteEmbedder,
    RemoteScorer,
    Reranker,
)
from gpurerank.chroma import GPUEmbeddingFunction
from langchain_gpurerank import GPUCrossEncoder, GPUEmbeddings, GPURerank, rerank
from llamaindex_gpurerank import GPUEmbedding
from llamaindex_gpurerank import GPURerank as NodeReranker
from tests.fake_server import serving, speaking

QUERY = "where is the spanner?"
PASSAGES = ["spanners are in the drawer", "lunch is at noon", "the gate is locked"]
PAIRS = [(QUERY, passage) for passage in PASSAGES]
NODES = [TextNode(text=text, id_=str(index)) for index, text in enumerate(PASSAGES)]

Door = Callable[[Any], Any]


@pytest.fixture(scope="module")
def remote() -> Iterator[str]:
    with serving(speaking("gpurerank")) as server:
        yield server.url


@pytest.fixture(scope="module")
def doors(embedded: Reranker, bi_encoder: BiEncoder, remote: str) -> Iterator[dict[str, Door]]:
    """Each public method that takes several items, as a function of those items."""
    with ExitStack() as closing:
        scorer = closing.enter_context(RemoteScorer(remote))
        embedder = closing.enter_context(RemoteEmbedder(remote))
        encoder = CrossEncoder()
        closing.callback(encoder.close)
        cascade, fusion = Cascade(bi_encoder, embedded), Fusion([bi_encoder, embedded])
        yield {
            **_pair_doors(embedded, encoder, scorer),
            **_passage_doors(embedded, bi_encoder, cascade, fusion),
            **_text_doors(bi_encoder, embedder),
            **_plugin_doors(),
        }


def _pair_doors(*scorers: Any) -> dict[str, Door]:
    doors: dict[str, Door] = {"GPUCrossEncoder.score": GPUCrossEncoder().score}
    for scorer in scorers:
        doors[f"{type(scorer).__name__}.score_pairs"] = scorer.score_pairs
        doors[f"{type(scorer).__name__}.ascore_pairs"] = awaited(scorer.ascore_pairs)
    doors["CrossEncoder.logits"] = scorers[1].logits
    doors["CrossEncoder.alogits"] = awaited(scorers[1].alogits)
    return doors


def _passage_doors(*rankers: Any) -> dict[str, Door]:
    doors: dict[str, Door] = {}
    for ranker in rankers:
        name = type(ranker).__name__
        doors[f"{name}.rank"] = lambda items, ranker=ranker: ranker.rank(QUERY, items)
        doors[f"{name}.arank"] = awaited(lambda items, ranker=ranker: ranker.arank(QUERY, items))
    return doors


def _text_doors(*embedders: Any) -> dict[str, Door]:
    langchain, llama_index, chroma = GPUEmbeddings(), GPUEmbedding(), GPUEmbeddingFunction()
    doors: dict[str, Door] = {
        "GPUEmbeddings.embed_documents": langchain.embed_documents,
        "GPUEmbeddings.aembed_documents": awaited(langchain.aembed_documents),
        "GPUEmbedding.get_text_embedding_batch": llama_index.get_text_embedding_batch,
        "GPUEmbedding.aget_text_embedding_batch": awaited(llama_index.aget_text_embedding_batch),
        "GPUEmbeddingFunction.__call__": chroma,
        "GPUEmbeddingFunction.embed_query": chroma.embed_query,
    }
    for embedder in embedders:
        for method in ("embed_queries", "embed_passages"):
            doors[f"{type(embedder).__name__}.{method}"] = getattr(embedder, method)
            waiting = getattr(embedder, f"a{method}")
            doors[f"{type(embedder).__name__}.a{method}"] = awaited(waiting)
    return doors


def _plugin_doors() -> dict[str, Door]:
    compressor, postprocessor, embedding = GPURerank(), NodeReranker(), GPUEmbedding()
    return {
        "GPURerank.compress_documents": lambda d: compressor.compress_documents(d, QUERY),
        "GPURerank.acompress_documents": awaited(
            lambda d: compressor.acompress_documents(d, QUERY)
        ),
        "rerank.invoke": lambda d: first_stage(d).invoke(QUERY),
        "rerank.ainvoke": awaited(lambda d: first_stage(d).ainvoke(QUERY)),
        "GPURerank.postprocess_nodes": lambda n: postprocessor.postprocess_nodes(
            n, query_str=QUERY
        ),
        "GPURerank.apostprocess_nodes": awaited(
            lambda n: postprocessor.apostprocess_nodes(n, query_str=QUERY)
        ),
        "GPUEmbedding.__call__": embedding,
        "GPUEmbedding.acall": awaited(embedding.acall),
    }


def awaited(method: Callable[[Any], Any]) -> Door:
    return lambda items: asyncio.run(method(items))


def first_stage(documents: Any) -> Any:
    return rerank(RunnableLambda(lambda _: documents))


def items_of(name: str) -> list[Any]:
    if "pairs" in name or "logits" in name or "score" in name:
        return list(PAIRS)
    if "compress" in name or "invoke" in name:
        return [Document(text) for text in PASSAGES]
    if "nodes" in name:
        return [NodeWithScore(node=node) for node in NODES]
    if name in ("GPUEmbedding.__call__", "GPUEmbedding.acall"):
        return [node.model_copy() for node in NODES]
    return list(PASSAGES)


def test_a_generator_counts_like_a_list(doors: dict[str, Door]) -> None:
    assert len(doors) == 39
    for name, door in doors.items():
        items = items_of(name)
        for once in (iter(items), filter(None, items), (item for item in items)):
            assert plain(door(once)) == plain(door(items)), name


def plain(results: Any) -> list[Any]:
    """Results without what a batch's neighbours may move: the last bits of a number."""
    assert len(results) == len(PASSAGES)
    if isinstance(results[0], Document):
        return [document.page_content for document in results]
    if isinstance(results[0], NodeWithScore):
        return [node.node.node_id for node in results]
    if isinstance(results[0], TextNode):
        return [np.round(node.embedding, 2).tolist() for node in results]
    if hasattr(results[0], "passage"):
        return [passage.passage for passage in results]
    return (np.round(np.asarray(results, dtype=np.float64), 2) + 0.0).tolist()


async def never() -> AsyncIterator[str]:
    yield "nothing reads this"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (never, r"an asynchronous iterator \(async_generator\); collect it first"),
        (lambda: {"a": "b"}, "of type dict"),
        (lambda: b"bytes", "of type bytes"),
        (lambda: None, "of type NoneType"),
        (lambda: 3, "of type int"),
        (lambda: "text", "one string; give a list of"),
        (lambda: [3], "is int"),
    ],
)
def test_what_is_no_list_is_refused(
    doors: dict[str, Door], items: Callable[[], Any], message: str
) -> None:
    for name, door in doors.items():
        with pytest.raises(InputError, match=message):
            raise AssertionError(f"{name} returned {door(items())!r}")


def test_a_failure_inside_an_iterator_is_the_callers(embedded: Reranker) -> None:
    def failing() -> Iterator[str]:
        yield "one"
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        embedded.rank(QUERY, failing())
