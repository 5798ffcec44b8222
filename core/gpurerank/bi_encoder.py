"""The bi-encoder: texts as vectors, passages ranked by cosine similarity."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from gpurerank.calls import current_call
from gpurerank.cosine import unit_vectors
from gpurerank.engine.job import JobResult
from gpurerank.engine.once import Once
from gpurerank.progress import progress_bar
from gpurerank.ranking import rank
from gpurerank.request import check_request, check_texts
from gpurerank.types import CutOff, FloatArray, RankedPassage, TextToken

if TYPE_CHECKING:
    from gpurerank.engine.registry import Lease
    from gpurerank.engine.stats import EngineStats
    from gpurerank.models.loading import ModelSpec
    from gpurerank.models.text_model import TextModel


class BiEncoder:
    """Embeds texts with one model; safe to call from any thread.

    Args:
        model: "embedded", a folder or a hub id: any sentence-transformers bi-encoder.
        device: "auto", a torch device, or several, such as "cuda:0,cuda:1": one copy on each.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: Branch, tag or commit on the hub.
        max_length: Tokens of a text; None is the model's own limit. What is longer is cut.
        query_prompt: Goes before each query, in place of the model's own prompt.
        trust_remote_code: Whether code from the model's repository may run.

    Raises:
        InputError: An option is wrong.
        ModelError: The model cannot be loaded.
    """

    def __init__(
        self,
        model: str = "embedded",
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        max_length: int | None = None,
        query_prompt: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from gpurerank.engine.registry import REGISTRY
        from gpurerank.models.loading import ModelSpec
        from gpurerank.models.text_model import TextModel, load_text_models

        self._spec = ModelSpec(
            name=model,
            device=device,
            dtype=dtype,
            revision=revision,
            max_length=max_length,
            instruction=query_prompt,
            trust_remote_code=trust_remote_code,
        )
        resolved = self._spec.resolved()
        lease = REGISTRY.acquire((TextModel, resolved), lambda: load_text_models(resolved), model)
        self._lease: Lease[TextModel] = lease
        self._once = Once(lambda: lease.engine)
        weakref.finalize(self, self._lease.forget)

    def __reduce__(self) -> tuple[Callable[..., BiEncoder], tuple[object, ...]]:
        return _rebuild, (self._spec,)

    @property
    def model_name(self) -> str:
        """The model, as it was asked for."""
        return self._spec.name

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._lease.model.dim

    @property
    def matryoshka_dims(self) -> tuple[int, ...]:
        """Shorter lengths that the model's configuration declares its vectors can be cut to."""
        return self._lease.model.matryoshka_dims

    @property
    def max_length(self) -> int:
        """Tokens that a text may have, special tokens included; what is longer is cut."""
        return self._lease.model.max_length

    @property
    def packed(self) -> bool:
        """Whether batches run without padding."""
        return self._lease.model.packed

    def stats(self) -> EngineStats:
        """What the model has done for all its callers, and what waits."""
        return self._lease.engine.stats()

    def identity(self) -> list[str]:
        """What a vector depends on beside the text: the model and every option that changes it."""
        model = self._lease.model
        return [repr(model.spec), model.fingerprint]

    def embed_queries(self, queries: Iterable[str], *, show_progress: bool = False) -> FloatArray:
        """Vectors of queries, with the model's query prompt; shape (queries, dim), float32.

        Raises:
            InputError: A query is not a string.
            NotFiniteError: The model returned NaN or infinity.
        """
        return self._run(queries, query=True, show_progress=show_progress)

    def embed_passages(self, passages: Iterable[str], *, show_progress: bool = False) -> FloatArray:
        """Vectors of passages, with the model's passage prompt; shape (passages, dim), float32.

        Raises:
            InputError: A passage is not a string.
            NotFiniteError: The model returned NaN or infinity.
        """
        return self._run(passages, query=False, show_progress=show_progress)

    async def aembed_queries(self, queries: Iterable[str]) -> FloatArray:
        """As ``embed_queries``, without blocking the event loop."""
        return await self._arun(queries, query=True)

    async def aembed_passages(self, passages: Iterable[str]) -> FloatArray:
        """As ``embed_passages``, without blocking the event loop."""
        return await self._arun(passages, query=False)

    def rank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """Passages by cosine similarity to the query, best first: both score and logit.

        A blank passage has the cosine -1. Raises as ``Reranker.rank``.
        """
        texts = check_request(query, passages, top_k, threshold)
        scored = self._scored(texts, _counted(self._once.run(self._items(query, texts))))
        return rank(scored, top_k=top_k, threshold=threshold, cut_off=cut_off)

    async def arank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """As ``rank``, without blocking the event loop."""
        texts = check_request(query, passages, top_k, threshold)
        scored = self._scored(texts, _counted(await self._once.arun(self._items(query, texts))))
        return rank(scored, top_k=top_k, threshold=threshold, cut_off=cut_off)

    def tokenize(
        self,
        texts: Sequence[str],
        *,
        query: bool = False,
        special_tokens: bool = True,
        prompted: bool = True,
    ) -> list[list[TextToken]]:
        """The tokens of each text, none cut; behind the model's prompt where ``prompted``.

        Raises:
            InputError: A text is not a string.
        """
        checked = check_texts(texts, "text")
        model = self._lease.model
        prompt = model.prompt(query=query) if prompted else ""
        return model.text_tokens([prompt + text for text in checked], special_tokens)

    def close(self) -> None:
        """Gives the model back; the last user frees its memory."""
        self._lease.close()

    def _run(self, texts: Iterable[str], *, query: bool, show_progress: bool) -> FloatArray:
        checked = check_texts(texts, "query" if query else "passage")
        with progress_bar("embedding", len(checked), shown=show_progress):
            return _counted(self._once.run(self._prompted(checked, query=query))).rows

    async def _arun(self, texts: Iterable[str], *, query: bool) -> FloatArray:
        checked = check_texts(texts, "query" if query else "passage")
        return _counted(await self._once.arun(self._prompted(checked, query=query))).rows

    def _prompted(self, texts: Sequence[str], *, query: bool) -> list[tuple[str, str]]:
        prompt = self._lease.model.prompt(query=query)
        return [(prompt, text) for text in texts]

    def _items(self, query: str, passages: list[str]) -> list[tuple[str, str]]:
        """The query first, then the passages: one job, so that they share batches."""
        return self._prompted([query], query=True) + self._prompted(passages, query=False)

    def _scored(self, passages: list[str], answer: JobResult) -> list[RankedPassage]:
        """Passages with their cosine, -1 for a blank one."""
        vectors = unit_vectors(answer.rows)  # the query's, then one for each passage
        cosines = vectors[1:] @ vectors[0]  # (passages,)
        cosines[[not passage.strip() for passage in passages]] = -1.0
        return [
            RankedPassage(
                index=index,
                passage=passage,
                score=cosine,
                logit=cosine,
                rank=0,
                span=None,
                truncated=truncated,
                model=self.model_name,
                previous_rank=index + 1,
            )
            for index, (passage, cosine, truncated) in enumerate(
                zip(passages, cosines.tolist(), answer.truncated[1:], strict=True)
            )
        ]


def _counted(result: JobResult) -> JobResult:
    """Counts the tokens of every text, also of those whose vectors were remembered."""
    call = current_call()
    if call.counts_tokens:
        call.count("tokens", sum(result.lengths))
    return result


def _rebuild(spec: ModelSpec) -> BiEncoder:
    return BiEncoder(
        spec.name,
        device=spec.device,
        dtype=spec.dtype,
        revision=spec.revision,
        max_length=spec.max_length,
        query_prompt=spec.instruction,
        trust_remote_code=spec.trust_remote_code,
    )
