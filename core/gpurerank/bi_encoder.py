"""The bi-encoder: texts as vectors, passages ranked by cosine similarity."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpurerank.batching import plan_batches
from gpurerank.calls import current_call, stage
from gpurerank.errors import NotFiniteError, ScoringError
from gpurerank.progress import progress_bar
from gpurerank.ranking import rank
from gpurerank.request import check_request, check_texts
from gpurerank.types import CutOff, FloatArray, RankedPassage

if TYPE_CHECKING:
    from gpurerank.models.loading import ModelSpec
    from gpurerank.models.owner import Cancelled
    from gpurerank.models.registry import Lease
    from gpurerank.models.text_model import TextModel

MAX_TOKENS = 16_384
TEXTS_PER_PLAN = 4_096


class BiEncoder:
    """Embeds texts with one model; safe to call from any thread.

    Args:
        model: "embedded", a folder or a hub id: any sentence-transformers bi-encoder.
        device: "auto" or a torch device.
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
        from gpurerank.models.loading import ModelSpec
        from gpurerank.models.registry import REGISTRY
        from gpurerank.models.text_model import TextModel, load_text_model

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
        self._lease: Lease[TextModel] = REGISTRY.acquire(
            (TextModel, resolved), lambda: load_text_model(resolved), model
        )
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
    def packed(self) -> bool:
        """Whether batches run without padding."""
        return self._lease.model.packed

    def embed_queries(self, queries: Sequence[str], *, show_progress: bool = False) -> FloatArray:
        """Vectors of queries, with the model's query prompt; shape (queries, dim), float32.

        Raises:
            InputError: A query is not a string.
            NotFiniteError: The model returned NaN or infinity.
        """
        return self._run(queries, query=True, show_progress=show_progress)

    def embed_passages(self, passages: Sequence[str], *, show_progress: bool = False) -> FloatArray:
        """Vectors of passages, with the model's passage prompt; shape (passages, dim), float32.

        Raises:
            InputError: A passage is not a string.
            NotFiniteError: The model returned NaN or infinity.
        """
        return self._run(passages, query=False, show_progress=show_progress)

    async def aembed_queries(self, queries: Sequence[str]) -> FloatArray:
        """As ``embed_queries``, without blocking the event loop."""
        texts = check_texts(queries, "query")
        vectors, _ = await self._lease.owner.arun(lambda stop: self._embed(texts, True, stop))
        return vectors

    async def aembed_passages(self, passages: Sequence[str]) -> FloatArray:
        """As ``embed_passages``, without blocking the event loop."""
        texts = check_texts(passages, "passage")
        vectors, _ = await self._lease.owner.arun(lambda stop: self._embed(texts, False, stop))
        return vectors

    def rank(
        self,
        query: str,
        passages: Sequence[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """Passages by cosine similarity to the query, best first: both score and logit.

        A blank passage has the cosine -1. Raises as ``Reranker.rank``.
        """
        texts = check_request(query, passages, top_k, threshold)
        found = self._lease.owner.run(lambda stop: self._cosines(query, texts, stop))
        scored = self._scored(texts, *found)
        return rank(scored, top_k=top_k, threshold=threshold, cut_off=cut_off)

    async def arank(
        self,
        query: str,
        passages: Sequence[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """As ``rank``, without blocking the event loop."""
        texts = check_request(query, passages, top_k, threshold)
        found = await self._lease.owner.arun(lambda stop: self._cosines(query, texts, stop))
        scored = self._scored(texts, *found)
        return rank(scored, top_k=top_k, threshold=threshold, cut_off=cut_off)

    def close(self) -> None:
        """Gives the model back; the last user frees its memory."""
        self._lease.close()

    def _run(self, texts: Sequence[str], *, query: bool, show_progress: bool) -> FloatArray:
        checked = check_texts(texts, "query" if query else "passage")
        with progress_bar("embedding", len(checked), shown=show_progress):
            vectors, _ = self._lease.owner.run(lambda stop: self._embed(checked, query, stop))
        return vectors

    def _embed(
        self, texts: list[str], query: bool, cancelled: Cancelled
    ) -> tuple[FloatArray, list[bool]]:
        """Vectors, shape (texts, dim), and whether each text was cut."""
        model, call = self._lease.model, current_call()
        prompt = model.prompt(query=query)
        vectors = np.empty((len(texts), model.dim), dtype=np.float32)
        truncated: list[bool] = []
        done = 0
        for start in range(0, len(texts), TEXTS_PER_PLAN):
            some = texts[start : start + TEXTS_PER_PLAN]
            with stage("tokenize"):
                tokens = model.tokenize(some, prompt)
            truncated += [each.truncated for each in tokens]
            for batch in plan_batches([len(t) for t in tokens], max(MAX_TOKENS, model.max_length)):
                call.check_deadline()
                if cancelled():
                    raise ScoringError("the call was cancelled")
                with stage("embed"):
                    vectors[[start + i for i in batch]] = model.embed(
                        [some[i] for i in batch], [tokens[i] for i in batch], prompt
                    )
                done += len(batch)
                if call.on_progress is not None:
                    call.on_progress(done, len(texts))
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong):
            raise NotFiniteError(f"{model.name!r} returned NaN or infinity for text {wrong[0]}")
        return vectors, truncated

    def _cosines(
        self, query: str, passages: list[str], cancelled: Cancelled
    ) -> tuple[FloatArray, list[bool]]:
        """Cosine of each passage, -1 for a blank one, and whether it was cut."""
        (query_vector,), _ = self._embed([query], True, cancelled)
        vectors, truncated = self._embed(passages, False, cancelled)
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query_vector)
        cosines = np.asarray(vectors @ query_vector / np.maximum(norms, 1e-12), dtype=np.float32)
        cosines[[not passage.strip() for passage in passages]] = -1.0
        return cosines, truncated

    def _scored(
        self, passages: list[str], cosines: FloatArray, truncated: list[bool]
    ) -> list[RankedPassage]:
        return [
            RankedPassage(
                index=index,
                passage=passage,
                score=float(cosine),
                logit=float(cosine),
                rank=0,
                span=None,
                truncated=truncated[index],
                model=self.model_name,
                previous_rank=index + 1,
            )
            for index, (passage, cosine) in enumerate(zip(passages, cosines, strict=True))
        ]


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
