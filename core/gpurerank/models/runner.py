"""From token ids to outputs in input order, over a packed row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gpurerank.models.graphs import (
    WIDEST,
    Forward,
    GraphedForward,
    cuda_capture,
    graph_width,
)
from gpurerank.models.memory import guarded
from gpurerank.models.packing import PackedRow, Prefix, Tokens, pack
from gpurerank.types import FloatArray, Rows

Restore = Callable[[Tensor, PackedRow], Rows]

# Rows of ever new widths tear the heap into pieces (99 MB after 300 calls of 20 passages, 1 MB with
# these), and oneDNN builds a kernel for each width that it sees.
_CPU_STEP = 64


class RowRunner:
    """Runs batches of sequences without padding.

    ``prepare`` touches neither model nor device, so one thread may lay out a batch while another
    runs the one before.

    Args:
        forward: From a row on the device to one output a sequence.
        device: Where it runs.
        position_offset: First position of a sequence.
        restore: From what ``forward`` gave for a row to one output a sequence, in the batch's
            order; None where it gives one a sequence.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        position_offset: int,
        restore: Restore | None = None,
    ) -> None:
        self._device = device
        self._position_offset = position_offset
        self._forward: Forward = lambda row: forward(row.to(device))
        self._pinned = device.type == "cuda"
        self._width: Callable[[int], int] = lambda tokens: -(-tokens // _CPU_STEP) * _CPU_STEP
        self._restore = restore or in_order
        # A graph holds one output a sequence.
        self._graphed: GraphedForward | None = None
        if self._pinned and restore is None:
            with torch.cuda.device(device):
                self._graphed = GraphedForward(forward, device, cuda_capture())
            self._forward, self._width = self._graphed, graph_width

    def replays(self, tokens: Sequence[Tokens]) -> bool:
        """Whether a batch may be replayed from a graph, which there is none of with prefixes."""
        graphed = self._graphed is not None and self._graphed.recording
        return graphed and sum(map(len, tokens)) <= WIDEST

    def prepare(self, tokens: Sequence[Tokens], prefixes: Sequence[Prefix] = ()) -> PackedRow:
        """Lays a batch out on the host; a causal model's prefixes once for all that have them.

        Raises:
            DeviceError: The GPU is lost; its driver grants page-locked memory.
        """
        width = int if prefixes and self._graphed is not None else self._width
        return guarded(
            lambda: pack(
                tokens,
                self._position_offset,
                width=width,
                pinned=self._pinned,
                prefixes=prefixes,
            ),
            self._device,
        )

    def run(self, row: PackedRow) -> Rows:
        """Outputs in the order of the batch, one a sequence.

        Raises:
            OutOfMemoryError: The batch does not fit.
            DeviceError: The GPU is lost.
            ScoringError: The model failed.
        """
        return guarded(lambda: self._outputs(row), self._device)

    @torch.inference_mode()
    def _outputs(self, row: PackedRow) -> Rows:
        if not self._pinned:
            return self._restore(self._forward(row), row)
        with torch.cuda.device(self._device):
            return self._restore(self._forward(row), row)


def in_order(outputs: Tensor, row: PackedRow) -> FloatArray:
    """Outputs of a row, put back into the order of its batch."""
    found = outputs[: row.layout.count].float().cpu().numpy()
    restored = np.empty_like(found)
    restored[row.order] = found
    return restored
