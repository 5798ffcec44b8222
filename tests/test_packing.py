"""Rows and blocks of tokens, and the widths that they are recorded in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gpurerank.errors import ModelError
from gpurerank.models.attention import attend
from gpurerank.models.graphs import (
    MAX_GRAPH_TOKENS,
    MAX_GRAPHS,
    Capture,
    GraphedForward,
    GraphShape,
    Replay,
    graph_width,
)
from gpurerank.models.loading import ModelSpec
from gpurerank.models.packing import PackedRow, Prefix, Tokens, pack
from gpurerank.models.padding import group_by_length, pad_by_length
from gpurerank.models.pair_model import PairModel
from gpurerank.models.prefixes import common_prefixes
from gpurerank.models.runner import restore_order
from tests.tiny_models import PAIRS

CPU = torch.device("cpu")


def sequence(*ids: int, segments: list[int] | None = None) -> Tokens:
    return Tokens.from_arrays(np.array(ids), np.array(segments or [0] * len(ids)))


def test_a_row_holds_the_sequences_shortest_first() -> None:
    row = pack([sequence(7, 8, 9, segments=[0, 0, 1]), sequence(4, 5)], 2)
    assert row.input_ids.tolist() == [[4, 5, 7, 8, 9]]
    assert row.segment_ids.tolist() == [[0, 0, 0, 0, 1]]
    assert row.position_ids.tolist() == [[2, 3, 2, 3, 4]]
    assert row.layout.cu_seqlens.tolist() == [0, 2, 5]
    assert row.layout.equal_lengths == ((2, 2, 1), (3, 3, 1))
    assert restore_order(torch.tensor([2.0, 3.0]), row).tolist() == [3.0, 2.0]


def test_a_wider_row_is_filled_with_sequences_that_nobody_asked_for() -> None:
    row = pack([sequence(7, 8, 9), sequence(4, 5)], 0, width=lambda tokens: tokens + 8)
    assert row.input_ids.shape == (1, 13)
    assert row.input_ids[0, 5:].tolist() == [0] * 8
    assert row.layout.cu_seqlens.tolist() == [0, 2, 5, 8, 11, 13]
    assert row.layout.cls_indices.tolist() == [0, 2]
    assert row.layout.last_indices.tolist() == [1, 4]
    assert row.layout.first_indices.tolist() == [0, 2, 5, 8, 11]
    assert row.layout.cls_layout.cu_seqlens.tolist() == [0, 1, 2, 3, 4, 5]
    assert row.layout.cls_layout.cls_indices.tolist() == [0, 1]


def test_a_sequence_of_nothing_takes_a_place_of_its_own() -> None:
    row = pack([sequence(7, 8), sequence()], 0)
    assert row.input_ids.tolist() == [[0, 7, 8]]
    assert row.layout.cls_indices.tolist() == [0, 1]
    assert pack([sequence()], 0).layout.cu_seqlens.tolist() == [0, 1]


def test_a_prefix_is_laid_out_once_behind_what_follows_it() -> None:
    sequences = [sequence(1, 2, 7, 8), sequence(4, 5), sequence(1, 2, 9)]
    row = pack(sequences, 3, prefixes=[Prefix((0, 2), 2)], width=lambda tokens: tokens + 2)
    assert row.order.tolist() == [2, 1, 0]
    assert row.input_ids.tolist() == [[9, 4, 5, 7, 8, 1, 2, 0, 0]]
    assert row.position_ids.tolist() == [[5, 3, 4, 5, 6, 3, 4, 3, 4]]
    layout = row.layout
    assert layout.cu_seqlens.tolist() == [0, 1, 3, 5, 7, 9]
    assert (layout.output_count, layout.last_indices.tolist()) == (3, [0, 2, 4])
    assert layout.keys is not None
    assert layout.keys.indices.tolist() == [5, 6, 0, 1, 2, 5, 6, 3, 4, 5, 6, 7, 8, 0, 0]
    assert layout.keys.cu_seqlens.tolist() == [0, 3, 5, 9, 11, 13]
    assert layout.keys.max_seqlen == 4
    assert layout.equal_lengths == ((1, 3, 1), (2, 2, 1), (2, 4, 1), (2, 2, 2))
    assert row.padding == 2


@pytest.mark.parametrize("window", [None, 3, 50])
def test_attention_reaches_a_prefix_as_if_it_stood_before(window: int | None) -> None:
    lengths = [9, 7, 12, 5]
    sequences = [sequence(*range(1, n + 1)) for n in lengths]
    plain, packed = pack(sequences, 0), pack(sequences, 0, prefixes=[Prefix((0, 2), 6)])
    assert (plain.layout.tokens, packed.layout.tokens) == (33, 27)

    def attended(row: PackedRow) -> Tensor:
        # A token's numbers hang on what it is and where it stands.
        seeds = row.input_ids[0] * 100 + row.position_ids[0]
        q, k, v = (torch.sin(seeds[:, None] * torch.arange(1, 17) * f) for f in (0.3, 0.7, 1.1))
        heads = [each.unflatten(1, (2, 8)) for each in (q, k, v)]
        found = attend(*heads, row.layout, causal=True, sliding_window=window)
        return found.index_select(0, row.layout.last_indices)[np.argsort(row.order)]

    torch.testing.assert_close(attended(packed), attended(plain), rtol=0, atol=1e-6)


def test_a_prefix_that_depends_on_what_follows_is_refused() -> None:
    layout = pack([sequence(1, 2, 3), sequence(1, 2, 4)], 0, prefixes=[Prefix((0, 1), 2)]).layout
    row = torch.ones((layout.tokens, 2, 8))
    with pytest.raises(ModelError, match="only causal"):
        attend(row, row, row, layout)


def test_tokens_are_cut_across_their_parts() -> None:
    tokens = Tokens.from_arrays(np.arange(6), np.array([0, 0, 1, 1, 1, 0]), truncated=True)
    for start, stop in ((0, 6), (1, 3), (2, 5), (3, 4), (4, 6)):
        cut = tokens.slice(start, stop)
        assert cut.ids.tolist() == tokens.ids[start:stop].tolist()
        assert cut.segment_ids.tolist() == tokens.segment_ids[start:stop].tolist()
        assert (len(cut), cut.truncated) == (stop - start, True)


def test_common_prefixes_are_those_of_a_query() -> None:
    head = list(range(100, 120))
    sequences = [
        sequence(*head, 1, 2),
        sequence(*head, 1),
        sequence(*head, 5, 6, 7),
        sequence(*head[:15], 5),
        sequence(*head[:15], 6),
    ]
    pairs = [("a", "x"), ("b", "x"), ("a", "y"), ("c", "x"), ("c", "y")]
    # "b" stands alone, and what "c" has is too short.
    assert common_prefixes(pairs, sequences) == [Prefix((0, 2), 20)]
    alike = [sequence(*head)] * 2
    assert common_prefixes([("a", "x")] * 2, alike) == [Prefix((0, 1), 19)]
    assert common_prefixes([("a", "")] * 2, [sequence(), sequence(*head)]) == []


def test_tokens_keep_what_they_were_made_of() -> None:
    tokens = sequence(1, 2, 3, 4, segments=[0, 0, 1, 0])
    assert tokens.ids.tolist() == [1, 2, 3, 4]
    assert tokens.segment_ids.tolist() == [0, 0, 1, 0]
    assert (len(tokens), len(tokens.parts)) == (4, 3)
    assert len(sequence()) == 0


def test_little_of_a_padded_block_is_padding() -> None:
    rng = np.random.default_rng(3)
    lengths = np.exp(rng.normal(4.6, 0.8, 300)).astype(int).clip(4, 512).tolist()
    groups = group_by_length(lengths)
    assert sorted(place for group in groups for place in group) == list(range(300))
    padded = sum(max(lengths[i] for i in group) * len(group) for group in groups)
    assert padded < 1.16 * sum(lengths)
    assert len(groups) < 30
    blocks = pad_by_length([sequence(*range(1, n + 1)) for n in lengths], pad_id=0)
    seen = [None] * 300
    for block in blocks:
        for place, ids, mask in zip(
            block.order, block.features["input_ids"], block.features["attention_mask"], strict=True
        ):
            seen[place] = ids[mask.bool()].tolist()
    assert seen == [list(range(1, n + 1)) for n in lengths]


def test_widths_are_few_and_little_wider() -> None:
    widths = {graph_width(tokens) for tokens in range(1, MAX_GRAPH_TOKENS + 1)}
    assert len(widths) < 60
    for tokens in range(1, MAX_GRAPH_TOKENS + 1):
        assert tokens <= graph_width(tokens) <= max(tokens + 63, 1.125 * tokens + 1)
    assert graph_width(MAX_GRAPH_TOKENS + 1) == MAX_GRAPH_TOKENS + 1


class Recorder:
    """A stand-in for CUDA graphs: replays over the same tensors, and counts what it records."""

    def __init__(self, *, wrong: bool = False, broken: bool = False, empty: bool = False) -> None:
        self.recorded = self.replayed = 0
        self._empty = empty
        self._wrong = wrong
        self._broken = broken

    def capture(self) -> Capture:
        def capture(run: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
            if self._broken:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.recorded += 1
            output = run().clone()

            def replay() -> None:
                self.replayed += 1
                if self._empty:
                    return
                output.copy_(run() + 1 if self._wrong else run())

            return replay, output

        return capture


@pytest.fixture(scope="module", params=["bert", "modernbert_mean", "causal"])
def model(request: pytest.FixtureRequest, model_folder: Callable[[str], str]) -> PairModel:
    return PairModel(ModelSpec(name=model_folder(request.param), device="cpu", dtype="float32"))


def laid_out(model: PairModel, pairs: list[tuple[str, str]]) -> PackedRow:
    return pack(model.tokenize(pairs), model._position_offset, width=graph_width)


@torch.inference_mode()
def test_a_replay_gives_what_the_forward_pass_gives(model: PairModel) -> None:
    recorder = Recorder()
    graphed = GraphedForward(model._packed, CPU, recorder.capture())
    # One shape, different bounds: what a graph derives from them must follow.
    batches = [PAIRS[:5], PAIRS[1:], PAIRS[::-1][1:], PAIRS[:1] * 3]
    for batch in [*batches, *batches, *batches]:
        row = laid_out(model, batch)
        plain = pack(model.tokenize(batch), model._position_offset)
        np.testing.assert_allclose(
            restore_order(graphed(row), row),
            restore_order(model._packed(plain), plain),
            rtol=0,
            atol=1e-5,
        )
    shapes = {GraphShape.of(laid_out(model, batch)) for batch in batches}
    assert graphed.graph_count == recorder.recorded == len(shapes)
    assert recorder.replayed >= len(batches)


@torch.inference_mode()
def test_no_graph_is_made_of_a_row_with_prefixes(model_folder: Callable[[str], str]) -> None:
    model = PairModel(ModelSpec(name=model_folder("causal"), device="cpu", dtype="float32"))
    recorder = Recorder()
    graphed = GraphedForward(model._packed, CPU, recorder.capture())
    pairs = [("which of them is lazy, they ask", passage) for _, passage in PAIRS]
    tokens = model.tokenize(pairs)
    row = model.prepare(pairs, tokens)
    assert isinstance(row, PackedRow)
    assert row.layout.keys is not None
    plain = pack(tokens, model._position_offset)
    for _ in range(4):
        np.testing.assert_allclose(
            restore_order(graphed(row), row),
            restore_order(model._packed(plain), plain),
            rtol=0,
            atol=1e-5,
        )
    assert graphed.graph_count == recorder.recorded == 0


@torch.inference_mode()
@pytest.mark.parametrize("fault", ["wrong", "broken", "empty"])
def test_without_faithful_graphs_the_forward_pass_serves(
    model: PairModel, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(**{fault: True})
    graphed = GraphedForward(model._packed, CPU, recorder.capture())
    row = laid_out(model, PAIRS)
    expected = restore_order(model._packed(row), row)
    for _ in range(5):
        np.testing.assert_allclose(restore_order(graphed(row), row), expected, rtol=0, atol=1e-5)
    assert graphed.graph_count == 0
    assert len([r for r in caplog.records if "CUDA graphs are not used" in r.message]) == 1


def test_the_number_of_graphs_is_bounded() -> None:
    recorder = Recorder()
    graphed = GraphedForward(
        lambda row: row.input_ids[0].index_select(0, row.layout.cls_indices).float(),
        CPU,
        recorder.capture(),
    )
    for tokens in range(64, 64 * (MAX_GRAPHS + 20), 64):
        for _ in range(3):
            row = pack([sequence(*range(1, tokens + 1))], 0)
            assert graphed(row).tolist() == [1.0]
    assert graphed.graph_count == MAX_GRAPHS


def test_rows_lie_in_host_memory_whatever_the_default_device() -> None:
    with torch.device("meta"):  # as after torch.set_default_device("cuda") in a notebook
        row = pack([sequence(1, 2), sequence(3)], 0, prefixes=[])
    assert row.inputs.device == row.layout.cu_seqlens.device == torch.device("cpu")
    assert row.input_ids.tolist() == [[3, 1, 2]]
