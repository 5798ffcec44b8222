"""The cross-encoder: query and passage read together, batched by tokens with all other calls."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from gpurerank.calls import stage
from gpurerank.chunking import Fit, cut_query, fit_truncated, window_size, window_spans
from gpurerank.errors import NotFiniteError
from gpurerank.ranking import sigmoids
from gpurerank.request import check_pairs

if TYPE_CHECKING:
    from gpurerank.engine.registry import Lease
    from gpurerank.engine.stats import EngineStats
    from gpurerank.models.blend import Blend
    from gpurerank.models.pair_model import PairModel
    from gpurerank.types import FloatArray, IntArray

# Passages whose characters and tokens are looked at together: what bounds memory.
_PASSAGES_PER_FIT = 256

LongPassages = Literal["windows", "truncate"]


class CrossEncoder:
    """Scores pairs with one model; safe to call from any thread.

    Args:
        model: "embedded", a folder, a hub id, or a PairModel that is already loaded.
        device: "auto", a torch device, or several, such as "cuda:0,cuda:1": one copy on each.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: Branch, tag or commit on the hub.
        max_length: Tokens of a pair, special tokens included; the model's own limit may be lower.
        instruction: Prompt, for models that take one.
        positive_label: Which of two labels means relevant; needed for models with two.
        trust_remote_code: Whether code from the model's repository may run.
        max_tokens: Tokens of one batch: what bounds memory. None is 65,536 on a GPU and 1,024 on a
            CPU, where up to four run at a time, and no more than take about 50 ms. The smallest
            that anybody asked of a model holds for all.

    Raises:
        InputError: An option is wrong.
        ModelError: The model cannot be loaded, or is no reranker.
    """

    def __init__(
        self,
        model: str | PairModel = "embedded",
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        max_length: int = 512,
        instruction: str | None = None,
        positive_label: int | None = None,
        trust_remote_code: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        from gpurerank.engine.registry import REGISTRY
        from gpurerank.models.loading import ModelSpec
        from gpurerank.models.pair_model import PairModel, load_pair_models

        if isinstance(model, PairModel):
            self._name = model.name
            self._lease: Lease[PairModel] = REGISTRY.acquire(
                (PairModel, id(model)), lambda: [model], model.name
            )
        else:
            spec = ModelSpec(
                name=model,
                device=device,
                dtype=dtype,
                revision=revision,
                max_length=max_length,
                instruction=instruction,
                positive_label=positive_label,
                trust_remote_code=trust_remote_code,
            ).resolved()
            self._name = model
            self._lease = REGISTRY.acquire((PairModel, spec), lambda: load_pair_models(spec), model)
        weakref.finalize(self, self._lease.forget)
        if max_tokens is not None:
            self._lease.engine.cap_tokens(max_tokens)

    @property
    def model_name(self) -> str:
        """The model, as it was asked for."""
        return self._name

    @property
    def max_length(self) -> int:
        """Tokens that a pair may have, special tokens included."""
        return self._lease.model.max_length

    @property
    def packed(self) -> bool:
        """Whether batches run without padding."""
        return self._lease.model.packed

    @property
    def blend(self) -> Blend | None:
        """How ``Reranker`` blends the logit with a bi-encoder's similarity; None for not at all.

        Such a model was trained on top of that bi-encoder, so its own logit alone ranks worse.
        """
        return self._lease.model.blend

    def stats(self) -> EngineStats:
        """What the model has done for all its callers, and what waits."""
        return self._lease.engine.stats()

    def identity(self) -> list[str]:
        """What a score depends on beside the pair: the model and every option that changes it."""
        model = self._lease.model
        return [repr(model.spec), model.fingerprint]

    def score_pairs(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """The score of each pair, in [0, 1], input order.

        A pair over ``max_length`` is cut, the longer text first, as sentence-transformers does;
        ``Reranker`` shows long passages as windows instead.

        Raises:
            InputError: A pair is not two strings.
            NotFiniteError: The model returned NaN or infinity.
            DeadlineError: The deadline of the current call passed.
        """
        return sigmoids(self.logits(pairs))

    async def ascore_pairs(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking; a cancelled task's pairs do not run."""
        return sigmoids(await self.alogits(pairs))

    def logits(self, pairs: Iterable[tuple[str, str]]) -> FloatArray:
        """The model's own logits, shape (pairs,), float32; raises as ``score_pairs``."""
        checked = check_pairs(pairs)
        engine = self._lease.engine
        return self._finite(engine.run(checked).rows) if checked else _no_logits()

    async def alogits(self, pairs: Iterable[tuple[str, str]]) -> FloatArray:
        """As ``logits``, without blocking."""
        checked = check_pairs(pairs)
        engine = self._lease.engine
        return self._finite((await engine.arun(checked)).rows) if checked else _no_logits()

    def fit(self, query: str, passages: Sequence[str], long_passages: LongPassages) -> list[Fit]:
        """How each passage is shown to the model beside a query: as windows, or cut."""
        self._lease.engine.check_open()
        with stage("tokenize"):
            fits = []
            for start in range(0, len(passages), _PASSAGES_PER_FIT):
                some = passages[start : start + _PASSAGES_PER_FIT]
                fits += self._fit(query, some, long_passages)
            return fits

    async def afit(
        self, query: str, passages: Sequence[str], long_passages: LongPassages
    ) -> list[Fit]:
        """As ``fit``, without blocking the event loop."""
        return await self._lease.engine.run_off_loop(
            lambda: self.fit(query, passages, long_passages)
        )

    def pair_lengths(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """Tokens of each pair as the model reads it, special tokens included."""
        return self._lease.model.pair_lengths(pairs)

    async def apair_lengths(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """As ``pair_lengths``, without blocking the event loop."""
        return await self._lease.engine.run_off_loop(lambda: self.pair_lengths(pairs))

    def close(self) -> None:
        """Gives the model back; the last user frees its memory."""
        self._lease.close()

    def _finite(self, logits: FloatArray) -> FloatArray:
        check_finite(logits, self._name)
        return logits

    def _fit(self, query: str, passages: Sequence[str], long_passages: LongPassages) -> list[Fit]:
        model = self._lease.model
        query_offsets = model.offsets([query])[0]
        size = window_size(len(query_offsets), model.room)
        query_stop = cut_query(query_offsets, model.room - size)
        whole = query_stop is None
        # An ASCII character is at most one token, so most passages need no count.
        counted = [p for p in passages if not (whole and p.isascii() and len(p) <= size)]
        counts = dict(zip(counted, model.token_counts(counted), strict=True))
        # A query that is not read in full counts against every passage.
        unread = not whole or model.has_unread_word(query)
        cut = not whole and long_passages == "truncate"
        long = [p for p, count in counts.items() if cut or count > size]
        fits: dict[str, Fit] = {}
        for passage, found in zip(long, model.offsets(long), strict=True):
            if long_passages == "truncate":
                fits[passage] = fit_truncated(query_offsets, found, passage, model.room)
            else:
                spans = self._window_spans(found, passage, size)
                fits[passage] = Fit(spans, query_stop)
        for passage in passages:
            fit = fits.get(passage) or Fit([(0, len(passage))], query_stop)
            if not fit.truncated and (unread or model.has_unread_word(passage)):
                fit = replace(fit, truncated=True)
            fits[passage] = fit
        return [fits[passage] for passage in passages]

    def _window_spans(self, offsets: IntArray, passage: str, size: int) -> list[tuple[int, int]]:
        """Windows that hold at most ``size`` tokens also when they are tokenized by themselves.

        Alone, a window may have a few tokens more than inside its passage: a leading space that
        is gone or added, a character that was cut. Such windows are made smaller until all fit.
        """
        wanted = size
        while True:
            spans = window_spans(offsets, passage, wanted)
            alone = self._lease.model.offsets([passage[slice(*span)] for span in spans])
            excess = max(len(each) for each in alone) - size
            if excess <= 0 or wanted == 1:
                return spans
            wanted = max(1, wanted - excess)


def _no_logits() -> FloatArray:
    return np.empty(0, dtype=np.float32)


def check_finite(logits: FloatArray, model_name: str) -> None:
    """Checks what a model returned.

    Raises:
        NotFiniteError: A logit is NaN or infinite.
    """
    wrong = np.flatnonzero(~np.isfinite(logits))
    if len(wrong):
        raise NotFiniteError(
            f"{model_name!r} returned {logits[wrong[0]]} for pair {wrong[0]}"
            f" ({len(wrong)} of {len(logits)} pairs); try dtype='float32'"
        )
