"""Late interaction: how similar two texts are, token by token."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from gpurerank.calls import calling, current_call
from gpurerank.engine.once import Once
from gpurerank.types import FloatArray, Rows

if TYPE_CHECKING:
    from gpurerank.engine.registry import Lease
    from gpurerank.models.text_model import TextModel
    from gpurerank.models.token_model import TokenModel

# A passage of 150 tokens takes 115 kB while its pairs are compared.
_PAIRS_AT_ONCE = 512


class LateInteraction:
    """Compares texts by a bi-encoder's last hidden states; safe to call from any thread.

    Each token of the query finds the passage's token that is most like it, by cosine, and what they
    find is averaged (MaxSim: Khattab and Zaharia, SIGIR 2020, arXiv:2004.12832; here with a
    bi-encoder that was not trained for it). One vector for a whole text blurs what is named in it;
    this does not. Nothing of it can be stored with an index: each passage runs through the model
    once more, unless it did a short while ago.

    Args:
        model: "embedded", a folder or a hub id: any sentence-transformers bi-encoder whose vectors
            are as long as its hidden states. It shares its weights with every ``BiEncoder`` of the
            same name and options.
        device: As in ``BiEncoder``.
        dtype: As in ``BiEncoder``.

    Raises:
        InputError: An option is wrong.
        ModelError: The model cannot be loaded, or cannot be read token by token.
    """

    def __init__(
        self, model: str = "embedded", *, device: str = "auto", dtype: str = "auto"
    ) -> None:
        from gpurerank.engine.registry import REGISTRY
        from gpurerank.models.loading import ModelSpec
        from gpurerank.models.text_model import TextModel, load_text_models
        from gpurerank.models.token_model import TokenModel

        resolved = ModelSpec(name=model, device=device, dtype=dtype).resolved()
        texts: Lease[TextModel] = REGISTRY.acquire(
            (TextModel, resolved), lambda: load_text_models(resolved), model
        )
        # Held as well, so that nobody loads the same weights beside these.
        weakref.finalize(self, texts.forget)
        self._texts = texts
        self._lease: Lease[TokenModel] = REGISTRY.acquire(
            (TokenModel, resolved), lambda: list(map(TokenModel, texts.engine.replicas)), model
        )
        weakref.finalize(self, self._lease.forget)
        self._once = Once(self._lease)

    def identity(self) -> list[str]:
        """What a similarity depends on beside the pair."""
        return ["late interaction", repr(self._texts.model.spec), self._texts.model.fingerprint]

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> tuple[FloatArray, FloatArray]:
        """The cosine of both vectors and the late interaction of each pair.

        Returns:
            Two arrays of shape (pairs,), float32, in [-1, 1]; late interaction is 0 where a text
            has no token.

        Raises:
            NotFiniteError: The model returned NaN or infinity.
        """
        found = np.zeros((2, len(pairs)), dtype=np.float32)
        for some in _slices(pairs):
            items = self._items(pairs[some])
            with _part(some, len(pairs)):
                rows = self._once.run(items).rows
            found[:, some] = _compared(pairs[some], items, rows)
        return found[0], found[1]

    async def asimilarities(
        self, pairs: Sequence[tuple[str, str]]
    ) -> tuple[FloatArray, FloatArray]:
        """As ``similarities``, without blocking the event loop."""
        found = np.zeros((2, len(pairs)), dtype=np.float32)
        for some in _slices(pairs):
            items = self._items(pairs[some])
            with _part(some, len(pairs)):
                rows = (await self._once.arun(items)).rows
            found[:, some] = await asyncio.to_thread(_compared, pairs[some], items, rows)
        return found[0], found[1]

    def close(self) -> None:
        """Gives the model back; the last user frees its memory."""
        self._lease.close()
        self._texts.close()

    def _items(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Every query, then every passage, each once; one job, so that they share batches."""
        queries, passages = zip(*pairs, strict=True) if pairs else ((), ())
        as_query = self._lease.model.prompt(query=True)
        as_passage = self._lease.model.prompt(query=False)
        return [(as_query, query) for query in dict.fromkeys(queries)] + [
            (as_passage, passage) for passage in dict.fromkeys(passages)
        ]


def _slices(pairs: Sequence[tuple[str, str]]) -> list[slice]:
    starts = range(0, len(pairs), _PAIRS_AT_ONCE)
    return [slice(start, min(start + _PAIRS_AT_ONCE, len(pairs))) for start in starts]


@contextmanager
def _part(some: slice, total: int) -> Iterator[None]:
    """Counts the progress of a slice, in texts, as progress in all pairs."""
    outer = current_call().on_progress

    def tell(done: int, texts: int) -> None:
        if outer is not None:
            outer(some.start + (some.stop - some.start) * done // texts, total)

    with calling(on_progress=tell):
        yield


def _compared(
    pairs: Sequence[tuple[str, str]], items: list[tuple[str, str]], rows: Rows
) -> FloatArray:
    """Cosines and late interaction, shape (2, pairs).

    Pair for pair, so that no result depends on what else was asked.
    """
    queries = len(dict.fromkeys(query for query, _ in pairs))
    of_query = {text: rows[row].astype(np.float32) for row, (_, text) in _rows(items, 0, queries)}
    of_passage = {text: row for row, (_, text) in _rows(items, queries, len(items))}
    found = np.zeros((2, len(pairs)), dtype=np.float32)
    for place, (query, passage) in enumerate(pairs):
        left, right = of_query[query], rows[of_passage[passage]].astype(np.float32)
        found[0, place] = left[0] @ right[0]
        if len(left) > 1 and len(right) > 1:
            found[1, place] = (left[1:] @ right[1:].T).max(axis=1).mean()
    return found


def _rows(
    items: list[tuple[str, str]], start: int, stop: int
) -> Iterator[tuple[int, tuple[str, str]]]:
    return zip(range(start, stop), items[start:stop], strict=True)
