"""The one line: a retriever whose documents are reranked."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    BaseCallbackManager,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config, patch_config
from langchain_core.runnables.utils import ConfigurableFieldSpec, get_unique_config_specs
from pydantic import ConfigDict, Field, SecretStr, field_validator
from typing_extensions import Unpack, override

from gpurerank import CutOff, InputError, Ranker, ScoreStore
from langchain_gpurerank.compressor import GPURerank
from langchain_gpurerank.passages import DocumentText


class RerankOptions(TypedDict, total=False):
    """The options of ``rerank`` beside ``top_n``; see ``GPURerank``."""

    threshold: float | None
    cut_off: CutOff | None
    document_text: DocumentText | None
    provenance: Literal["metadata", "none"]
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
    """Retrieves with another retriever and reranks what it returns.

    The first stage is invoked with the configuration and the keywords of the call, except for
    ``top_n``: what filters, tags or configures the wrapped retriever does so here too.

    Attributes:
        retriever: The first stage: any Runnable that takes a query and returns documents.
        top_n: Documents returned at most; None for as many as the compressor says. Also a keyword
            of ``invoke``.
        compressor: What reranks.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retriever: Runnable[str, list[Document]]
    top_n: int | None = Field(default=None, ge=0)
    compressor: GPURerank = Field(default_factory=GPURerank)

    @field_validator("retriever", mode="before")
    @classmethod
    def _check_retriever(cls, value: object) -> object:
        check_first_stage(value)
        return value

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What a call may configure: the first stage's fields too."""
        return get_unique_config_specs([*super().config_specs, *self.retriever.config_specs])

    # BaseRetriever hands ``_get_relevant_documents`` the callbacks of a configuration and nothing
    # else of it, so the rest travels as a keyword.
    @override
    def invoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Retrieves and reranks; keywords other than ``top_n`` go to the first stage."""
        whole = ensure_config(config)
        return super().invoke(input, whole, first_stage_config=whole, **kwargs)

    @override
    async def ainvoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """As ``invoke``, without blocking the event loop."""
        whole = ensure_config(config)
        return await super().ainvoke(input, whole, first_stage_config=whole, **kwargs)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        top_n: int | None = None,
        first_stage_config: RunnableConfig | None = None,
        **first_stage_kwargs: Any,
    ) -> list[Document]:
        config = _child_config(first_stage_config, run_manager.get_child())
        documents = self.retriever.invoke(query, config, **first_stage_kwargs)
        return self.compressor.rerank_documents(
            documents, query, self._effective_top_n(top_n), run_manager.get_child()
        )

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        top_n: int | None = None,
        first_stage_config: RunnableConfig | None = None,
        **first_stage_kwargs: Any,
    ) -> list[Document]:
        config = _child_config(first_stage_config, run_manager.get_child())
        documents = await self.retriever.ainvoke(query, config, **first_stage_kwargs)
        return await self.compressor.arerank_documents(
            documents, query, self._effective_top_n(top_n), run_manager.get_child()
        )

    def _effective_top_n(self, of_call: int | None) -> int | None:
        candidates = (of_call, self.top_n, self.compressor.top_n)
        return next((top_n for top_n in candidates if top_n is not None), None)


def rerank(
    retriever: Runnable[str, list[Document]],
    top_n: int | None = 5,
    **options: Unpack[RerankOptions],
) -> RerankRetriever:
    """Wraps a retriever so that its documents are reranked.

    Args:
        retriever: The first stage; let it find about ten times ``top_n``.
        top_n: Documents returned at most; None for all.
        **options: As those of ``GPURerank``, such as ``model``, ``threshold`` or
            ``document_text``.

    Raises:
        InputError: The first stage is no Runnable, or an option is wrong.
        ModelError: The model cannot be loaded.
    """
    check_first_stage(retriever)
    return RerankRetriever(retriever=retriever, compressor=GPURerank(top_n=top_n, **options))


def check_first_stage(value: object) -> None:
    """Checks that a first stage can be invoked as LangChain does.

    Raises:
        InputError: It is no Runnable.
    """
    if isinstance(value, Runnable):
        return
    advice = "give a retriever or another Runnable"
    if hasattr(value, "as_retriever") and not isinstance(value, type):
        advice = "give its as_retriever()"
    elif callable(value) and not isinstance(value, type):
        advice = "wrap it in langchain_core.runnables.RunnableLambda"
    raise InputError(f"the first stage is {type(value).__name__}, which is no Runnable; {advice}")


def _child_config(config: RunnableConfig | None, callbacks: BaseCallbackManager) -> RunnableConfig:
    """The caller's configuration for the first stage, whose run becomes a child of this one."""
    whole = ensure_config(config)
    # ``patch_config`` drops the run's name together with its id.
    return patch_config(whole, callbacks=callbacks, run_name=whole.get("run_name"))
