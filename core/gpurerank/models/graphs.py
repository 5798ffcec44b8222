"""CUDA graphs: the kernel launches that dominate a forward pass over a small row, recorded once.

A graph has fixed shapes. Rows are filled up to a few widths, and their sequences to a few counts; a
shape that occurs a second time is recorded, and replayed from then on.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gpurerank.models.devices import DEVICE_SYNC_LOCK
from gpurerank.models.packing import Layout, PackedRow

# Tokens of a row above which a forward pass takes longer than its kernel launches.
MAX_GRAPH_TOKENS = 16_384
MAX_GRAPHS = 64
# Relative difference of a replay: the same kernels on the same inputs, up to the order of sums.
_TOLERANCE = 0.02

logger = logging.getLogger("gpurerank")

Forward = Callable[[PackedRow], Tensor]
Replay = Callable[[], None]
# Records a function: returns how to replay it, and the tensor that then holds its result.
Capture = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]


class GraphShape(NamedTuple):
    """The shapes that a graph fixes.

    Attributes:
        tokens: Tokens of the row.
        sequences: Sequences, rounded up to a power of two.
        max_seqlen: Tokens of the longest sequence, rounded up to a power of two.
    """

    tokens: int
    sequences: int
    max_seqlen: int

    @classmethod
    def of(cls, row: PackedRow) -> GraphShape:
        """The shape for a row whose width comes from ``graph_width``."""
        return cls(
            row.layout.tokens,
            _power_of_two(len(row.layout.cu_seqlens) - 1, 16),
            _power_of_two(row.layout.max_seqlen, 64),
        )


def graph_width(tokens: int) -> int:
    """Tokens that a row is filled up to: 8 widths per octave, so at most 12.5% more."""
    if tokens > MAX_GRAPH_TOKENS:
        return tokens
    step = max(64, 1 << max(0, (tokens - 1).bit_length() - 4))
    return -(-tokens // step) * step


@dataclass(frozen=True, slots=True)
class _Graph:
    row: PackedRow
    replay: Replay
    output: Tensor

    def run(self, row: PackedRow) -> Tensor:
        self.row.inputs.copy_(row.inputs, non_blocking=True)
        _copy_cu_seqlens(self.row.layout.cu_seqlens, row.layout)
        self.replay()
        return self.output[: row.layout.output_count]


class GraphedForward:
    """A forward pass that is recorded once per shape; for one thread.

    Args:
        forward: From a row on the device to one output per sequence, without synchronizing.
        device: Where it runs.
        capture: Records a function; ``cuda_capture`` on a GPU.
    """

    def __init__(self, forward: Forward, device: torch.device, capture: Capture) -> None:
        self._forward = forward
        self._device = device
        self._capture: Capture | None = capture
        self._shape_counts: Counter[GraphShape] = Counter()
        self._graphs: dict[GraphShape, _Graph] = {}

    @property
    def is_recording(self) -> bool:
        """Whether new shapes are recorded; no longer after a recording failed."""
        return self._capture is not None

    @property
    def graph_count(self) -> int:
        """Graphs recorded so far."""
        return len(self._graphs)

    def __call__(self, row: PackedRow) -> Tensor:
        """Runs a row that lies in host memory; returns one output per output sequence."""
        shape = GraphShape.of(row)
        # The keys of shared prefixes differ from row to row, so no graph can hold them.
        if shape.tokens > MAX_GRAPH_TOKENS or row.layout.keys is not None:
            return self._forward(row.to(self._device))
        graph = self._graphs.get(shape)
        if graph is not None:
            return graph.run(row)
        self._shape_counts[shape] += 1
        outputs = self._forward(row.to(self._device))
        if self._shape_counts[shape] == 2 and len(self._graphs) < MAX_GRAPHS:
            self._record(shape, row)
        return outputs

    def _record(self, shape: GraphShape, row: PackedRow) -> None:
        if self._capture is None:
            return
        try:
            graph = self._capture_graph(shape, row, self._capture)
            is_faithful = self._is_faithful(graph, row)
        except Exception as error:
            self._disable((str(error).splitlines() or [type(error).__name__])[0])
            return
        if not is_faithful:
            self._disable("replayed outputs differ")
            return
        self._graphs[shape] = graph

    def _is_faithful(self, graph: _Graph, row: PackedRow) -> bool:
        """Whether a replay gives the outputs of a row other than the one that was recorded."""
        inputs = row.inputs.clone()
        inputs[0] = inputs[0].roll(1)
        other_row = PackedRow(inputs, row.layout, row.order)
        # A graph that recorded nothing would leave the earlier outputs in place.
        graph.output.fill_(math.nan)
        replayed = graph.run(other_row).float()
        expected = self._forward(other_row.to(self._device)).float()
        difference = torch.linalg.vector_norm(replayed - expected)
        return float(difference) <= _TOLERANCE * float(torch.linalg.vector_norm(expected))

    def _capture_graph(self, shape: GraphShape, row: PackedRow, capture: Capture) -> _Graph:
        cu_seqlens = torch.zeros(shape.sequences + 1, dtype=torch.int32, device=self._device)
        _copy_cu_seqlens(cu_seqlens, row.layout)
        layout = Layout(cu_seqlens, shape.tokens, shape.max_seqlen, shape.sequences)
        static = PackedRow(row.inputs.to(self._device, copy=True), layout, row.order)

        def run() -> Tensor:
            # A fresh layout: what it derives from cu_seqlens must be recorded, not cached.
            fresh = Layout(cu_seqlens, shape.tokens, shape.max_seqlen, shape.sequences)
            return self._forward(PackedRow(static.inputs, fresh, static.order))

        return _Graph(static, *capture(run))

    def _disable(self, reason: str) -> None:
        logger.warning("CUDA graphs are not used: %s", reason)
        self._capture = None
        self._graphs.clear()


def cuda_capture() -> Capture:
    """Records on the current CUDA device; graphs share the memory of their intermediate results."""
    pool, side = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def capture(run: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        current = torch.cuda.current_stream()
        # The outer context restores the stream after a failed recording, which would not.
        with DEVICE_SYNC_LOCK, torch.cuda.stream(current):
            side.wait_stream(current)
            with torch.cuda.stream(side):
                # Handles and workspaces created at first use must not be part of the recording.
                run()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads keep allocating while this one records.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                output = run()
        return graph.replay, output

    return capture


def _copy_cu_seqlens(target: Tensor, layout: Layout) -> None:
    """Copies the bounds of a row; sequences that it does not have are empty, at its end."""
    source = layout.cu_seqlens
    target[: len(source)].copy_(source, non_blocking=True)
    target[len(source) :].fill_(layout.tokens)


def _power_of_two(value: int, minimum: int) -> int:
    return max(minimum, 1 << max(0, value - 1).bit_length())
