"""The models of all contenders, each loaded once, in the ways that an evaluation needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Protocol

from gpurerank.bi_encoder import BiEncoder
from gpurerank.cross_encoder import CrossEncoder
from gpurerank.evaluation.contenders import Stage
from gpurerank.evaluation.known import KnownPairs, KnownVectors, Say
from gpurerank.late_interaction import LateInteraction
from gpurerank.models.blend import Blend
from gpurerank.reranker import Reranker
from gpurerank.types import PairScorer, Ranker, TextEmbedder

# Tokens of some 4,000 abstracts: one collection has many queries that find the same passages.
_READ_BYTES = 1 << 30


class _Learner(Protocol):
    def learn(self, say: Say) -> None: ...

    def forget(self) -> None: ...


class Stages:
    """Every model that the contenders need: live, known, and with passages embedded ahead.

    Args:
        device: As in ``Reranker``.
        dtype: As in ``Reranker``.
    """

    def __init__(self, *, device: str, dtype: str) -> None:
        self._device = device
        self._dtype = dtype
        self._live: dict[Stage, Ranker] = {}
        self._known: dict[Stage, Ranker] = {}
        self._learners: dict[Stage, _Learner] = {}
        self._embedders: dict[Stage, TextEmbedder | None] = {}

    def live(self, stage: Stage) -> Ranker:
        """The ranker as production has it: from strings to a ranking, everything in the call.

        Raises:
            InputError: An option is wrong, or the extra ``client`` is missing.
            ModelError: The model cannot be loaded.
        """
        if stage not in self._live:
            self._live[stage] = self._load(stage)
        return self._live[stage]

    def known(self, stage: Stage) -> Ranker:
        """The same ranking from scores that are computed once, when ``learn`` is called."""
        if stage not in self._known:
            live = self.live(stage)
            name = f"{stage.kind} {stage.model}"
            if isinstance(live, TextEmbedder):
                vectors = KnownVectors(live, name)
                self._known[stage], self._learners[stage] = vectors, vectors
            elif isinstance(live, PairScorer):
                pairs = KnownPairs(live, name)
                self._known[stage] = Reranker.from_scorer(pairs, name=name)
                self._learners[stage] = pairs
        return self._known[stage]

    def embedder(self, stage: Stage) -> TextEmbedder | None:
        """What embeds the passages of a stage, where anything does.

        That is work which can be done ahead of time: a BiEncoder remembers what it embedded, for
        itself and for a cross-encoder that was trained on top of its cosines. Late interaction
        has nothing that an index stores.
        """
        if stage not in self._embedders:
            self._embedders[stage] = self._find_embedder(stage)
        return self._embedders[stage]

    def adopt(self, stage: Stage, ranker: Ranker) -> None:
        """Uses a ranker of the caller's own as a stage."""
        self._live[stage] = ranker

    def learn(self, say: Say) -> None:
        """Computes all scores that were asked for and not known."""
        for learner in self._learners.values():
            learner.learn(say)

    @contextmanager
    def reading_once(self) -> Iterator[None]:
        """Remembers the tokens of a collection, or much of it, for late interaction meanwhile."""
        with ExitStack() as stack:
            for stage in self._live:
                blend = self._blend(stage) if stage.kind == "cross-encoder" else None
                if blend is not None and blend.token_share:
                    reader = LateInteraction(
                        blend.bi_encoder, device=self._device, dtype=self._dtype
                    )
                    stack.enter_context(closing(reader))
                    stack.enter_context(reader.remembering(_READ_BYTES))
            yield

    def forget(self) -> None:
        """Drops what only the queries so far needed."""
        for learner in self._learners.values():
            learner.forget()

    def close(self) -> None:
        """Gives back the models that were loaded here; those of the caller stay."""
        loaded = [ranker for stage, ranker in self._live.items() if stage.kind != "own"]
        embedders = [each for stage, each in self._embedders.items() if stage.kind != "own"]
        for model in (*loaded, *embedders):
            if isinstance(model, BiEncoder | Reranker):
                model.close()

    def _find_embedder(self, stage: Stage) -> TextEmbedder | None:
        live = self.live(stage)
        if isinstance(live, TextEmbedder):
            return live
        if stage.kind != "cross-encoder":
            return None
        blend = self._blend(stage)
        if blend is None or blend.token_share:
            return None
        return BiEncoder(blend.bi_encoder, device=self._device, dtype=self._dtype)

    def _blend(self, stage: Stage) -> Blend | None:
        with closing(
            CrossEncoder(stage.model, device=self._device, dtype=self._dtype)
        ) as cross_encoder:
            return cross_encoder.blend

    def _load(self, stage: Stage) -> Ranker:
        if stage.kind == "bi-encoder":
            return BiEncoder(stage.model, device=self._device, dtype=self._dtype)
        if stage.kind == "cross-encoder":
            return Reranker(stage.model, device=self._device, dtype=self._dtype)
        return Reranker.from_scorer(remote_scorer(stage.model), name=stage.model)


def remote_scorer(url: str) -> PairScorer:
    """The scorer behind an address: the one place where a URL becomes a scorer.

    Raises:
        InputError: The address is wrong, or the extra ``client`` is missing.
    """
    from gpurerank.remote.scorer import RemoteScorer

    return RemoteScorer(url)
