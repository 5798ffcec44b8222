"""The document compressor: reranks documents and keeps the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from gpurerank import RankedPassage, RerankSettings, calling

PROVENANCE = "gpurerank"
SCORE = "relevance_score"


class GPURerank(RerankSettings, BaseDocumentCompressor):
    """Reranks documents for a query.

    Documents come back as copies, best first, with ``metadata["relevance_score"]`` and the whole
    provenance under ``metadata["gpurerank"]``; those that went in are not touched.

    Its options are those of ``gpurerank.RerankSettings``.
    """

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents, as copies, best first."""
        return self.rerank_documents(documents, query, self.top_n, callbacks)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """As ``compress_documents``, without blocking the event loop."""
        return await self.arerank_documents(documents, query, self.top_n, callbacks)

    def rerank_documents(
        self,
        documents: Sequence[Document],
        query: str,
        top_n: int | None,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """As ``compress_documents``, with a ``top_n`` of its own; a child run in the trace."""
        run = CallbackManager.configure(callbacks).on_chain_start(
            None, {"query": query, "documents": list(documents)}, name="GPURerank"
        )
        try:
            with calling() as call:
                ranked = self._ranker.rank(
                    query,
                    [document.page_content for document in documents],
                    top_n,
                    self.threshold,
                    cut_off=self.cut_off,
                )
        except BaseException as error:
            run.on_chain_error(error)
            raise
        reranked = _documents(documents, ranked)
        run.on_chain_end(_trace(reranked, self._ranker.model_name, call.stages_ms))
        return reranked

    async def arerank_documents(
        self,
        documents: Sequence[Document],
        query: str,
        top_n: int | None,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """As ``rerank_documents``, without blocking the event loop."""
        run = await AsyncCallbackManager.configure(callbacks).on_chain_start(
            None, {"query": query, "documents": list(documents)}, name="GPURerank"
        )
        try:
            with calling() as call:
                ranked = await self._ranker.arank(
                    query,
                    [document.page_content for document in documents],
                    top_n,
                    self.threshold,
                    cut_off=self.cut_off,
                )
        except BaseException as error:
            await run.on_chain_error(error)
            raise
        reranked = _documents(documents, ranked)
        await run.on_chain_end(_trace(reranked, self._ranker.model_name, call.stages_ms))
        return reranked


def _documents(documents: Sequence[Document], ranked: Sequence[RankedPassage]) -> list[Document]:
    return [_copy(documents[passage.index], passage) for passage in ranked]


def _copy(document: Document, passage: RankedPassage) -> Document:
    provenance = passage.provenance()
    earlier = document.metadata.get(SCORE)
    if passage.previous_score is None and isinstance(earlier, float):
        provenance["previous_score"] = earlier
    metadata = {**document.metadata, PROVENANCE: provenance}
    if passage.score is not None:
        metadata[SCORE] = passage.score
    return document.model_copy(update={"metadata": metadata})


def _trace(
    documents: list[Document], model_name: str, stages_ms: dict[str, float]
) -> dict[str, Any]:
    rounded = {name: round(ms, 3) for name, ms in stages_ms.items()}
    return {"documents": documents, "model": model_name, "stages_ms": rounded}
