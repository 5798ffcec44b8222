"""Queries and passages to score: prose that every Python installation has, of known lengths."""

from __future__ import annotations

import itertools
import math
import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REALISTIC = "realistic"
MEDIAN_WORDS = 100
SIGMA = 0.6
QUERY_WORDS = 8
# Code and rules of dashes have many tokens per word, which no reranked text has.
_PROSE = re.compile(r"""["'(]?[A-Za-z]+(?:[-'][A-Za-z]+)*["').,;:?]*""")


@dataclass(frozen=True, slots=True)
class Request:
    """A query, its passages, and the tokens of each pair including special tokens."""

    query: str
    passages: list[str]
    lengths: list[int]

    @property
    def tokens(self) -> int:
        """Tokens of all pairs."""
        return sum(self.lengths)


def prose_words() -> list[str]:
    """The words of Python's language reference in order, without code."""
    from pydoc_data.topics import topics

    return [word for word in " ".join(topics.values()).split() if _PROSE.fullmatch(word)]


def realistic_word_counts(count: int) -> list[int]:
    """Words per passage: quantiles of a log-normal, so that 10 are spread as 1,000 are.

    The median is 100 words; sigma is 0.6 in natural logarithms.
    """
    normal = statistics.NormalDist(math.log(MEDIAN_WORDS), SIGMA)
    return [max(1, round(math.exp(normal.inv_cdf((i + 0.5) / count)))) for i in range(count)]


class TextGenerator:
    """Generates requests of passages that are new each time and whose token counts are known.

    Args:
        tokenizer: The model's tokenizer from transformers.
        max_length: Maximum tokens of a pair; longer passages are cut.
        seed: Determines all texts.
    """

    def __init__(self, tokenizer: Any, max_length: int, seed: int = 7) -> None:
        self.tokenizer = tokenizer
        self._max_length = max_length
        self._random = random.Random(seed)
        self._words = prose_words()
        self._token_counts = self._count_word_tokens()

    def request(self, lengths: str, candidates: int) -> Request:
        """Generates a query and its passages.

        Args:
            lengths: "realistic", or tokens per pair as digits, which pairs miss by a few tokens.
            candidates: Number of passages.
        """
        pair_tokens = self._max_length if lengths == REALISTIC else int(lengths)
        query = self._query(pair_tokens)
        room = pair_tokens - self._count_tokens(query, [""])[0]
        word_counts = [max(1, room)] * candidates
        if lengths == REALISTIC:
            word_counts = realistic_word_counts(candidates)
            self._random.shuffle(word_counts)
        texts = [" ".join(self._cut(self._stretch(count), room)) for count in word_counts]
        # A word can have one token more inside a text than alone; models cut what is too long.
        tokens = [min(count, self._max_length) for count in self._count_tokens(query, texts)]
        return Request(query, texts, tokens)

    def _query(self, pair_tokens: int) -> str:
        words = self._stretch(QUERY_WORDS)
        # A quarter of the tokens leaves room for a passage; a query must not be blank.
        fitting = self._cut(words, pair_tokens // 4)
        return " ".join(fitting or [min(words, key=self._token_counts.__getitem__)])

    def _cut(self, words: Sequence[str], room: int) -> list[str]:
        """The first words, as many as have at most ``room`` tokens."""
        totals = itertools.accumulate(self._token_counts[word] for word in words)
        return [word for word, total in zip(words, totals, strict=True) if total <= room]

    def _stretch(self, count: int) -> list[str]:
        start = self._random.randrange(len(self._words))
        return [self._words[(start + i) % len(self._words)] for i in range(count)]

    def _count_word_tokens(self) -> dict[str, int]:
        # After another word, as inside a text: some tokenizers treat the first word differently.
        words = sorted(set(self._words))
        inputs = self.tokenizer(["a", *(f"a {word}" for word in words)], verbose=False)
        prefix, *counts = map(len, inputs["input_ids"])
        return {word: max(count - prefix, 0) for word, count in zip(words, counts, strict=True)}

    def _count_tokens(self, query: str, passages: list[str]) -> list[int]:
        queries = [query] * len(passages)
        return list(map(len, self.tokenizer(queries, passages, verbose=False)["input_ids"]))
