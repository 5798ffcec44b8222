"""A retriever or query engine as ``gpurerank.evaluation`` takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from gpurerank import InputError


def as_search(
    source: BaseRetriever | BaseQueryEngine,
    *,
    ids: Literal["document", "node"] = "document",
    id_key: str | None = None,
) -> Callable[[str], list[tuple[str, str, float]]]:
    """A function from a question to (id, text, score) of each node found, best first.

    Args:
        source: A retriever, or a query engine: what it retrieves after its postprocessors, without
            writing an answer where it can retrieve alone.
        ids: What judgements name: the documents that nodes were cut from (the node itself where it
            was cut from none), or the nodes.
        id_key: Where in the metadata that id stands instead.

    Returns:
        The function; a node without a score has 0.

    Raises:
        InputError: When it is called: a node has no such id.
    """

    def search(question: str) -> list[tuple[str, str, float]]:
        return [
            (
                _id(found.node, ids, id_key),
                found.node.get_content(metadata_mode=MetadataMode.EMBED),
                float(found.score or 0.0),
            )
            for found in _retrieved(source, question)
        ]

    return search


def _retrieved(source: BaseRetriever | BaseQueryEngine, question: str) -> Sequence[NodeWithScore]:
    try:
        return source.retrieve(QueryBundle(question))
    except NotImplementedError:
        # An engine of many engines retrieves only on the way to an answer.
        if not isinstance(source, BaseQueryEngine):
            raise
        return source.query(question).source_nodes


def _id(node: BaseNode, ids: Literal["document", "node"], id_key: str | None) -> str:
    if id_key is not None:
        if id_key not in node.metadata:
            keys = ", ".join(map(repr, node.metadata)) or "none"
            raise InputError(f"node {node.node_id!r} has no metadata[{id_key!r}]; it has {keys}")
        return str(node.metadata[id_key])
    return (node.ref_doc_id or node.node_id) if ids == "document" else node.node_id
