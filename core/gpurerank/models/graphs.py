"""CUDA graphs: a forward pass over a small row is bound by its launches, so they are recorded.

A graph has fixed shapes. Rows are filled up to a few widths, and their bounds to a few counts; a
shape that comes a second time is recorded, and replayed from then on.
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

from gpurerank.models.devices import WAITING_FOR_DEVICE
from gpurerank.models.packing import Layout, PackedRow

# Above this a forward pass takes longer than its launches.
WIDEST = 16_384
MAX_GRAPHS = 64
# The same kernels on the same numbers: only the order of sums inside may differ.
_TOLERANCE = 0.02

logger = logging.getLogger("gpurerank")

Forward = Callable[[PackedRow], Tensor]
Replay = Callable[[], None]
# Runs a function once for keeps: how to run it again, and the tensor that then holds its result.
Capture = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]


class Shape(NamedTuple):
    """What is fixed in a graph."""

    tokens: int
    sequences: int
    longest: int

    @classmethod
    def of(cls, row: PackedRow) -> Shape:
        """The shape that a row of a width from ``graph_width`` runs in."""
        return cls(
            row.layout.tokens,
            _power_of_two(len(row.layout.cu_seqlens) - 1, 16),
            _power_of_two(row.layout.longest, 64),
        )


def graph_width(tokens: int) -> int:
    """Tokens of the row that a batch is filled up to: 8 widths an octave, so at most 12.5% more."""
    if tokens > WIDEST:
        return tokens
    step = max(64, 1 << max(0, (tokens - 1).bit_length() - 4))
    return -(-tokens // step) * step


@dataclass(frozen=True, slots=True)
class _Graph:
    row: PackedRow
    replay: Replay
    output: Tensor

    def run(self, row: PackedRow) -> Tensor:
        self.row.row.copy_(row.row, non_blocking=True)
        _copy_bounds(self.row.layout.cu_seqlens, row.layout)
        self.replay()
        return self.output[: row.layout.count]


class GraphedForward:
    """A forward pass that is recorded once per shape; not safe between threads.

    Args:
        forward: From a row on the device to one output a sequence, without waiting for the device.
        device: Where it runs.
        capture: What records; ``cuda_capture`` on a GPU.
    """

    def __init__(self, forward: Forward, device: torch.device, capture: Capture) -> None:
        self._forward = forward
        self._device = device
        self._capture: Capture | None = capture
        self._seen: Counter[Shape] = Counter()
        self._graphs: dict[Shape, _Graph] = {}

    @property
    def recording(self) -> bool:
        """Whether rows may be recorded: not once a graph was unfaithful."""
        return self._capture is not None

    @property
    def captured(self) -> int:
        """Graphs that are held."""
        return len(self._graphs)

    def __call__(self, row: PackedRow) -> Tensor:
        """Outputs of a row on the host, one a sequence asked for, on the device."""
        shape = Shape.of(row)
        # Who attends to a prefix differs from row to row.
        if shape.tokens > WIDEST or row.layout.keys is not None:
            return self._forward(row.to(self._device))
        graph = self._graphs.get(shape)
        if graph is not None:
            return graph.run(row)
        self._seen[shape] += 1
        outputs = self._forward(row.to(self._device))
        if self._seen[shape] == 2 and len(self._graphs) < MAX_GRAPHS:
            self._record(shape, row)
        return outputs

    def _record(self, shape: Shape, row: PackedRow) -> None:
        if self._capture is None:
            return
        try:
            graph = self._captured(shape, row, self._capture)
            faithful = self._follows(graph, row)
        except Exception as error:
            self._give_up((str(error).splitlines() or [type(error).__name__])[0])
            return
        if not faithful:
            self._give_up("replayed outputs differ")
            return
        self._graphs[shape] = graph

    def _follows(self, graph: _Graph, row: PackedRow) -> bool:
        """Whether a replay gives the outputs of a row that was not there when it was recorded."""
        other = row.row.clone()
        other[0] = other[0].roll(1)
        unseen = PackedRow(other, row.layout, row.order)
        # A record that holds nothing would leave what was there before.
        graph.output.fill_(math.nan)
        found = graph.run(unseen).float()
        expected = self._forward(unseen.to(self._device)).float()
        difference = torch.linalg.vector_norm(found - expected)
        return float(difference) <= _TOLERANCE * float(torch.linalg.vector_norm(expected))

    def _captured(self, shape: Shape, row: PackedRow, capture: Capture) -> _Graph:
        bounds = torch.zeros(shape.sequences + 1, dtype=torch.int32, device=self._device)
        _copy_bounds(bounds, row.layout)
        layout = Layout(bounds, shape.tokens, shape.longest, shape.sequences)
        static = PackedRow(row.row.to(self._device, copy=True), layout, row.order)

        def run() -> Tensor:
            # A fresh layout: what it derives from the bounds must be recorded, not remembered.
            again = Layout(bounds, shape.tokens, shape.longest, shape.sequences)
            return self._forward(PackedRow(static.row, again, static.order))

        return _Graph(static, *capture(run))

    def _give_up(self, why: str) -> None:
        logger.warning("CUDA graphs are not used: %s", why)
        self._capture = None
        self._graphs.clear()


def cuda_capture() -> Capture:
    """Records on the current CUDA device; all graphs share the memory of their intermediates."""
    pool, side = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def capture(run: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        current = torch.cuda.current_stream()
        # The outer stream is for a record that fails: it would leave this thread on the other.
        with WAITING_FOR_DEVICE, torch.cuda.stream(current):
            side.wait_stream(current)
            with torch.cuda.stream(side):
                # Handles and workspaces that are made at first use must not be part of the record.
                run()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads go on allocating while this one records.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                output = run()
        return graph.replay, output

    return capture


def _copy_bounds(target: Tensor, layout: Layout) -> None:
    """Fills bounds; the sequences that the row does not have are empty and lie at its end."""
    given = layout.cu_seqlens
    target[: len(given)].copy_(given, non_blocking=True)
    target[len(given) :].fill_(layout.tokens)


def _power_of_two(value: int, at_least: int) -> int:
    return max(at_least, 1 << max(0, value - 1).bit_length())
