"""The one line: a retriever whose documents are reranked."""

from __future__ import annotations

from typing import Literal, TypedDict

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field, SecretStr
from typing_extensions import Unpack

from gpurerank import CutOff, Ranker, ScoreStore
from langchain_gpurerank.compressor import GPURerank


class RerankOptions(TypedDict, total=False):
    """The options of ``rerank`` beside ``top_n``; see ``gpurerank.RerankSettings``."""

    threshold: float | None
    cut_off: CutOff | None
    ranker: Ranker | None
    model: str
    device: str
    dtype: str
    max_length: int
    long_passages: Literal["windows", "truncate"]
    revision: str | None
    instruction: str | None
    positive_label: int | None
    timeout_s: float | None
    on_error: Literal["raise", "keep_order"]
    trust_remote_code: bool
    cache: ScoreStore | None
    base_url: str | None
    api_key: SecretStr | None


class RerankRetriever(BaseRetriever):
    """Retrieves with another retriever and reranks what it finds.

    Attributes:
        retriever: The first stage: anything that takes a query and returns documents.
        top_n: Documents returned at most; None for as many as the compressor says. Also a keyword
            of ``invoke``.
        compressor: What reranks.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retriever: Runnable[str, list[Document]]
    top_n: int | None = Field(default=None, ge=0)
    compressor: GPURerank = Field(default_factory=GPURerank)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        top_n: int | None = None,
    ) -> list[Document]:
        found = self.retriever.invoke(query, config={"callbacks": run_manager.get_child()})
        return self.compressor.rerank_documents(
            found, query, self._wanted(top_n), run_manager.get_child()
        )

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        top_n: int | None = None,
    ) -> list[Document]:
        found = await self.retriever.ainvoke(query, config={"callbacks": run_manager.get_child()})
        return await self.compressor.arerank_documents(
            found, query, self._wanted(top_n), run_manager.get_child()
        )

    def _wanted(self, asked: int | None) -> int | None:
        given = (asked, self.top_n, self.compressor.top_n)
        return next((top_n for top_n in given if top_n is not None), None)


def rerank(
    retriever: Runnable[str, list[Document]],
    top_n: int | None = 5,
    **options: Unpack[RerankOptions],
) -> RerankRetriever:
    """Wraps a retriever so that its documents are reranked.

    Args:
        retriever: The first stage; let it find about ten times ``top_n``.
        top_n: Documents returned at most; None for all.
        **options: As those of ``gpurerank.RerankSettings``, such as ``model`` or ``threshold``.
    """
    return RerankRetriever(retriever=retriever, compressor=GPURerank(top_n=top_n, **options))
