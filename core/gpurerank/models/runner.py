"""Runs packed rows: from the tokens of a batch to outputs in input order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gpurerank.models.device_errors import run_guarded
from gpurerank.models.graphs import (
    MAX_GRAPH_TOKENS,
    Forward,
    GraphedForward,
    cuda_capture,
    graph_width,
)
from gpurerank.models.packing import PackedRow, Prefix, Tokens, pack
from gpurerank.types import FloatArray, Rows

ToRows = Callable[[Tensor, PackedRow], Rows]

# Rows are filled up to a multiple of this on a CPU. Ever new widths fragment the heap (99 MB after
# 300 calls of 20 passages, 1 MB with this step), and oneDNN builds a kernel for each width.
_CPU_STEP = 64


class RowRunner:
    """Runs batches of sequences without padding.

    ``prepare`` uses neither model nor device, so one thread may prepare a batch while another runs
    the one before.

    Args:
        forward: From a row on the device to one output per sequence.
        device: Where it runs.
        position_offset: First position id of a sequence.
        to_rows: From the outputs of a row to one row per sequence, in the batch's order; None where
            ``forward`` already gives one output per sequence.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        position_offset: int,
        to_rows: ToRows | None = None,
    ) -> None:
        self._device = device
        self._position_offset = position_offset
        self._forward: Forward = lambda row: forward(row.to(device))
        self._pinned = device.type == "cuda"
        self._width: Callable[[int], int] = lambda tokens: -(-tokens // _CPU_STEP) * _CPU_STEP
        self._to_rows = to_rows or restore_order
        # A graph holds one output per sequence.
        self._graphed: GraphedForward | None = None
        if self._pinned and to_rows is None:
            with torch.cuda.device(device):
                self._graphed = GraphedForward(forward, device, cuda_capture())
            self._forward, self._width = self._graphed, graph_width

    def may_replay(self, tokens: Sequence[Tokens]) -> bool:
        """Whether a graph may replay a batch; none can if prefixes are shared."""
        uses_graphs = self._graphed is not None and self._graphed.is_recording
        return uses_graphs and sum(map(len, tokens)) <= MAX_GRAPH_TOKENS

    def prepare(self, tokens: Sequence[Tokens], prefixes: Sequence[Prefix] = ()) -> PackedRow:
        """Packs a batch in host memory, with prefixes that a causal model computes once.

        Raises:
            DeviceError: The GPU is lost; its driver allocates the page-locked memory.
        """
        width = int if prefixes and self._graphed is not None else self._width
        return run_guarded(
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
        """Outputs in the order of the batch, one per sequence.

        Raises:
            OutOfMemoryError: The batch does not fit.
            DeviceError: The GPU is lost.
            ScoringError: The model failed.
        """
        return run_guarded(lambda: self._outputs(row), self._device)

    @torch.inference_mode()
    def _outputs(self, row: PackedRow) -> Rows:
        if not self._pinned:
            return self._to_rows(self._forward(row), row)
        with torch.cuda.device(self._device):
            return self._to_rows(self._forward(row), row)


def restore_order(outputs: Tensor, row: PackedRow) -> FloatArray:
    """Outputs of a row, shape (sequences, ...), in the order of its batch, float32."""
    sorted_outputs = outputs[: row.layout.output_count].float().cpu().numpy()
    restored = np.empty_like(sorted_outputs)
    restored[row.order] = sorted_outputs
    return restored
