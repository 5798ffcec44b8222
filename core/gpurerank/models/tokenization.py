"""From pairs of texts to the token ids that a model reads.

A passage is tokenized once, alone, and remembered; a pair is assembled from ids with the
tokenizer's own pair template. Where that does not give what the tokenizer itself gives (chat
templates, unusual post-processors), sentence-transformers' own preprocessing serves.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import tokenizers
from sentence_transformers import CrossEncoder
from tokenizers import Encoding, Tokenizer

from gpurerank.chunking import longest_first
from gpurerank.errors import ModelError
from gpurerank.models.packing import Tokens
from gpurerank.models.word_limit import WordLimit
from gpurerank.types import IntArray

# What an entry costs beside its ids: the array's header and the dictionary's slot.
_ENTRY_TOKENS = 50
_SURROGATE = re.compile("[\ud800-\udfff]")


class TextTokenizer:
    """Tokenizes texts alone, without special tokens or truncation, and remembers their ids.

    Works on a private copy: settings of the shared tokenizer are neither read nor written. Safe
    between threads.

    Args:
        backend: The model's tokenizer.
        remembered: Tokens of the texts that are remembered, the latest used; a quarter of a
            text's characters counts too. Each takes about 5 bytes.
    """

    def __init__(self, backend: Tokenizer, remembered: int) -> None:
        self._tokenizer = Tokenizer.from_str(backend.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._word_limit = WordLimit(self._tokenizer)
        # In order of use, oldest first; a plain dict, because lookups are most of the host's work.
        self._known: dict[str, IntArray] = {}
        self._size = 0
        self._most = remembered
        self._lock = threading.Lock()

    @property
    def post_processor(self) -> Any:
        """What joins a pair of encodings; None where nothing is added."""
        return self._tokenizer.post_processor

    def encoding(self, text: str) -> Encoding:
        """The tokenizers library's own result for one text."""
        return self._tokenizer.encode(readable(text), add_special_tokens=False)

    def ids(self, texts: Sequence[str]) -> list[IntArray]:
        """Token ids of each text, each of shape (tokens,); only unknown texts are worked on."""
        found = self._look_up(texts)
        unknown = [text for text, known in found.items() if known is None]
        if unknown:
            for text, encoding in zip(unknown, self._encode(unknown), strict=True):
                found[text] = np.array(encoding.ids, dtype=np.int32)
            self._remember({text: found[text] for text in unknown})  # type: ignore[misc]
        return [found[text] for text in texts]  # type: ignore[misc]

    def offsets(self, texts: Sequence[str]) -> list[IntArray]:
        """Characters [start, stop) of the tokens of each text, each of shape (tokens, 2)."""
        return [
            np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            for encoding in self._encode(texts)
        ]

    def has_unread_word(self, text: str) -> bool:
        """Whether a word of a text is too long for the tokenizer and read as unknown."""
        if not self._word_limit.may_be_exceeded(text):
            return False
        clean = readable(text)
        return self._word_limit.is_exceeded(clean, self.encoding(clean))

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        clean = [readable(text) for text in texts]
        return self._tokenizer.encode_batch(clean, add_special_tokens=False)

    def _look_up(self, texts: Sequence[str]) -> dict[str, IntArray | None]:
        known = self._known
        found: dict[str, IntArray | None] = {}
        with self._lock:
            for text in texts:
                ids = known.pop(text, None)
                if ids is not None:
                    known[text] = ids
                    found[text] = ids
                else:
                    found.setdefault(text)
        return found

    def _remember(self, fresh: dict[str, IntArray]) -> None:
        with self._lock:
            for text, ids in fresh.items():
                size = _size(text, ids)
                if text in self._known or size > self._most // 8:
                    continue
                self._known[text] = ids
                self._size += size
            while self._size > self._most:
                oldest = next(iter(self._known))
                self._size -= _size(oldest, self._known.pop(oldest))


def _size(text: str, ids: IntArray) -> int:
    """What an entry takes, in tokens; a text may be long and yet one token."""
    return len(ids) + len(text) // 4 + _ENTRY_TOKENS


class PairTokenizer(Protocol):
    """Turns pairs into token ids."""

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """One sequence a pair, cut to the model's length, longest text first."""
        ...


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens before, between and after the two texts.

    Attributes:
        before: Token ids, shape (tokens,).
        between: As before.
        after: As before.
        segments: Segment ids of before, query, between, passage and after.
    """

    before: IntArray
    between: IntArray
    after: IntArray
    segments: tuple[int, int, int, int, int]

    @property
    def special_tokens(self) -> int:
        """How many tokens of a pair are not text."""
        return len(self.before) + len(self.between) + len(self.after)

    @classmethod
    def learn(cls, texts: TextTokenizer) -> PairTemplate | None:
        """Reads the template off one pair; None where it is not special-text-special-text-special.

        Every part must be of one segment.
        """
        query, passage = texts.encoding("one"), texts.encoding("two three")
        if not query.ids or not passage.ids:
            return None
        joined = (
            texts.post_processor.process(query, passage, True)
            if texts.post_processor is not None
            else Encoding.merge([query, passage], growing_offsets=False)
        )
        ids, segments = np.array(joined.ids, dtype=np.int32), joined.type_ids
        first = _find(ids, np.array(query.ids), 0)
        if first is None:
            return None
        second = _find(ids, np.array(passage.ids), first + len(query.ids))
        if second is None:
            return None
        bounds = (0, first, first + len(query.ids), second, second + len(passage.ids), len(ids))
        parts = [slice(start, stop) for start, stop in pairwise(bounds)]
        if any(len(set(segments[part])) > 1 for part in parts):
            return None
        uniform = tuple(segments[part][0] if segments[part] else 0 for part in parts)
        return cls(ids[parts[0]], ids[parts[2]], ids[parts[4]], uniform)  # type: ignore[arg-type]

    def join(self, query: IntArray, passage: IntArray, truncated: bool) -> Tokens:
        """One sequence from the ids of both texts."""
        return Tokens(
            (self.before, query, self.between, passage, self.after),
            self.segments,
            self.special_tokens + len(query) + len(passage),
            truncated,
        )


class TemplateTokenizer:
    """Assembles pairs from texts tokenized alone."""

    def __init__(self, texts: TextTokenizer, template: PairTemplate, max_length: int) -> None:
        self._texts = texts
        self._template = template
        self._room = max_length - template.special_tokens

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """One sequence a pair."""
        texts = self._texts.ids([text for pair in pairs for text in pair])
        join, room = self._template.join, self._room
        encoded = []
        for query, passage in zip(texts[::2], texts[1::2], strict=True):
            if len(query) + len(passage) <= room:
                encoded.append(join(query, passage, False))
                continue
            kept_query, kept_passage = longest_first(len(query), len(passage), room)
            encoded.append(join(query[:kept_query], passage[:kept_passage], True))
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
                whole[i] = replace(tokens, truncated=True)
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
            Tokens.from_arrays(i[m].astype(np.int32), t[m])
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
