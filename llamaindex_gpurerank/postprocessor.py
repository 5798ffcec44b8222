"""The node postprocessor: reranks nodes and keeps the best."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from gpurerank import InputError, RankedPassage, RerankSettings, read_items
from llamaindex_gpurerank.ranked_node import RankedMetadata

_NO_TEXT = "the node has no text"

dispatcher = get_dispatcher(__name__)


class GPURerank(RerankSettings, BaseNodePostprocessor):
    """Reranks nodes for a query.

    Nodes come back as deep copies, best first, with the new score. The whole provenance is
    ``metadata["gpurerank"]``, its span counted in the node's own text; it changes neither the
    node's hash nor what models read. Those that went in are not touched. A node without text, such
    as an image, keeps its place and its score.

    Its options are those of ``gpurerank.RerankSettings``.
    """

    def __getstate__(self) -> dict[str, Any]:
        # The base class would leave out a ranker that cannot be pickled, and "embedded" would
        # silently take its place.
        if self.ranker is not None:
            pickle.dumps(self.ranker)
        return super().__getstate__()

    @classmethod
    def class_name(cls) -> str:
        """The name in serialized pipelines."""
        return "GPURerank"

    # Nodes are read here, before the framework's span or a tracer can use an iterator up.
    def postprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore | BaseNode],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
    ) -> list[NodeWithScore]:
        """The best nodes, as copies, best first; a bare node is one without a score."""
        return super().postprocess_nodes(self._checked(nodes), query_bundle, query_str)

    async def apostprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore | BaseNode],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
    ) -> list[NodeWithScore]:
        """As ``postprocess_nodes``, without blocking the event loop."""
        return await super().apostprocess_nodes(self._checked(nodes), query_bundle, query_str)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, passages = _checked_query(query_bundle), _passages(nodes)
        with self._reported(query, nodes) as result:
            ranked = self._rank(query.query_str, passages, self.top_n)
            result += self._merge(nodes, passages, ranked)
        return result

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, passages = _checked_query(query_bundle), _passages(nodes)
        with self._reported(query, nodes) as result:
            ranked = await self._arank(query.query_str, passages, self.top_n)
            result += self._merge(nodes, passages, ranked)
        return result

    @contextmanager
    def _reported(
        self, query: QueryBundle, nodes: list[NodeWithScore]
    ) -> Iterator[list[NodeWithScore]]:
        """Sends the start and, whatever happens, the end of a rerank; yields the list to fill."""
        name = self._ranker.model_name
        top_n = len(nodes) if self.top_n is None else self.top_n
        result: list[NodeWithScore] = []
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: top_n,
        }
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield result
                event.on_end(payload={EventPayload.NODES: result})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=result))

    def _checked(self, nodes: Iterable[NodeWithScore | BaseNode]) -> list[NodeWithScore]:
        checked = []
        expected = "a list of NodeWithScore"
        # Iterating over one node would read its fields.
        if isinstance(nodes, NodeWithScore | BaseNode):
            raise InputError(f"the nodes are one {type(nodes).__name__}; give {expected}")
        for index, node in enumerate(read_items(nodes, "the nodes are", expected)):
            if not isinstance(node, NodeWithScore | BaseNode):
                raise InputError(
                    f"node {index} is {type(node).__name__}; give a NodeWithScore or a TextNode"
                )
            checked.append(NodeWithScore(node=node) if isinstance(node, BaseNode) else node)
        return checked

    def _merge(
        self, nodes: list[NodeWithScore], passages: list[str], ranked: list[RankedPassage]
    ) -> list[NodeWithScore]:
        """The ranked nodes, with each node without text at the place where it came."""
        merged = [passage for passage in ranked if passages[passage.index]]
        for index, passage in enumerate(passages):
            if not passage and (self.top_n is None or index < self.top_n):
                merged.insert(index, _unranked(index, self._ranker.model_name))
        return [
            self._ranked_copy(nodes[passage.index], passage.at(place))
            for place, passage in enumerate(merged[: self.top_n], 1)
        ]

    def _ranked_copy(self, scored: NodeWithScore, passage: RankedPassage) -> NodeWithScore:
        provenance = passage.provenance()
        if passage.previous_score is None and scored.score is not None:
            provenance["previous_score"] = float(scored.score)
        provenance["span"] = passage.span_in(scored.node.get_content(MetadataMode.NONE))
        node = self._copy_item(scored.node)
        # An assignment to the attribute is validated, which makes a plain dictionary of it.
        vars(node)["metadata"] = RankedMetadata(node.metadata, provenance)
        score = scored.score if passage.score is None else passage.score
        return NodeWithScore(node=node, score=score)


def _checked_query(bundle: QueryBundle | None) -> QueryBundle:
    if bundle is None:
        raise InputError("there is no query to rank for; pass query_bundle or query_str")
    return bundle


def _passages(nodes: list[NodeWithScore]) -> list[str]:
    """The text of each node as it was embedded; empty where the node itself has none."""
    return [_passage(scored.node) for scored in nodes]


def _passage(node: BaseNode) -> str:
    if not node.get_content(MetadataMode.NONE).strip():
        return ""
    return node.get_content(MetadataMode.EMBED)


def _unranked(index: int, model_name: str) -> RankedPassage:
    return RankedPassage(
        index=index,
        passage="",
        score=None,
        logit=None,
        rank=index + 1,
        span=None,
        truncated=False,
        model=model_name,
        previous_rank=index + 1,
        error=_NO_TEXT,
    )
