"""The node postprocessor: reranks nodes and keeps the best."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from gpurerank import InputError, RankedPassage, RerankSettings

PROVENANCE = "gpurerank"

dispatcher = get_dispatcher(__name__)


class GPURerank(RerankSettings, BaseNodePostprocessor):
    """Reranks nodes for a query.

    Nodes come back as copies, best first, with the new score; the whole provenance stands under
    ``metadata["gpurerank"]``, which no model is shown, its span counted in the node's own text.
    Those that went in are not touched.

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

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        with self._reported(query, nodes) as result:
            ranked = self._ranker.rank(
                query, _texts(nodes), self.top_n, self.threshold, cut_off=self.cut_off
            )
            result += _nodes(nodes, ranked)
        return result

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        with self._reported(query, nodes) as result:
            ranked = await self._ranker.arank(
                query, _texts(nodes), self.top_n, self.threshold, cut_off=self.cut_off
            )
            result += _nodes(nodes, ranked)
        return result

    @contextmanager
    def _reported(self, query: str, nodes: list[NodeWithScore]) -> Iterator[list[NodeWithScore]]:
        """Sends the start and, whatever happens, the end of a rerank; yields the list to fill."""
        name = self._ranker.model_name
        wanted = len(nodes) if self.top_n is None else self.top_n
        result: list[NodeWithScore] = []
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=wanted, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: wanted,
        }
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield result
                event.on_end(payload={EventPayload.NODES: result})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=result))


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise InputError("there is no query to rank for; pass query_bundle or query_str")
    return bundle.query_str


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _nodes(nodes: Sequence[NodeWithScore], ranked: Sequence[RankedPassage]) -> list[NodeWithScore]:
    return [_copy(nodes[passage.index], passage) for passage in ranked]


def _copy(scored: NodeWithScore, passage: RankedPassage) -> NodeWithScore:
    provenance = passage.provenance()
    if passage.previous_score is None and scored.score is not None:
        provenance["previous_score"] = float(scored.score)
    provenance["span"] = _span_in_text(scored.node, passage)
    node = scored.node.model_copy(
        update={
            "metadata": {**scored.node.metadata, PROVENANCE: provenance},
            "excluded_embed_metadata_keys": _with(scored.node.excluded_embed_metadata_keys),
            "excluded_llm_metadata_keys": _with(scored.node.excluded_llm_metadata_keys),
        }
    )
    return NodeWithScore(node=node, score=scored.score if passage.score is None else passage.score)


def _span_in_text(node: BaseNode, passage: RankedPassage) -> list[int] | None:
    """The best window in the node's own text; the scored passage has a metadata header before."""
    if passage.span is None:
        return None
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    stripped = text.strip()
    # The scored passage is stripped at its ends.
    found = passage.passage.find(stripped)
    if found < 0:
        return None
    shift = found - text.find(stripped)
    start, stop = passage.span
    return [min(max(start - shift, 0), len(text)), min(max(stop - shift, 0), len(text))]


def _with(keys: list[str]) -> list[str]:
    return keys if PROVENANCE in keys else [*keys, PROVENANCE]
