"""The models of the contenders, each loaded once and shared by all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

from gpurerank.bi_encoder import BiEncoder
from gpurerank.cross_encoder import CrossEncoder
from gpurerank.evaluation.contender_specs import Plan, Stage, stages_of
from gpurerank.evaluation.replay import ProgressCallback, ReplayedPairs, ReplayedVectors
from gpurerank.late_interaction import LateInteraction
from gpurerank.models.blend import Blend
from gpurerank.reranker import Reranker
from gpurerank.types import PairScorer, Ranker, TextEmbedder

# Tokens of about 4,000 abstracts: in one collection many queries retrieve the same passages.
_TOKEN_MEMORY_BYTES = 1 << 30


class StageModels:
    """Every stage as a live ranker, as a replayed one, and with what embeds its passages.

    Args:
        device: As in ``Reranker``.
        dtype: As in ``Reranker``.
        provided: Rankers of the caller, which are used as they are and never closed.
    """

    def __init__(
        self, *, device: str, dtype: str, provided: Mapping[Stage, Ranker] | None = None
    ) -> None:
        self._device = device
        self._dtype = dtype
        self._live: dict[Stage, Ranker] = dict(provided or {})
        self._replayed: dict[Stage, Ranker] = {}
        self._replays: dict[Stage, ReplayedPairs | ReplayedVectors] = {}
        self._embedders: dict[Stage, TextEmbedder | None] = {}

    def live(self, stage: Stage) -> Ranker:
        """The ranker as in production: from strings to a ranking, all work in the call.

        Raises:
            InputError: An option is invalid, or the extra ``client`` is missing.
            ModelError: The model cannot be loaded.
        """
        if stage not in self._live:
            self._live[stage] = self._load(stage)
        return self._live[stage]

    def replayed(self, stage: Stage) -> Ranker:
        """The same ranking from scores that ``compute_missing`` computes once."""
        if stage not in self._replayed:
            live = self.live(stage)
            name = f"{stage.kind} {stage.model}"
            # By vectors where there are any: one serves every query that retrieves the passage.
            if isinstance(live, TextEmbedder):
                vectors = ReplayedVectors(live, name)
                self._replayed[stage], self._replays[stage] = vectors, vectors
            elif isinstance(live, PairScorer):
                pairs = ReplayedPairs(live, name)
                self._replayed[stage] = Reranker.from_scorer(pairs, name=name)
                self._replays[stage] = pairs
        return self._replayed[stage]

    def embedders(self, plan: Plan) -> list[TextEmbedder]:
        """What embeds the passages of the stages of a plan; may be empty.

        Embedding can be done ahead of a query, as an index does it. A BiEncoder caches what it
        embedded, for itself and for a cross-encoder that adds its cosines to the logit. Late
        interaction has nothing that an index stores.
        """
        for stage in stages_of(plan):
            if stage not in self._embedders:
                self._embedders[stage] = self._find_embedder(stage)
        embedders = [self._embedders[stage] for stage in stages_of(plan)]
        return [embedder for embedder in embedders if embedder is not None]

    def compute_missing(self, on_progress: ProgressCallback) -> None:
        """Computes the scores that replayed rankers lacked."""
        for replay in self._replays.values():
            replay.compute_missing(on_progress)

    def clear_scores(self) -> None:
        """Forgets the scores that no other query needs."""
        for replay in self._replays.values():
            replay.clear()

    @contextmanager
    def caching_tokens(self) -> Iterator[None]:
        """Keeps up to 1 GiB of token vectors for late interaction while its body runs."""
        with ExitStack() as stack:
            for stage in self._live:
                blend = self._read_blend(stage) if stage.kind == "cross-encoder" else None
                if blend is not None and blend.token_share:
                    late_interaction = LateInteraction(
                        blend.bi_encoder, device=self._device, dtype=self._dtype
                    )
                    stack.enter_context(closing(late_interaction))
                    stack.enter_context(late_interaction.remembering(_TOKEN_MEMORY_BYTES))
            yield

    def close(self) -> None:
        """Frees the models that were loaded here; those of the caller stay open."""
        loaded = [*self._live.items(), *self._embedders.items()]
        for stage, model in loaded:
            if stage.kind != "provided" and isinstance(model, BiEncoder | Reranker):
                model.close()

    def _find_embedder(self, stage: Stage) -> TextEmbedder | None:
        live = self.live(stage)
        if isinstance(live, TextEmbedder):
            return live
        if stage.kind != "cross-encoder":
            return None
        blend = self._read_blend(stage)
        if blend is None or blend.token_share:
            return None
        # The registry returns the bi-encoder that the cross-encoder itself uses, with its cache.
        return BiEncoder(blend.bi_encoder, device=self._device, dtype=self._dtype)

    def _read_blend(self, stage: Stage) -> Blend | None:
        with closing(
            CrossEncoder(stage.model, device=self._device, dtype=self._dtype)
        ) as cross_encoder:
            return cross_encoder.blend

    def _load(self, stage: Stage) -> Ranker:
        if stage.kind == "bi-encoder":
            return BiEncoder(stage.model, device=self._device, dtype=self._dtype)
        if stage.kind == "cross-encoder":
            return Reranker(stage.model, device=self._device, dtype=self._dtype)
        # Imported here because the extra ``client`` is optional.
        from gpurerank.remote.scorer import RemoteScorer

        return Reranker.from_scorer(RemoteScorer(stage.model), name=stage.model)
