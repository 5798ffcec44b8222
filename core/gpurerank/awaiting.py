"""Awaiting any scorer, also one that knows nothing of asyncio, and several at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from gpurerank.calls import current_call
from gpurerank.errors import DeadlineError
from gpurerank.types import AsyncPairScorer, PairScorer

Result = TypeVar("Result")


async def together(*work: Coroutine[Any, Any, Result]) -> list[Result]:
    """The results of all, run at the same time; when one fails or is cancelled, so are the others.

    Raises:
        BaseException: What the first that failed raised.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


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
