"""The cross-encoder: query and passage read together, batched by tokens."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from gpurerank.batching import plan_batches
from gpurerank.calls import current_call, stage
from gpurerank.chunking import Fit, cut_query, fit_truncated, window_size, window_spans
from gpurerank.errors import NotFiniteError, ScoringError
from gpurerank.ranking import sigmoid
from gpurerank.request import check_pairs

if TYPE_CHECKING:
    from gpurerank.models.owner import Cancelled
    from gpurerank.models.pair_model import PairModel
    from gpurerank.models.registry import Lease
    from gpurerank.types import FloatArray, IntArray

MAX_TOKENS = 16_384
PAIRS_PER_PLAN = 4_096

LongPassages = Literal["windows", "truncate"]


class CrossEncoder:
    """Scores pairs with one model; safe to call from any thread.

    Args:
        model: "embedded", a folder, a hub id, or a PairModel that is already loaded.
        device: "auto" or a torch device.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: Branch, tag or commit on the hub.
        max_length: Tokens of a pair, special tokens included; the model's own limit may be lower.
        instruction: Prompt, for models that take one.
        positive_label: Which of two labels means relevant; needed for models with two.
        trust_remote_code: Whether code from the model's repository may run.
        max_tokens: Tokens of one batch: what bounds memory.

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
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        from gpurerank.models.loading import ModelSpec
        from gpurerank.models.pair_model import PairModel, load_pair_model
        from gpurerank.models.registry import REGISTRY

        if isinstance(model, PairModel):
            self._name = model.name
            self._lease: Lease[PairModel] = REGISTRY.acquire(
                (PairModel, id(model)), lambda: model, model.name
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
            self._lease = REGISTRY.acquire((PairModel, spec), lambda: load_pair_model(spec), model)
        weakref.finalize(self, self._lease.forget)
        self._max_tokens = max(max_tokens, self._lease.model.max_length)

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

    def identity(self) -> list[str]:
        """What a score depends on beside the pair: the model and every option that changes it."""
        model = self._lease.model
        return [repr(model.spec), model.fingerprint]

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each pair, in [0, 1], input order.

        A pair over ``max_length`` is cut, the longer text first, as sentence-transformers does;
        ``Reranker`` shows long passages as windows instead.

        Raises:
            InputError: A pair is not two strings.
            NotFiniteError: The model returned NaN or infinity.
            DeadlineError: The deadline of the current call passed.
        """
        check_pairs(pairs)
        return self._lease.owner.run(lambda cancelled: self._score(pairs, cancelled))

    async def ascore_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking; cancelling the task stops at the next batch."""
        check_pairs(pairs)
        return await self._lease.owner.arun(lambda cancelled: self._score(pairs, cancelled))

    def fit(self, query: str, passages: Sequence[str], long_passages: LongPassages) -> list[Fit]:
        """How each passage is shown to the model beside a query: as windows, or cut."""
        return self._lease.owner.run(lambda _: self._fit(query, passages, long_passages))

    async def afit(
        self, query: str, passages: Sequence[str], long_passages: LongPassages
    ) -> list[Fit]:
        """As ``fit``, without blocking the event loop."""
        return await self._lease.owner.arun(lambda _: self._fit(query, passages, long_passages))

    def close(self) -> None:
        """Gives the model back; the last user frees its memory."""
        self._lease.close()

    def _score(self, pairs: Sequence[tuple[str, str]], cancelled: Cancelled) -> list[float]:
        model, call = self._lease.model, current_call()
        logits = np.empty(len(pairs), dtype=np.float32)
        # Planned in slices, so that the tokens of a million pairs are never held at once.
        for start in range(0, len(pairs), PAIRS_PER_PLAN):
            some = pairs[start : start + PAIRS_PER_PLAN]
            with stage("tokenize"):
                tokens = model.tokenize(some)
            done = start
            for batch in plan_batches([len(each) for each in tokens], self._max_tokens):
                call.check_deadline()
                if cancelled():
                    raise ScoringError("the call was cancelled")
                with stage("model"):
                    logits[[start + i for i in batch]] = model.logits([tokens[i] for i in batch])
                done += len(batch)
                if call.on_progress is not None:
                    call.on_progress(done, len(pairs))
        check_finite(logits, model.name)
        return [sigmoid(float(logit)) for logit in logits]

    def _fit(self, query: str, passages: Sequence[str], long_passages: LongPassages) -> list[Fit]:
        model = self._lease.model
        with stage("tokenize"):
            query_offsets = model.offsets([query])[0]
            size = window_size(len(query_offsets), model.room)
            query_stop = cut_query(query_offsets, model.room - size)
            whole = query_stop is None
            # An ASCII character is at most one token, so most passages need no count.
            long = [p for p in passages if not (whole and p.isascii() and len(p) < size)]
            offsets = dict(zip(long, model.offsets(long), strict=True))
            fits = {}
            for passage, found in offsets.items():
                if long_passages == "truncate":
                    fits[passage] = fit_truncated(query_offsets, found, passage, model.room)
                else:
                    spans = self._window_spans(found, passage, size)
                    fits[passage] = Fit(spans, query_stop, truncated=not whole)
            return [fits.get(p) or Fit([(0, len(p))]) for p in passages]

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
