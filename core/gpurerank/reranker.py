"""The facade: a query and passages in, the best passages out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from gpurerank.awaiting import await_scores
from gpurerank.blended import BlendedScorer, on_top
from gpurerank.cache import CachedScorer, ScoreStore
from gpurerank.calls import Call, calling, current_call
from gpurerank.chunking import Fit
from gpurerank.cross_encoder import CrossEncoder, LongPassages
from gpurerank.errors import ClosedError, InputError
from gpurerank.progress import progress_bar
from gpurerank.ranking import logit_of, rank
from gpurerank.remote.scorer import RemoteScorer
from gpurerank.request import AskedPairs, PairsPlan, Plan, check_request
from gpurerank.reranker_options import OnError, RerankerOptions
from gpurerank.types import CutOff, PairScorer, RankedPassage, Secret

if TYPE_CHECKING:
    from gpurerank.engine.stats import EngineStats

# What a Reranker makes by itself.
Owned = CrossEncoder | BlendedScorer | RemoteScorer


class Reranker:
    """Ranks passages for a query with a cross-encoder. Safe to call from any thread or task.

    Objects with the same model share one copy of it; the last that is closed frees its memory, and
    one that is merely dropped leaves it loaded for the next. A blank passage scores 0 and is not
    shown to the model.

    Args:
        model: "embedded", a folder, or a hub id such as "BAAI/bge-reranker-v2-m3".
        device: "auto", a torch device such as "cuda:1", or several, such as "cuda:0,cuda:1": one
            copy of the model on each, which share the work.
        dtype: "auto" (bfloat16 where the hardware multiplies in it), "float32", "bfloat16" or
            "float16".
        max_length: Tokens of a pair; the model's own limit may be lower.
        long_passages: "windows" scores a long passage by its best window, whose span is returned;
            "truncate" cuts it, and says so.
        revision: Branch, tag or commit on the hub.
        instruction: Prompt, for models that take one.
        positive_label: Which of two labels means relevant; needed for models with two.
        timeout_s: Deadline of a call in seconds.
        on_error: What ``rank`` does when the model or the deadline fails: "raise", or "keep_order"
            to return the input order, marked with the error. Wrong input always raises.
        trust_remote_code: Whether code from the model's repository may run.
        cache: Where scores are remembered, such as ``MemoryStore()``; None for nowhere.
        base_url: A server that scores in place of a model in this process, which then needs no
            torch: gpurerank's own or one of another kind, see RemoteScorer. ``model`` is then the
            name that the server knows, passages reach it whole, however long, and
            ``long_passages="truncate"`` lets it cut, of which results say nothing; what only a
            model in this process can do is refused.
        api_key: Of that server; a text or pydantic's SecretStr.

    Raises:
        InputError: An option is wrong.
        ModelError: The model cannot be loaded, or is no reranker.
    """

    def __init__(
        self,
        model: str = "embedded",
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int = 512,
        long_passages: LongPassages = "windows",
        revision: str | None = None,
        instruction: str | None = None,
        positive_label: int | None = None,
        timeout_s: float | None = None,
        on_error: OnError = "raise",
        trust_remote_code: bool = False,
        cache: ScoreStore | None = None,
        base_url: str | None = None,
        api_key: str | Secret | None = None,
    ) -> None:
        self._options = RerankerOptions(
            model=model,
            device=device,
            dtype=dtype,
            max_length=max_length,
            long_passages=long_passages,
            revision=revision,
            instruction=instruction,
            positive_label=positive_label,
            timeout_s=timeout_s,
            on_error=on_error,
            trust_remote_code=trust_remote_code,
            cache=cache,
            base_url=base_url,
            api_key=api_key,
        )
        self._options.check()
        if base_url is not None:
            remote = self._options.remote_scorer(base_url)
            self._attach(remote, None, own=remote)
            return
        encoder = CrossEncoder(
            model,
            device=device,
            dtype=dtype,
            revision=revision,
            max_length=max_length,
            instruction=instruction,
            positive_label=positive_label,
            trust_remote_code=trust_remote_code,
        )
        local = on_top(encoder, device=device, dtype=dtype)
        self._attach(local, encoder, own=local)

    @classmethod
    def from_options(cls, options: RerankerOptions) -> Reranker:
        """The reranker of a set of options."""
        return cls(
            **{name: getattr(options, name) for name in RerankerOptions.__dataclass_fields__}
        )

    @classmethod
    def from_scorer(
        cls,
        scorer: PairScorer,
        *,
        name: str,
        timeout_s: float | None = None,
        on_error: OnError = "raise",
        cache: ScoreStore | None = None,
    ) -> Reranker:
        """A reranker over any PairScorer; passages reach it whole, however long.

        Args:
            scorer: What scores the pairs.
            name: What provenance calls it; the cache keeps its scores under this name.
            timeout_s: As in Reranker; a synchronous scorer is not interrupted, only found late.
            on_error: As in Reranker.
            cache: As in Reranker.
        """
        options = RerankerOptions(model=name, timeout_s=timeout_s, on_error=on_error, cache=cache)
        return _with_scorer(scorer, options)

    def _attach(
        self, scorer: PairScorer, encoder: CrossEncoder | None, own: Owned | None = None
    ) -> None:
        """Takes a scorer; ``own`` is the same where this object made it and is to close it."""
        self._encoder = encoder
        self._own = own
        self._given = scorer
        self._scorer = scorer
        if self._options.cache is not None:
            identity = self._own.identity() if self._own else [self._options.model]
            self._scorer = CachedScorer(scorer, self._options.cache, identity=identity)

    def __reduce__(self) -> tuple[Callable[..., Reranker], tuple[object, ...]]:
        if self._own is None:
            return _with_scorer, (self._given, self._options)
        return Reranker.from_options, (self._options,)

    def __deepcopy__(self, memo: object) -> Reranker:
        # A model is shared and a scorer of the caller's own is not ours to copy.
        if self._own is None:
            return _with_scorer(self._given, self._options)
        return Reranker.from_options(self._options)

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model_name(self) -> str:
        """The model, as it was asked for, or as its server calls it."""
        if isinstance(self._own, RemoteScorer):
            return self._own.model_name
        return self._options.model

    @property
    def options(self) -> RerankerOptions:
        """What this reranker was made with."""
        return self._options

    def rank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """Ranks passages for a query, best first.

        Args:
            query: What is asked; not blank.
            passages: What is ranked; any number, unchanged.
            top_k: Passages returned at most; None for all, 0 for none.
            threshold: Lowest score that is returned; none may reach it.
            cut_off: ``LargestGap()`` or ``TokenBudget(max_tokens=...)``.

        Raises:
            InputError: The query is blank, a passage is not a string, or a limit is out of range.
            ScoringError: The model failed, and ``on_error`` is "raise".
            DeadlineError: The deadline passed, and ``on_error`` is "raise".
        """
        listed = check_request(query, passages, top_k, threshold)
        if not listed or top_k == 0:
            return []
        try:
            with self._call():
                fits = self._fit(query, listed)
                plan = Plan(query, listed, fits)
                scores = self._score(plan.pairs)
                self._count_tokens(plan)
            return self._ranked(plan, scores, top_k, threshold, cut_off)
        except Exception as error:
            return self._after(error, listed, top_k)

    async def arank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """As ``rank``, without blocking the event loop; cancelling stops at the next batch."""
        listed = check_request(query, passages, top_k, threshold)
        if not listed or top_k == 0:
            return []
        try:
            with self._call():
                fits = await self._afit(query, listed)
                plan = Plan(query, listed, fits)
                scores = await await_scores(self._scorer, plan.pairs) if plan.pairs else []
                await self._acount_tokens(plan)
            return self._ranked(plan, scores, top_k, threshold, cut_off)
        except Exception as error:
            return self._after(error, listed, top_k)

    def score_pairs(
        self, pairs: Iterable[tuple[str, str]], *, show_progress: bool = False
    ) -> list[float]:
        """The score of each (query, passage), in [0, 1], input order; long passages as in ``rank``.

        Raises:
            InputError: A pair is not two strings.
            ScoringError: The model failed.
            DeadlineError: The deadline passed.
        """
        asked = AskedPairs(pairs)
        with self._call():
            plan = asked.planned({q: self._fit(q, some) for q, some in asked.passages.items()})
            with progress_bar("scoring", len(plan.pairs), shown=show_progress):
                found = self._score(plan.pairs)
            self._count_tokens(plan)
        return plan.best(found)

    async def ascore_pairs(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking the event loop; cancelling stops the work."""
        asked = AskedPairs(pairs)
        with self._call():
            fits = {q: await self._afit(q, some) for q, some in asked.passages.items()}
            plan = asked.planned(fits)
            found = await await_scores(self._scorer, plan.pairs) if plan.pairs else []
            await self._acount_tokens(plan)
        return plan.best(found)

    def stats(self) -> EngineStats | None:
        """What the model has done for all its callers, and what waits; None for another scorer."""
        return None if self._encoder is None else self._encoder.stats()

    def late_stats(self) -> EngineStats | None:
        """The same of the late interaction that is blended with the model; None without one."""
        return self._own.late_stats() if isinstance(self._own, BlendedScorer) else None

    def close(self) -> None:
        """Gives the model back; the last user frees its memory. Leaves a server."""
        if self._own is not None:
            self._own.close()

    def _score(self, pairs: list[tuple[str, str]]) -> list[float]:
        scores = self._scorer.score_pairs(pairs) if pairs else []
        # A scorer of the caller's own cannot be interrupted, only found late.
        current_call().check_deadline()
        return scores

    def _count_tokens(self, plan: Plan | PairsPlan) -> None:
        """Counts the tokens of every pair, whether its score was computed or remembered."""
        call = current_call()
        if call.counts_tokens and self._encoder is not None:
            call.count("tokens", plan.total(self._encoder.pair_lengths(plan.pairs)))

    async def _acount_tokens(self, plan: Plan | PairsPlan) -> None:
        call = current_call()
        if call.counts_tokens and self._encoder is not None:
            call.count("tokens", plan.total(await self._encoder.apair_lengths(plan.pairs)))

    def _call(self) -> AbstractContextManager[Call]:
        return calling(timeout_s=self._options.timeout_s)

    def _fit(self, query: str, passages: list[str]) -> list[Fit]:
        if self._encoder is None:
            return [Fit([(0, len(p))]) for p in passages]
        return self._encoder.fit(query, passages, self._options.long_passages)

    async def _afit(self, query: str, passages: list[str]) -> list[Fit]:
        if self._encoder is None:
            return self._fit(query, passages)
        return await self._encoder.afit(query, passages, self._options.long_passages)

    def _ranked(
        self,
        plan: Plan,
        scores: list[float],
        top_k: int | None,
        threshold: float | None,
        cut_off: CutOff | None,
    ) -> list[RankedPassage]:
        best, spans = plan.best(scores)
        scored = [
            RankedPassage(
                index=index,
                passage=passage,
                score=best[index],
                logit=logit_of(best[index]),
                rank=0,
                span=spans[index],
                truncated=plan.fits[index].truncated,
                model=self.model_name,
                previous_rank=index + 1,
            )
            for index, passage in enumerate(plan.passages)
        ]
        return rank(scored, top_k=top_k, threshold=threshold, cut_off=cut_off)

    def _after(
        self, error: Exception, passages: list[str], top_k: int | None
    ) -> list[RankedPassage]:
        if self._options.on_error == "raise" or isinstance(error, InputError | ClosedError):
            raise error
        kept = [
            RankedPassage(
                index=index,
                passage=passage,
                score=None,
                logit=None,
                rank=index + 1,
                span=None,
                truncated=False,
                model=self.model_name,
                previous_rank=index + 1,
                error=f"{type(error).__name__}: {error}",
            )
            for index, passage in enumerate(passages)
        ]
        return kept if top_k is None else kept[:top_k]


def _with_scorer(scorer: PairScorer, options: RerankerOptions) -> Reranker:
    options.check()
    reranker = Reranker.__new__(Reranker)
    reranker._options = options
    reranker._attach(scorer, None)
    return reranker
