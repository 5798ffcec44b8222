"""What an engine says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done and has before it.

    Attributes:
        batches: Batches that have run.
        items: Items that they had.
        tokens: Tokens that they had.
        padding: Tokens of padding that ran beside them.
        busy_s: Seconds that they took, summed over lanes.
        waiting_items: Items that have no result yet.
        tokens_per_s: Rate of the last batches, of one lane.
        heartbeat_age_s: Seconds since a busy lane last ended a batch; 0 while all are idle.
    """

    batches: int
    items: int
    tokens: int
    padding: int
    busy_s: float
    waiting_items: int
    tokens_per_s: float
    heartbeat_age_s: float
