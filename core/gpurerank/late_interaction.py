"""Late interaction: how similar two texts are, token by token."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from gpurerank.calls import calling, current_call
from gpurerank.engine.once import Once
from gpurerank.errors import ModelError
from gpurerank.types import FloatArray, Rows

if TYPE_CHECKING:
    from gpurerank.engine.engine import Engine
    from gpurerank.engine.registry import Lease
    from gpurerank.engine.stats import EngineStats
    from gpurerank.models.text_model import TextModel
    from gpurerank.models.token_model import TokenModel

# Passages that are as long as they may be, while their pairs are compared.
_BYTES_AT_ONCE = 64 << 20


class LateInteraction:
    """Compares texts by a bi-encoder's last hidden states; safe to call from any thread.

    Each token of the query finds the passage's token that is most like it, by cosine, and what they
    find is averaged (MaxSim: Khattab and Zaharia, SIGIR 2020, arXiv:2004.12832; here with a
    bi-encoder that was not trained for it). One vector for a whole text blurs what is named in it;
    this does not. Nothing of it can be stored with an index: each passage runs through the model
    once more, unless it did a short while ago. A text is read up to 512 tokens where the weights
    can, also behind the bi-encoder's own limit, and its vector is then that of all of them.

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
        lease = REGISTRY.acquire((TextModel, resolved), lambda: load_text_models(resolved), model)
        try:
            lease.beside(TokenModel)
        except ModelError:
            lease.close()
            raise
        self._lease: Lease[TextModel] = lease
        self._engine: Callable[[], Engine[TokenModel]] = lambda: lease.beside(TokenModel)
        self._once = Once(self._engine)
        weakref.finalize(self, lease.forget)

    def identity(self) -> list[str]:
        """What a similarity depends on beside the pair."""
        model = self._lease.model
        return ["late interaction", repr(model.spec), model.fingerprint]

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> tuple[FloatArray, FloatArray]:
        """The cosine of both vectors and the late interaction of each pair.

        Returns:
            Two arrays of shape (pairs,), float32, in [-1, 1]; late interaction is 0 where a text
            has no token. A prompt's tokens count as the text's.

        Raises:
            NotFiniteError: The model returned NaN or infinity.
        """
        found = np.zeros((2, len(pairs)), dtype=np.float32)
        for some in self._slices(len(pairs)):
            items = self._items(pairs[some])
            with _part(some, len(pairs)):
                rows = self._once.run(items).rows
            found[:, some] = self._compared(pairs[some], items, rows).result()
            del rows  # before the next ones come
        return found[0], found[1]

    async def asimilarities(
        self, pairs: Sequence[tuple[str, str]]
    ) -> tuple[FloatArray, FloatArray]:
        """As ``similarities``, without blocking the event loop."""
        found = np.zeros((2, len(pairs)), dtype=np.float32)
        for some in self._slices(len(pairs)):
            items = self._items(pairs[some])
            with _part(some, len(pairs)):
                rows = (await self._once.arun(items)).rows
            compared: FloatArray = await asyncio.wrap_future(
                self._compared(pairs[some], items, rows)
            )
            found[:, some] = compared
            del rows
        return found[0], found[1]

    @contextmanager
    def remembering(self, max_bytes: int) -> Iterator[None]:
        """Remembers more of what was read, or less, for every user of the model while it lasts.

        Args:
            max_bytes: What the rows of tokens may take together.
        """
        from gpurerank.models.token_model import REMEMBERED_BYTES

        remembered = self._engine().model.remembered
        remembered.limit(max_bytes)
        try:
            yield
        finally:
            remembered.limit(REMEMBERED_BYTES)

    def stats(self) -> EngineStats:
        """What the model has read for all its callers, and what waits."""
        return self._engine().stats()

    def close(self) -> None:
        """Gives the model back; the last user frees its memory."""
        self._lease.close()

    def _items(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Every query, then every passage, each once; one job, so that they share batches."""
        model = self._lease.model
        as_query, as_passage = model.prompt(query=True), model.prompt(query=False)
        queries = dict.fromkeys((as_query, query) for query, _ in pairs)
        passages = dict.fromkeys((as_passage, passage) for _, passage in pairs)
        return [*queries, *passages]

    def _slices(self, count: int) -> list[slice]:
        """What of so many pairs is compared at once, so that its rows fit."""
        step = max(1, _BYTES_AT_ONCE // self._engine().model.row_bytes)
        return [slice(start, min(start + step, count)) for start in range(0, count, step)]

    def _compared(
        self, pairs: Sequence[tuple[str, str]], items: list[tuple[str, str]], rows: Rows
    ) -> Future[FloatArray]:
        count = len(dict.fromkeys(query for query, _ in pairs))
        texts = [text for _, text in items]
        of_query = dict(zip(texts[:count], rows[:count], strict=True))
        of_passage = dict(zip(texts[count:], rows[count:], strict=True))
        return self._engine().model.compare([(of_query[q], of_passage[p]) for q, p in pairs])


@contextmanager
def _part(some: slice, total: int) -> Iterator[None]:
    """Counts the progress of a slice, in texts, as progress in all pairs."""
    outer = current_call().on_progress

    def tell(done: int, texts: int) -> None:
        if outer is not None:
            outer(some.start + (some.stop - some.start) * done // texts, total)

    with calling(on_progress=tell):
        yield
