"""Searches the fastest number format and batch size of sentence-transformers on this machine."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.peer_report import Setting
from gpurerank.benchmark.implementations import (
    Contender,
    cross_encoder_contender,
    load_cross_encoder,
)
from gpurerank.benchmark.synthetic_text import Request
from gpurerank.benchmark.timing import timed_ms

TUNED = "sentence-transformers, tuned"
BATCH_SIZES = (8, 16, 32, 64, 128, 256)


def find_fastest(
    folder: str,
    device: torch.device,
    dtypes: list[str],
    max_length: int,
    float32_model: Any,
    request: Request,
    limit_s: float,
) -> tuple[Contender, list[Setting]]:
    """Tries formats and batch sizes on one request.

    Args:
        folder: The model.
        device: Where it runs.
        dtypes: 16-bit formats to try; float32 is tried if there is none.
        max_length: Tokens per pair.
        float32_model: The float32 ``CrossEncoder``, which is loaded already.
        request: What is scored; batch sizes from its number of passages up are the same.
        limit_s: Seconds after which no new setting is tried.

    Returns:
        The fastest contender, and all settings that were tried.
    """
    tried: list[tuple[Setting, Contender]] = []
    deadline = time.monotonic() + limit_s
    for dtype in dtypes or ["float32"]:
        model = float32_model
        if dtype != "float32":
            model = load_cross_encoder(folder, device, dtype, max_length)
        tried += _try_batch_sizes(model, dtype, request, deadline, is_first=not tried)
    _, fastest = min(tried, key=lambda item: item[0].time_ms)
    return replace(fastest, name=TUNED), [setting for setting, _ in tried]


def _try_batch_sizes(
    model: Any, dtype: str, request: Request, deadline: float, *, is_first: bool
) -> list[tuple[Setting, Contender]]:
    tried: list[tuple[Setting, Contender]] = []
    slower_in_a_row = 0
    for batch_size in BATCH_SIZES:
        is_late = time.monotonic() > deadline and (tried or not is_first)
        if slower_in_a_row == 2 or is_late:
            break
        contender = cross_encoder_contender(model, dtype, batch_size)
        contender.rank(request.query, request.passages[:batch_size])
        rank = partial(contender.rank, request.query, request.passages)
        times_ms = [timed_ms(rank)]
        if times_ms[0] < 1_000:
            times_ms += [timed_ms(rank), timed_ms(rank)]
        fastest_ms = min((setting.time_ms for setting, _ in tried), default=float("inf"))
        slower_in_a_row = slower_in_a_row + 1 if min(times_ms) > fastest_ms else 0
        setting = Setting(dtype, batch_size, len(request.passages), min(times_ms))
        tried.append((setting, contender))
        if batch_size >= len(request.passages):
            break
    return tried
