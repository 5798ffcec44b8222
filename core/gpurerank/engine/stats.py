"""Counters of an engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done so far and what is waiting.

    Attributes:
        batches: Batches that have run.
        items: Items (pairs or texts) in those batches.
        tokens: Tokens in those batches, without padding.
        padding: Padding tokens in those batches.
        busy_s: Seconds that the batches took, summed over all lanes.
        waiting_items: Items submitted that have no result yet.
        prepared_items: Items of the batch that is prepared for the next idle lane.
        tokens_per_s: Moving average of the rate of recent batches, for one lane.
        full_tokens_per_s: Rate of full batches, for all lanes together; a guess before the first.
        heartbeat_age_s: Seconds that the longest running batch has taken so far; 0 while idle.
    """

    batches: int
    items: int
    tokens: int
    padding: int
    busy_s: float
    waiting_items: int
    prepared_items: int
    tokens_per_s: float
    full_tokens_per_s: float
    heartbeat_age_s: float
