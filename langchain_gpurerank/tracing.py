"""The run that a rerank opens in LangChain's traces, and what tracers are told of it.

LangChain has no callback for a reranker, so the run is a chain. Its metadata names the model and
the number of documents asked for. OpenInference's tracer, which Phoenix and others read, knows a
kind of span for rerankers; where that tracer takes part, the run's span gets this kind and the
attributes that belong to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    BaseCallbackHandler,
    CallbackManager,
    CallbackManagerForChainRun,
    Callbacks,
)
from langchain_core.documents import Document

from langchain_gpurerank.ranked_document import SCORE, as_score

NAME = "GPURerank"

Run = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun


class RerankRun:
    """What one rerank reports: its inputs at the start, its outputs or its error at the end.

    Args:
        query: What is ranked for.
        documents: What is ranked, before the first of it is scored.
        top_n: Documents returned at most; None for all.
        model_name: The ranker's name.
    """

    def __init__(
        self, query: str, documents: list[Document], top_n: int | None, model_name: str
    ) -> None:
        self._inputs = {"query": query, "documents": documents}
        self._request: dict[str, Any] = {
            "reranker.query": query,
            "reranker.model_name": model_name,
            "reranker.top_k": len(documents) if top_n is None else top_n,
        }
        self._documents = documents
        self._model_name = model_name

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the run: small values that every tracer shows."""
        return {name: self._request[name] for name in ("reranker.model_name", "reranker.top_k")}

    def start(self, callbacks: Callbacks | None) -> CallbackManagerForChainRun:
        """Opens the run."""
        manager = CallbackManager.configure(callbacks, local_metadata=self.metadata)
        run = manager.on_chain_start(None, self._inputs, name=NAME, **_run_type(manager.handlers))
        self._describe(run, "reranker.input_documents", self._documents)
        return run

    async def astart(self, callbacks: Callbacks | None) -> AsyncCallbackManagerForChainRun:
        """As ``start``, for asynchronous callbacks."""
        manager = AsyncCallbackManager.configure(callbacks, local_metadata=self.metadata)
        run = await manager.on_chain_start(
            None, self._inputs, name=NAME, **_run_type(manager.handlers)
        )
        self._describe(run, "reranker.input_documents", self._documents)
        return run

    def outputs(
        self, run: Run, documents: list[Document], stages_ms: dict[str, float]
    ) -> dict[str, Any]:
        """What the run ends with; it is described on OpenInference's span too."""
        self._describe(run, "reranker.output_documents", documents)
        rounded = {name: round(ms, 3) for name, ms in stages_ms.items()}
        return {"documents": documents, "model": self._model_name, "stages_ms": rounded}

    def _describe(self, run: Run, prefix: str, documents: Sequence[Document]) -> None:
        tracer = _openinference_tracer(run.handlers)
        span = tracer.get_span(run.run_id) if tracer is not None else None
        if span is None or not span.is_recording():
            return
        for index, document in enumerate(documents):
            for name, value in _described(document):
                span.set_attribute(f"{prefix}.{index}.document.{name}", value)
        # Last, and again at the end: a span holds 128 attributes unless its process allows more,
        # and drops the oldest.
        for name, value in self._request.items():
            span.set_attribute(name, value)


def _described(document: Document) -> Iterator[tuple[str, str | float]]:
    if document.id is not None:
        yield "id", document.id
    yield "content", document.page_content
    score = as_score(document.metadata.get(SCORE))
    if score is not None:
        yield "score", score
    if document.metadata:
        yield "metadata", json.dumps(document.metadata, default=str, ensure_ascii=False)


def _openinference_tracer(handlers: Sequence[BaseCallbackHandler]) -> Any | None:
    # By name: a tracer that is not installed cannot be among the handlers.
    package = "openinference.instrumentation.langchain"
    return next((each for each in handlers if type(each).__module__.startswith(package)), None)


def _run_type(handlers: Sequence[BaseCallbackHandler]) -> dict[str, Any]:
    """The type of the run where it is not a plain chain, as a keyword of ``on_chain_start``."""
    if _openinference_tracer(handlers) is None:
        return {}
    from langchain_core.tracers import LangChainTracer

    # LangSmith takes only the run types that it knows, and would drop the run.
    if any(isinstance(handler, LangChainTracer) for handler in handlers):
        return {}
    return {"run_type": "reranker"}
