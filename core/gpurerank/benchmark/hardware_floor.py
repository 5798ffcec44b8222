"""The least time a device can take for a model: operations of the model over the device's rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gpurerank.benchmark.bench_report import MatrixRate
from gpurerank.models.devices import DTYPES

BERT_FAMILY = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})
# Large enough for the peak rate, small enough to finish in a second on two cores.
SQUARE = {"cpu": 2_048, "cuda": 8_192}
ROWS = {"cpu": 4_096, "cuda": 32_768}


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The sizes of a BERT-like encoder under a classification head with one label."""

    layers: int
    hidden: int
    intermediate: int

    @classmethod
    def from_config(cls, config: Any) -> EncoderShape | None:
        """The sizes in a transformers configuration; None for another architecture."""
        if config.model_type not in BERT_FAMILY:
            return None
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size)

    def operations(self, lengths: Sequence[int]) -> float:
        """Multiplications and additions needed to score sequences of these lengths.

        A sequence of t tokens through l layers of hidden size h and intermediate size i takes

            linear layers   (l - 1) · 2 t (4 h² + 2 h i)   query, key, value, output; up, down
            attention       (l - 1) · 4 t² h               query times key, weights times value
            last layer      4 t h² + 4 h² + 4 h i          key and value of all tokens; the rest
                                                           of the CLS token only
            its attention   4 t h                          from the CLS token to all tokens
            head            2 (h² + h)                     dense or pooler, one label

        Padding is not counted, nor are softmax, normalization, activations and embedding
        look-ups, which are bound by memory.
        """
        h, i = self.hidden, self.intermediate
        per_token = 2 * (4 * h * h + 2 * h * i)
        total = 0.0
        for length in lengths:
            total += (self.layers - 1) * (per_token * length + 4 * length * length * h)
            total += 4 * length * h * h + 4 * h * h + 4 * h * i + 4 * length * h
            total += 2 * (h * h + h)
        return total


def measure_matrix_rates(
    device: torch.device, dtypes: Sequence[str], shape: EncoderShape | None
) -> list[MatrixRate]:
    """Measures a large square product and the model's own products in each number format."""
    side, rows = SQUARE.get(device.type, 4_096), ROWS.get(device.type, 8_192)
    products = [(side, side, side)]
    if shape is not None:
        h, i = shape.hidden, shape.intermediate
        products += [(rows, h, 3 * h), (rows, h, i), (rows, i, h)]
    return [_measure_rate(device, dtype, *product) for dtype in dtypes for product in products]


@torch.inference_mode()
def _measure_rate(
    device: torch.device, dtype: str, rows: int, inner: int, columns: int
) -> MatrixRate:
    left = torch.randn(rows, inner, device=device, dtype=DTYPES[dtype])
    right = torch.randn(inner, columns, device=device, dtype=DTYPES[dtype])
    out = torch.empty(rows, columns, device=device, dtype=DTYPES[dtype])
    seconds = shortest_s(lambda: torch.mm(left, right, out=out), device)
    giga_operations_s = 2 * rows * inner * columns / seconds / 1e9
    return MatrixRate(dtype, rows, inner, columns, round(giga_operations_s, 3))


def shortest_s(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several calls; on a GPU of runs of ten, to hide the launch."""
    is_cuda = device.type == "cuda"
    calls = 10 if is_cuda else 1
    times = []
    # The first repetition warms up.
    for _ in range(6):
        started = time.perf_counter()
        for _ in range(calls):
            work()
        if is_cuda:
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - started) / calls)
    return min(times[1:])
