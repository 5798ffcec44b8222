"""Fusion: several rankings of the same passages made into one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpurerank.awaiting import together
from gpurerank.errors import InputError
from gpurerank.ranking import rank
from gpurerank.request import check_request
from gpurerank.types import CutOff, RankedPassage, Ranker

Method = Literal["reciprocal", "weighted"]
Shares = NDArray[np.float64]


class Fusion:
    """Ranks passages by what several rankers, and the order they came in, say together.

    "reciprocal" sums ``weight / (constant + rank)``, so that scores of any scale mix and one
    ranker's far outlier does little (reciprocal rank fusion: Cormack, Clarke and Buettcher, SIGIR
    2009). "weighted" sums ``weight * logit``, each ranker's logits of this query stretched to
    [0, 1] (a convex combination: Bruch, Gai and Ingber, ACM TOIS 2023, arXiv:2210.11934): it knows
    how far apart passages are, and wants weights that were measured. Either way a score is the
    share of the best there can be, in [0, 1].

    Args:
        rankers: Each ranks every passage, such as a BiEncoder or a Reranker.
        method: "reciprocal" or "weighted".
        weights: One for each ranker, over 0; None for all the same.
        input_weight: Weight of the order in which passages come, the first stage's; 0 ignores it.
            With "weighted" it must be 0, because the order has no scores.
        constant: What "reciprocal" adds to each rank; a large one flattens the top.

    Raises:
        InputError: There is nothing to fuse, or a number is out of range.
    """

    def __init__(
        self,
        rankers: Sequence[Ranker],
        *,
        method: Method = "reciprocal",
        weights: Sequence[float] | None = None,
        input_weight: float = 0.0,
        constant: float = 60.0,
    ) -> None:
        self._rankers = tuple(rankers)
        self._weights = (1.0,) * len(self._rankers) if weights is None else tuple(weights)
        self._method = method
        self._input_weight = input_weight
        self._constant = constant
        self._check()

    @property
    def model_name(self) -> str:
        """Every ranker's name."""
        names = [ranker.model_name for ranker in self._rankers]
        return " + ".join(["input order", *names] if self._input_weight else names)

    def rank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """The passages by their fused score, best first: both score and logit.

        ``span`` is that of the first ranker that gives one. A ranker that failed and kept the order
        counts for nothing, and ``error`` says so; where no ranker is left, the order is kept. What
        a ranker leaves out, as a Cascade does, gets nothing from it. Raises what the rankers raise.
        """
        listed = check_request(query, passages, top_k, threshold)
        if not listed or top_k == 0:
            return []
        rankings = [ranker.rank(query, listed) for ranker in self._rankers]
        return self._fused(listed, rankings, top_k, threshold, cut_off)

    async def arank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """As ``rank``, the rankers at the same time, without blocking the event loop."""
        listed = check_request(query, passages, top_k, threshold)
        if not listed or top_k == 0:
            return []
        rankings = await together(*(ranker.arank(query, listed) for ranker in self._rankers))
        return self._fused(listed, rankings, top_k, threshold, cut_off)

    def _check(self) -> None:
        if self._method not in ("reciprocal", "weighted"):
            raise InputError(f"method is {self._method!r}; it must be 'reciprocal' or 'weighted'")
        if not self._rankers:
            raise InputError("there is no ranker to fuse; give one with input_weight, or two")
        if len(self._weights) != len(self._rankers):
            raise InputError(
                f"there are {len(self._weights)} weights for {len(self._rankers)} rankers"
            )
        for weight in self._weights:
            if not 0 < weight < math.inf:
                raise InputError(f"a weight is {weight}; it must be over 0 and finite")
        if not 0 <= self._input_weight < math.inf:
            raise InputError(f"input_weight is {self._input_weight}; it must be 0 or more")
        if self._input_weight and self._method == "weighted":
            raise InputError("input_weight needs method='reciprocal': an order has no scores")
        if not 0 <= self._constant < math.inf:
            raise InputError(f"constant is {self._constant}; it must be 0 or more")

    def _fused(
        self,
        passages: list[str],
        rankings: Sequence[list[RankedPassage]],
        top_k: int | None,
        threshold: float | None,
        cut_off: CutOff | None,
    ) -> list[RankedPassage]:
        scored = self._scored(passages, rankings)
        if scored[0].score is None:
            return scored[:top_k]
        return rank(scored, top_k=top_k, threshold=threshold, cut_off=cut_off)

    def _scored(
        self, passages: list[str], rankings: Sequence[list[RankedPassage]]
    ) -> list[RankedPassage]:
        """Every passage, input order, with its fused score, or None where all rankers failed."""
        failed = [found[0].error for found in rankings if found and found[0].error is not None]
        usable = [
            (weight, found)
            for weight, found in zip(self._weights, rankings, strict=True)
            if not found or found[0].error is None
        ]
        fused = self._sum(len(passages), usable).tolist() if usable else [None] * len(passages)
        seen: dict[int, RankedPassage] = {}
        read: set[int] = set()
        for _, found in usable:
            for passage in found:
                if passage.index not in seen or seen[passage.index].span is None:
                    seen[passage.index] = passage
                if not passage.truncated:
                    read.add(passage.index)
        return [
            RankedPassage(
                index=index,
                passage=passage,
                score=fused[index],
                logit=fused[index],
                rank=index + 1,
                span=seen[index].span if index in seen else None,
                truncated=index in seen and index not in read,
                model=self.model_name,
                previous_rank=index + 1,
                error="; ".join(failed) or None,
            )
            for index, passage in enumerate(passages)
        ]

    def _sum(self, count: int, usable: Sequence[tuple[float, list[RankedPassage]]]) -> Shares:
        """The weighted mean of every ranker's shares, shape (passages,), in [0, 1]."""
        weights = [weight for weight, _ in usable]
        parts = [self._shares(count, found) for _, found in usable]
        if self._input_weight:
            weights.append(self._input_weight)
            parts.append(self._reciprocal(np.arange(1, count + 1)))
        # In the order given: equal sums must come out equal to the last bit.
        total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        return np.asarray(total, dtype=np.float64) / math.fsum(weights)

    def _shares(self, count: int, found: list[RankedPassage]) -> Shares:
        """What one ranker gives each passage, in [0, 1]; 0 for what it left out."""
        shares = np.zeros(count)
        rows = [passage.index for passage in found]
        if not found:
            return shares
        if self._method == "reciprocal":
            shares[rows] = self._reciprocal(np.array([passage.rank for passage in found]))
        else:
            shares[rows] = _stretched(found)
        return shares

    def _reciprocal(self, ranks: NDArray[np.int_]) -> Shares:
        return np.asarray((self._constant + 1.0) / (self._constant + ranks), dtype=np.float64)


def _stretched(found: list[RankedPassage]) -> Shares:
    """Logits moved and scaled so that the lowest is 0 and the highest 1; all 1 where they agree.

    A blank passage gets 0 and stretches nothing: its logit is a mark, not a measurement.
    """
    logits = np.array([passage.logit for passage in found], dtype=np.float64)
    real = np.array([bool(passage.passage.strip()) for passage in found])
    shares = np.zeros(len(found))
    if real.any():
        low, high = logits[real].min(), logits[real].max()
        shares[real] = (logits[real] - low) / (high - low) if high > low else 1.0
    return shares
