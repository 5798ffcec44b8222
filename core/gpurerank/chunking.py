"""Long passages as overlapping windows, and the best window's score as the passage's (MaxP)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpurerank.errors import InputError
from gpurerank.types import FloatArray, IntArray

OVERLAP_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Fit:
    """How one passage is shown to a model of limited length.

    Attributes:
        spans: Characters [start, stop) of each window, in order; one where it fits whole.
        query_stop: Characters of the query that are shown; None for all.
        truncated: Part of the passage or of the query is not read, for its length or because a
            word is too long for the tokenizer.
    """

    spans: list[tuple[int, int]]
    query_stop: int | None = None
    truncated: bool = False


def window_size(query_tokens: int, room: int) -> int:
    """Tokens that a window may have beside a query.

    A quarter of the room is kept for the passage, however long the query is.
    """
    return max(room - query_tokens, room // 4, 1)


def cut_query(query: IntArray, kept: int) -> int | None:
    """Characters of a query whose first ``kept`` tokens are shown; None for all of it."""
    return None if kept >= len(query) else int(query[max(kept, 1) - 1, 1])


def fit_truncated(query: IntArray, passage: IntArray, text: str, room: int) -> Fit:
    """Fits a passage by cutting the longer of both texts.

    Args:
        query: Characters of each token of the query, shape (tokens, 2).
        passage: The same of the passage.
        text: The passage.
        room: Tokens that both may have together.
    """
    kept_query, kept = longest_first(len(query), len(passage), room)
    whole = kept == len(passage)
    stop = len(text) if whole else int(passage[kept - 1, 1]) if kept else 0
    query_stop = cut_query(query, kept_query)
    return Fit([(0, stop)], query_stop, truncated=not whole or query_stop is not None)


def window_spans(offsets: IntArray, text: str, size: int) -> list[tuple[int, int]]:
    """Character spans of windows that hold at most ``size`` tokens and cover the text.

    Windows have nearly equal token counts and overlap by about a quarter; they begin and end at
    word boundaries where the text has any, so that a window's tokens are those of the whole.

    Args:
        offsets: Characters [start, stop) of each token, shape (tokens, 2), ascending.
        text: The passage.
        size: Tokens that a window may hold, at least 1.
    """
    if size < 1:
        raise InputError(f"a window of {size} tokens holds nothing; raise max_length")
    tokens = len(offsets)
    if tokens <= size:
        return [(0, len(text))]
    overlap = int(size * OVERLAP_SHARE)
    count = -(-(tokens - overlap) // (size - overlap))
    firsts = np.linspace(0, tokens - size, count).astype(int)
    spans = [
        (
            _word_start(offsets, text, int(first), overlap // 2),
            _word_stop(offsets, text, int(first) + size - 1, overlap // 2),
        )
        for first in firsts
    ]
    spans[0] = (0, spans[0][1])
    spans[-1] = (spans[-1][0], len(text))
    return spans


def longest_first(query: int, passage: int, room: int) -> tuple[int, int]:
    """Tokens that remain of each text when both must fit ``room``.

    The longer text is cut first; where both are long each keeps half. Source: the rule
    ``longest_first`` of the tokenizers library.
    """
    short, long = sorted((query, passage))
    if short + long <= room:
        return query, passage
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (long, short) if query > passage else (short, long)


def max_passage_scores(
    window_scores: FloatArray, owners: IntArray, passage_count: int
) -> tuple[FloatArray, IntArray]:
    """Scores each passage by its best window (MaxP).

    Args:
        window_scores: Shape (windows,).
        owners: Passage index of each window, shape (windows,), ascending.
        passage_count: Passages in the request; each owns at least one window.

    Returns:
        The score of each passage, shape (passage_count,), and the index of its best window (the
        first among equals).

    Raises:
        InputError: A passage owns no window.

    Source: Dai and Callan, SIGIR 2019, arXiv:1905.09217.
    """
    best = np.full(passage_count, -1, dtype=np.int64)
    for window, owner in enumerate(owners):
        if best[owner] < 0 or window_scores[window] > window_scores[best[owner]]:
            best[owner] = window
    if passage_count and best.min() < 0:
        raise InputError(f"passage {int(best.argmin())} owns no window")
    return window_scores[best], best


def _word_start(offsets: IntArray, text: str, token: int, reach: int) -> int:
    """Start of the next word, at most ``reach`` tokens on; else of the token itself.

    Only ever inwards, so a window never outgrows its size; the overlap covers what is left out.
    """
    for later in range(token, min(len(offsets), token + reach + 1)):
        start = int(offsets[later, 0])
        if start == 0 or text[start].isspace() or text[start - 1].isspace():
            return start
    return int(offsets[token, 0])


def _word_stop(offsets: IntArray, text: str, token: int, reach: int) -> int:
    """End of the last whole word, at most ``reach`` tokens back; else of the token itself."""
    for earlier in range(token, max(-1, token - reach - 1), -1):
        stop = int(offsets[earlier, 1])
        if stop == len(text) or text[stop].isspace() or text[stop - 1].isspace():
            return stop
    return int(offsets[token, 1])
