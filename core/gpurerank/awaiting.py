"""Awaiting any scorer, also one that knows nothing of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gpurerank.calls import current_call
from gpurerank.errors import DeadlineError
from gpurerank.types import AsyncPairScorer, PairScorer


async def await_scores(scorer: PairScorer, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The scores of pairs; a synchronous scorer runs in a thread.

    Raises:
        DeadlineError: The deadline passed; a synchronous scorer's thread runs to its end unseen.
    """
    if isinstance(scorer, AsyncPairScorer):
        return await scorer.ascore_pairs(pairs)
    work = asyncio.to_thread(scorer.score_pairs, pairs)
    try:
        return await asyncio.wait_for(work, current_call().remaining_s())
    except asyncio.TimeoutError as error:
        if isinstance(error, DeadlineError):
            raise
        raise DeadlineError("the deadline passed before the scorer answered") from None
