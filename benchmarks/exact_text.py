"""Requests whose pairs have exactly the same number of tokens, so that nobody pads."""

from __future__ import annotations

from typing import Any

from gpurerank.benchmark.synthetic_text import REALISTIC, Request, TextGenerator
from gpurerank.errors import DataError

MAX_REPAIRS = 12


class ExactTextGenerator(TextGenerator):
    """A ``TextGenerator`` whose fixed lengths are exact; see there for the arguments."""

    def __init__(self, tokenizer: Any, max_length: int, seed: int = 7) -> None:
        super().__init__(tokenizer, max_length, seed)
        self._one_token_words = sorted(
            word for word, tokens in self._token_counts.items() if tokens == 1 and word.isalpha()
        )

    def request(self, lengths: str, candidates: int) -> Request:
        """Generates a query and its passages.

        Args:
            lengths: "realistic", or the exact number of tokens per pair as digits.
            candidates: Number of passages.

        Raises:
            DataError: The tokenizer cannot make pairs of exactly so many tokens.
        """
        if lengths == REALISTIC:
            return super().request(lengths, candidates)
        pair_tokens = int(lengths)
        query = self._query(pair_tokens)
        room = pair_tokens - self._count_tokens(query, [""])[0]
        passages = [self._cut(self._stretch(max(room, 1)), room) for _ in range(candidates)]
        for _ in range(MAX_REPAIRS):
            texts = [" ".join(words) for words in passages]
            counts = self._count_tokens(query, texts)
            if all(count == pair_tokens for count in counts):
                return Request(query, texts, counts)
            for words, count in zip(passages, counts, strict=True):
                self._repair(words, pair_tokens - count)
        raise DataError(
            f"no passage makes a pair of exactly {pair_tokens} tokens with this tokenizer; leave"
            f" {pair_tokens} out of --lengths"
        )

    def _repair(self, words: list[str], missing_tokens: int) -> None:
        if missing_tokens > 0 and not self._one_token_words:
            raise DataError("the tokenizer has no word of one token to fill passages with")
        if missing_tokens < 0:
            del words[max(1, len(words) + missing_tokens) :]
        words += [self._random.choice(self._one_token_words) for _ in range(missing_tokens)]
