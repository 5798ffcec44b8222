"""From pairs of texts to the token ids that a model reads.

A passage is tokenized once, alone, and remembered; a pair is assembled from ids with the
tokenizer's own pair template. Where that does not give what the tokenizer itself gives (chat
templates, unusual post-processors), sentence-transformers' own preprocessing serves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tokenizers
from cachetools import LRUCache
from sentence_transformers import CrossEncoder
from tokenizers import Encoding, Tokenizer

from gpurerank.chunking import longest_first
from gpurerank.errors import ModelError
from gpurerank.models.packing import Tokens
from gpurerank.types import IntArray

REMEMBERED_TOKENS = 2_000_000
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Text:
    """A text tokenized alone: ids, shape (tokens,), and characters [start, stop), (tokens, 2)."""

    ids: IntArray
    offsets: IntArray


class TextTokenizer:
    """Tokenizes texts alone, without special tokens or truncation, and remembers them.

    Works on a private copy: settings of the shared tokenizer are neither read nor written.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._tokenizer = Tokenizer.from_str(backend.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._known: LRUCache[str, Text] = LRUCache(
            REMEMBERED_TOKENS, getsizeof=lambda text: len(text.ids) + 1
        )

    @property
    def post_processor(self) -> Any:
        """What joins a pair of encodings; None where nothing is added."""
        return self._tokenizer.post_processor

    def encoding(self, text: str) -> Encoding:
        """The tokenizers library's own result for one text."""
        return self._tokenizer.encode(readable(text), add_special_tokens=False)

    def texts(self, texts: Sequence[str]) -> list[Text]:
        """Each text tokenized; only unknown ones are worked on. Not safe between threads."""
        found = {text: self._known.get(text) for text in texts}
        unknown = [text for text, known in found.items() if known is None]
        clean = [readable(text) for text in unknown]
        encodings = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        for text, encoding in zip(unknown, encodings, strict=True):
            tokenized = Text(
                np.asarray(encoding.ids, dtype=np.int64),
                np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2),
            )
            found[text] = tokenized
            if len(tokenized.ids) < REMEMBERED_TOKENS // 8:
                self._known[text] = tokenized
        return [found[text] for text in texts]  # type: ignore[misc]


class PairTokenizer(Protocol):
    """Turns pairs into token ids."""

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """One sequence a pair, cut to the model's length, longest text first."""
        ...


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens before, between and after the two texts, with their segments."""

    before: Text
    between: Text
    after: Text
    query_type: int
    passage_type: int

    @property
    def special_tokens(self) -> int:
        """How many tokens of a pair are not text."""
        return len(self.before.ids) + len(self.between.ids) + len(self.after.ids)

    @classmethod
    def learn(cls, texts: TextTokenizer) -> PairTemplate | None:
        """Reads the template off one pair; None where it is not special-text-special-text-special.

        In the three parts, ``offsets`` holds the segment ids in place of characters.
        """
        query, passage = texts.encoding("one"), texts.encoding("two three")
        if not query.ids or not passage.ids:
            return None
        joined = (
            texts.post_processor.process(query, passage, True)
            if texts.post_processor is not None
            else Encoding.merge([query, passage], growing_offsets=False)
        )
        ids, types = np.array(joined.ids), np.array(joined.type_ids)
        found = _find(ids, np.array(query.ids), 0)
        if found is None:
            return None
        stop = found + len(query.ids)
        second = _find(ids, np.array(passage.ids), stop)
        if second is None:
            return None
        end = second + len(passage.ids)
        before, between, after = (
            Text(ids[part], types[part])
            for part in (slice(found), slice(stop, second), slice(end, None))
        )
        return cls(before, between, after, int(types[found]), int(types[second]))

    def join(self, query: IntArray, passage: IntArray, truncated: bool) -> Tokens:
        """One sequence from the ids of both texts."""
        ids = np.concatenate(
            (self.before.ids, query, self.between.ids, passage, self.after.ids)
        ).astype(np.int64)
        types = np.concatenate(
            (
                self.before.offsets,
                np.full(len(query), self.query_type),
                self.between.offsets,
                np.full(len(passage), self.passage_type),
                self.after.offsets,
            )
        ).astype(np.int64)
        return Tokens(ids, types, truncated)


class TemplateTokenizer:
    """Assembles pairs from texts tokenized alone."""

    def __init__(self, texts: TextTokenizer, template: PairTemplate, max_length: int) -> None:
        self._texts = texts
        self._template = template
        self._room = max_length - template.special_tokens

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """One sequence a pair."""
        texts = self._texts.texts([text for pair in pairs for text in pair])
        encoded = []
        for query, passage in zip(texts[::2], texts[1::2], strict=True):
            kept_query, kept_passage = longest_first(len(query.ids), len(passage.ids), self._room)
            truncated = kept_query < len(query.ids) or kept_passage < len(passage.ids)
            encoded.append(
                self._template.join(query.ids[:kept_query], passage.ids[:kept_passage], truncated)
            )
        return encoded


class PreprocessTokenizer:
    """Encodes pairs with sentence-transformers' own preprocessing; chat templates included."""

    def __init__(self, model: CrossEncoder, max_length: int, prompt: str | None) -> None:
        self._model = model
        self._max_length = max_length
        self._prompt = prompt

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """One sequence a pair."""
        clean = [(readable(query), readable(passage)) for query, passage in pairs]
        whole = self._run(clean, truncate=False)
        long = [i for i, tokens in enumerate(whole) if len(tokens) > self._max_length]
        if long:
            cut = self._run([clean[i] for i in long], truncate=True)
            for i, tokens in zip(long, cut, strict=True):
                whole[i] = Tokens(tokens.ids, tokens.type_ids, truncated=True)
        return whole

    def _run(self, pairs: list[tuple[str, str]], *, truncate: bool) -> list[Tokens]:
        limits: dict[str, Any] = (
            {"truncation": "longest_first", "max_length": self._max_length}
            if truncate
            else {"truncation": False, "max_length": None}
        )
        features = self._model.preprocess(
            pairs, prompt=self._prompt, processing_kwargs={"text": limits}
        )
        ids, mask = features["input_ids"].numpy(), features["attention_mask"].numpy() > 0
        types = features["token_type_ids"].numpy() if "token_type_ids" in features else ids * 0
        return [
            Tokens(i[m].astype(np.int64), t[m].astype(np.int64), truncated=False)
            for i, t, m in zip(ids, types, mask, strict=True)
        ]


def readable(text: str) -> str:
    """The text with lone surrogates, which no tokenizer takes, read as U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def backend_of(tokenizer: Any) -> Tokenizer:
    """The tokenizers library's object behind a transformers tokenizer.

    Raises:
        ModelError: The tokenizer is a Python one, without character offsets.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise ModelError(
            f"{type(tokenizer).__name__} is no fast tokenizer; convert the model's tokenizer to"
            " tokenizer.json (AutoTokenizer.from_pretrained(...).save_pretrained(...))"
        )
    return backend


def _find(ids: IntArray, wanted: IntArray, start: int) -> int | None:
    for place in range(start, len(ids) - len(wanted) + 1):
        if np.array_equal(ids[place : place + len(wanted)], wanted):
            return place
    return None
