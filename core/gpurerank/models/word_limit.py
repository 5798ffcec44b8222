"""Words that a tokenizer does not read because they are too long.

WordPiece replaces a word of more than ``max_input_chars_per_word`` characters, usually 100, by one
unknown token: a passage that lost its spaces, a long base64 string. Splitting such words would give
other scores than the reference implementations do, so they are reported instead. Unigram and BPE
tokenizers have no such limit.
"""

from __future__ import annotations

from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece

# Normalization takes a Hangul syllable apart into at most three characters.
_LARGEST_EXPANSION = 3


class WordLimit:
    """The limit of a tokenizer on the length of a word.

    Args:
        tokenizer: Its padding and truncation settings are not used.

    Attributes:
        characters: Longest word that is read, after normalization; None for no limit.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        model = tokenizer.model
        self.characters: int | None = None
        if isinstance(model, WordPiece):
            self.characters = model.max_input_chars_per_word
            self._unknown_id = tokenizer.token_to_id(model.unk_token)
        self._normalizer = tokenizer.normalizer

    def may_be_exceeded(self, text: str) -> bool:
        """Whether a text has a run without spaces that could be over the limit; cheap."""
        if self.characters is None:
            return False
        shortest = self.characters // _LARGEST_EXPANSION
        return len(text) > shortest and max(map(len, text.split()), default=0) > shortest

    def is_exceeded(self, text: str, encoding: Encoding) -> bool:
        """Whether a word of a text became an unknown token because of its length.

        Args:
            text: As it was tokenized.
            encoding: The tokenizer's result for it.
        """
        if self.characters is None or self._unknown_id not in encoding.ids:
            return False
        # A short word may be unknown too, because of a character that the vocabulary lacks.
        return any(
            self._length(text[start:stop]) > self.characters
            for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
            if token_id == self._unknown_id
        )

    def _length(self, word: str) -> int:
        return len(word if self._normalizer is None else self._normalizer.normalize_str(word))
