"""A loaded bi-encoder read token by token: what late interaction compares."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gpurerank.errors import ModelError
from gpurerank.models import devices
from gpurerank.models.device_errors import run_guarded
from gpurerank.models.packing import PackedRow, Tokens
from gpurerank.models.remembered import RememberedRows
from gpurerank.models.runner import RowRunner
from gpurerank.models.text_model import TextModel
from gpurerank.types import FloatArray, Rows

# 1,100 passages of 150 tokens and 384 numbers.
REMEMBERED_BYTES = 128 << 20


class TokenModel:
    """Gives a text's vector and one for each of its tokens; has no weights of its own.

    An item is (prompt, text), its row an array of shape (1 + tokens, dim), float16, of unit
    vectors: the bi-encoder's first, then the last hidden state of each token. What marks where a
    text begins and ends is no token of it, but its prompt's tokens are.

    Args:
        texts: The bi-encoder.

    Attributes:
        name: The bi-encoder's.
        max_length: Tokens that a text may have, marks included: more than the bi-encoder's own
            limit where its weights can read more, so that no part of a passage that a
            cross-encoder reads goes unseen.
        remembered: What was read before.
        lanes: Batches that may run at the same time.
        row_bytes: What a row takes at most.

    Raises:
        ModelError: The vectors of texts and of tokens differ in length, so they share no space.
    """

    def __init__(self, texts: TextModel) -> None:
        if texts.hidden_size != texts.dim:
            raise ModelError(
                f"the bi-encoder {texts.name!r} cannot be read token by token: a token has"
                f" {texts.hidden_size or 'an unknown number of'} numbers and a text {texts.dim}"
            )
        self._texts = texts
        self.name = texts.name
        self.max_length = texts.readable_length if texts.packed else texts.max_length
        self.lanes = texts.lanes
        self.row_bytes = (1 + self.max_length) * texts.dim * 2
        self.remembered = RememberedRows(REMEMBERED_BYTES)
        self._comparing = ThreadPoolExecutor(
            1,
            f"gpurerank-compare-{self.name}",
            initializer=devices.enter_lane,
            initargs=(torch.get_num_threads(),),
        )
        if texts.packed:
            self._rows = RowRunner(
                self._packed, texts.device, texts.position_offset, self._of_each_text
            )

    @property
    def tokens_per_batch(self) -> tuple[int, int]:
        """Tokens below which a batch uses the device badly, and the most that it may have."""
        return self._texts.tokens_per_batch

    def enter_lane(self) -> None:
        """Sets up the thread that calls for running batches beside the other lanes."""
        self._texts.enter_lane()

    def prompt(self, *, query: bool) -> str:
        """Text that goes before each query or passage."""
        return self._texts.prompt(query=query)

    def tokenize(self, items: Sequence[tuple[str, str]]) -> list[Tokens]:
        """Token ids of each text behind its prompt, cut to ``max_length``."""
        return self._texts.tokenize(items, self.max_length)

    def prepare(
        self, items: Sequence[tuple[str, str]], tokens: Sequence[Tokens]
    ) -> PackedRow | list[tuple[str, str]]:
        """Lays a batch out on the host, while another one may run; ``tokens`` are the items'."""
        return self._rows.prepare(tokens) if self._texts.packed else list(items)

    def blank(self, count: int) -> Rows:
        """Room for the rows of so many texts."""
        return np.empty(count, dtype=object)

    def run(self, batch: PackedRow | list[tuple[str, str]]) -> Rows:
        """A row a text, shape (texts,) of objects, in the batch's order.

        Raises:
            OutOfMemoryError: The batch does not fit.
            DeviceError: The GPU is lost.
            ScoringError: The model failed.
        """
        if isinstance(batch, PackedRow):
            return self._rows.run(batch)
        return run_guarded(lambda: self._padded(batch), self._texts.device)

    def compare(self, pairs: Sequence[tuple[Rows, Rows]]) -> Future[FloatArray]:
        """Of rows of a query and a passage, the cosine of the texts and MaxSim of their tokens.

        Shape (2, pairs), float32, in [-1, 1]; MaxSim is 0 where one has no token. Pair for pair, so
        that no result depends on what else was asked, and on one thread that computes alone: a
        small product that many threads share takes as long as the slowest of them is away.
        """
        return self._comparing.submit(_compared, tuple(pairs))

    def _packed(self, row: PackedRow) -> Tensor:
        """Vectors of the row's texts and, behind them, of all its tokens: (texts + tokens, dim)."""
        hidden = self._texts.states(row)
        return _unit(self._texts.pooled(hidden, row.layout), hidden[0])

    def _of_each_text(self, outputs: Tensor, row: PackedRow) -> Rows:
        found, ids = outputs.cpu().numpy(), row.input_ids[0].numpy()
        count, bounds = row.layout.output_count, row.layout.cu_seqlens.tolist()
        meant = ~np.isin(ids, self._texts.special_ids)
        rows = self.blank(count)
        for place, (start, stop) in enumerate(pairwise(bounds[: count + 1])):
            tokens = found[count + start : count + stop][meant[start:stop]]
            rows[row.order[place]] = np.concatenate((found[place : place + 1], tokens))
        return rows

    @torch.inference_mode()
    def _padded(self, items: list[tuple[str, str]]) -> Rows:
        rows = self.blank(len(items))
        for places, found in self._texts.encode(items, tokens=True):
            for place, features in zip(places, found, strict=True):
                ids = features["input_ids"].cpu().numpy()
                read = features["attention_mask"].cpu().numpy().astype(bool)
                meant = torch.from_numpy(read & ~np.isin(ids, self._texts.special_ids))
                states = features["token_embeddings"][meant.to(self._texts.device)]
                rows[place] = _unit(features["sentence_embedding"][None], states).cpu().numpy()
        return rows


def _compared(pairs: Sequence[tuple[Rows, Rows]]) -> FloatArray:
    found = np.zeros((2, len(pairs)), dtype=np.float32)
    for place, (query, passage) in enumerate(pairs):
        # NumPy takes longer to widen half precision than all else takes together.
        left, right = torch.from_numpy(query).float(), torch.from_numpy(passage).float()
        found[0, place] = float(left[0] @ right[0])
        if len(left) > 1 and len(right) > 1:
            found[1, place] = float((left[1:] @ right[1:].T).amax(dim=1).mean())
    return found


def _unit(vectors: Tensor, states: Tensor) -> Tensor:
    """Both below each other, of length 1, float16."""
    together = torch.cat((vectors.float(), states.float()))
    return normalize(together, dim=-1).half()
