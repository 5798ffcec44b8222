"""What the device can do at best: matrix products in each format, and memory traffic."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from gpurerank.benchmark.records import MatrixRate
from gpurerank.benchmark.shapes import ModelShape
from gpurerank.models.devices import DTYPES

# Large enough to reach the peak, small enough to end at once on two cores.
SQUARE = {"cpu": 2_048, "cuda": 8_192}
ROWS = {"cpu": 4_096, "cuda": 32_768}
COPIED_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}
TRIES = 5


def matrix_rates(
    device: torch.device, dtypes: Sequence[str], shape: ModelShape | None
) -> list[MatrixRate]:
    """The best rate of a large square product and of the model's own products, by format."""
    side, rows = SQUARE.get(device.type, 4_096), ROWS.get(device.type, 8_192)
    products = [(side, side, side), *(shape.products(rows) if shape else [])]
    return [_rate(device, dtype, product) for dtype in dtypes for product in products]


def best_rate(rates: Sequence[MatrixRate]) -> float:
    """The highest of all, in operations a second; the floor is reckoned with it."""
    return max((rate.giga_operations_s for rate in rates), default=0.0) * 1e9


def bandwidth_giga_bytes_s(device: torch.device) -> float:
    """Bytes read and written a second by a large copy, in 10^9."""
    size = COPIED_BYTES.get(device.type, 1 << 28)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return round(2 * size / _best_s(lambda: target.copy_(source), device) / 1e9, 2)


@torch.inference_mode()
def _rate(device: torch.device, dtype: str, product: tuple[int, int, int]) -> MatrixRate:
    rows, inner, columns = product
    left = torch.randn(rows, inner, device=device, dtype=DTYPES[dtype])
    right = torch.randn(inner, columns, device=device, dtype=DTYPES[dtype])
    out = torch.empty(rows, columns, device=device, dtype=DTYPES[dtype])
    seconds = _best_s(lambda: torch.mm(left, right, out=out), device)
    return MatrixRate(
        dtype, rows, inner, columns, round(2 * rows * inner * columns / seconds / 1e9, 3)
    )


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    """The least time of one call; on a GPU of a run of ten, which hides the launch."""
    calls = 10 if device.type == "cuda" else 1
    work()
    best = float("inf")
    for _ in range(TRIES):
        _wait(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        _wait(device)
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
