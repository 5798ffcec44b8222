"""Queries and passages to score: prose that every Python has, of lengths that are known."""

from __future__ import annotations

import itertools
import math
import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpurerank.errors import DataError

REALISTIC = "realistic"
MEDIAN_WORDS = 100
SIGMA = 0.6
QUERY_WORDS = 8
_MOST_REPAIRS = 12
# Code and rules of dashes take many tokens a word, and nobody reranks them.
_PROSE = re.compile(r"""["'(]?[A-Za-z]+(?:[-'][A-Za-z]+)*["').,;:?]*""")


@dataclass(frozen=True, slots=True)
class Request:
    """A query, its passages, and the tokens of each pair, special tokens included."""

    query: str
    passages: list[str]
    lengths: list[int]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What a scorer takes."""
        return [(self.query, passage) for passage in self.passages]

    @property
    def tokens(self) -> int:
        """Of all pairs."""
        return sum(self.lengths)


def corpus_words() -> list[str]:
    """The words of the language reference that comes with Python, in order; code is left out."""
    from pydoc_data.topics import topics

    return [word for word in " ".join(topics.values()).split() if _PROSE.fullmatch(word)]


def realistic_words(count: int) -> list[int]:
    """Words of each passage: the quantiles of a log-normal, so that 10 are spread as 1,000 are.

    Median 100 and sigma 0.6 in natural logarithms.
    """
    normal = statistics.NormalDist(math.log(MEDIAN_WORDS), SIGMA)
    return [max(1, round(math.exp(normal.inv_cdf((i + 0.5) / count)))) for i in range(count)]


class TextMaker:
    """Makes requests whose passages are new each time and whose token counts are known.

    Args:
        tokenizer: The model's own, from transformers.
        max_length: Tokens that a pair may have; longer passages end earlier.
        seed: The same seed makes the same requests in the same order.
    """

    def __init__(self, tokenizer: Any, max_length: int, seed: int = 7) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._random = random.Random(seed)
        self._words = corpus_words()
        self._sizes = self._tokens_by_word()
        self._single = sorted(w for w, size in self._sizes.items() if size == 1 and w.isalpha())

    def request(self, lengths: str, candidates: int) -> Request:
        """A query and as many passages; ``lengths`` is "realistic" or tokens a pair.

        Raises:
            DataError: The tokenizer cannot make pairs of exactly so many tokens.
        """
        if lengths == REALISTIC:
            query = " ".join(self._stretch(QUERY_WORDS))
            words = realistic_words(candidates)
            self._random.shuffle(words)
            room = self._max_length - self._count([(query, "")])[0]
            passages = [" ".join(self._within(self._stretch(count), room)) for count in words]
            pairs = [(query, passage) for passage in passages]
            # A word may have a token more inside a text than by itself.
            counts = [min(count, self._max_length) for count in self._count(pairs)]
            return Request(query, passages, counts)
        wanted = int(lengths)
        # Short pairs of a tokenizer that cuts words small must leave room for a passage.
        query = " ".join(self._within(self._stretch(QUERY_WORDS), wanted // 4))
        passages = self._exact(query, wanted, candidates)
        return Request(query, passages, [wanted] * candidates)

    def _exact(self, query: str, wanted: int, candidates: int) -> list[str]:
        room = wanted - self._count([(query, "")])[0]
        passages = [self._filled(room) for _ in range(candidates)]
        for _ in range(_MOST_REPAIRS):
            counts = self._count([(query, " ".join(passage)) for passage in passages])
            wrong = [i for i, count in enumerate(counts) if count != wanted]
            if not wrong:
                return [" ".join(passage) for passage in passages]
            for i in wrong:
                passages[i] = self._repaired(passages[i], wanted - counts[i])
        raise DataError(
            f"no passage makes a pair of exactly {wanted} tokens with this tokenizer; leave"
            f" {wanted} out of --lengths"
        )

    def _repaired(self, passage: list[str], missing: int) -> list[str]:
        if missing > 0:
            return passage + self._fill(missing)
        return passage[: max(1, len(passage) + missing)]

    def _filled(self, room: int) -> list[str]:
        words = self._within(self._stretch(max(room, 1)), room)
        return words + self._fill(room - sum(self._sizes[word] for word in words))

    def _fill(self, tokens: int) -> list[str]:
        if tokens > 0 and not self._single:
            raise DataError("the tokenizer has no word of one token to fill passages with")
        return [self._random.choice(self._single) for _ in range(tokens)]

    def _within(self, words: Sequence[str], room: int) -> list[str]:
        """The first words, as many as have no more tokens than that."""
        sizes = itertools.accumulate(self._sizes[word] for word in words)
        return [word for word, size in zip(words, sizes, strict=True) if size <= room]

    def _stretch(self, words: int) -> list[str]:
        start = self._random.randrange(len(self._words))
        return [self._words[(start + i) % len(self._words)] for i in range(words)]

    def _tokens_by_word(self) -> dict[str, int]:
        # Behind another word, as inside a text: some tokenizers treat a text's start differently.
        words = sorted(set(self._words))
        alone = len(self._ids(["a"])[0])
        return {
            word: max(len(ids) - alone, 0)
            for word, ids in zip(words, self._ids([f"a {word}" for word in words]), strict=True)
        }

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(list(texts), verbose=False)["input_ids"]
        return found

    def _count(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        queries, passages = [query for query, _ in pairs], [passage for _, passage in pairs]
        found = self._tokenizer(queries, passages, verbose=False)["input_ids"]
        return [len(ids) for ids in found]
