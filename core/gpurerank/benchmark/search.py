"""The best setting of sentence-transformers on this machine, found by trying."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from gpurerank.benchmark.contenders import (
    BEST,
    Contender,
    Pairs,
    of_sentence_transformer,
    sentence_transformer,
)
from gpurerank.benchmark.records import Setting
from gpurerank.benchmark.rounds import timed_ms

BATCH_SIZES = (8, 16, 32, 64, 128, 256)


def find_best(
    folder: str,
    device: torch.device,
    dtypes: list[str],
    max_length: int,
    float32: Any,
    pairs: Pairs,
    limit_s: float,
) -> tuple[Contender, list[Setting]]:
    """The fastest format and batch size for some pairs, and all that were tried.

    Args:
        folder: The model.
        device: Where it runs.
        dtypes: 16-bit formats to try; float32 is tried where there is none.
        max_length: Tokens of a pair.
        float32: The float32 model that is loaded already.
        pairs: What is scored; batch sizes from their number up are the same.
        limit_s: Of the search; no new setting begins after it.
    """
    tried: list[Setting] = []
    best: tuple[float, Contender] | None = None
    ends = time.monotonic() + limit_s
    for dtype in dtypes or ["float32"]:
        model = float32
        if dtype != "float32":
            model = sentence_transformer(folder, device, dtype, max_length)
        for contender, setting in _sizes(model, dtype, pairs, ends, started=best is not None):
            tried.append(setting)
            if best is None or setting.time_ms < best[0]:
                best = setting.time_ms, contender
    if best is None:
        return of_sentence_transformer(BEST, float32, "float32", 32), tried
    return best[1], tried


def _sizes(
    model: Any, dtype: str, pairs: Pairs, ends: float, *, started: bool
) -> list[tuple[Contender, Setting]]:
    found: list[tuple[Contender, Setting]] = []
    worse = 0
    for size in BATCH_SIZES:
        late = time.monotonic() > ends and (found or started)
        if worse == 2 or late:
            break
        contender = of_sentence_transformer(BEST, model, dtype, size)
        contender.score(pairs[:size])
        score = partial(contender.score, pairs)
        taken = [timed_ms(score)]
        if taken[0] < 1_000:
            taken += [timed_ms(score), timed_ms(score)]
        least = min((setting.time_ms for _, setting in found), default=float("inf"))
        worse = worse + 1 if min(taken) > least else 0
        found.append((contender, Setting(dtype, size, len(pairs), min(taken))))
        if size >= len(pairs):
            break
    return found
