"""Splitting work into batches by tokens, so that cost and memory follow tokens alone."""

from __future__ import annotations

from collections.abc import Sequence

from gpurerank.errors import InputError


def plan_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Groups items into batches of at most ``max_tokens`` tokens, longest item first.

    Args:
        lengths: Tokens of each item.
        max_tokens: Tokens that one batch may hold.

    Returns:
        Item indices of each batch; every item stands in exactly one, neighbours in length together.

    Raises:
        InputError: An item alone is over the budget.
    """
    # Longest first: an out-of-memory error then shows in the first batch, not the last.
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    room = 0
    for index in order:
        if lengths[index] > max_tokens:
            raise InputError(
                f"pair {index} has {lengths[index]} tokens, over the batch budget of {max_tokens};"
                " raise max_tokens or lower max_length"
            )
        if not batches or lengths[index] > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(index)
        room -= lengths[index]
    return batches
