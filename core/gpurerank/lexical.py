"""Lexical search: passages found by the words that they share with a query.

Needs the extra ``eval`` or ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import Stemmer

from gpurerank.errors import InputError
from gpurerank.types import FloatArray, IntArray

# Of the languages that are stemmed, those for which bm25s knows stop words.
_WITH_STOP_WORDS = frozenset(
    "danish dutch english french german italian norwegian portuguese russian spanish swedish"
    " turkish".split()
)
LANGUAGES: tuple[str, ...] = (*sorted(Stemmer.algorithms()), "none")


class LexicalIndex:
    """BM25 over passages, as Lucene scores it and bm25s counts it (k1 1.5, b 0.75).

    Words are lowered, stop words left out, the rest stemmed (Snowball): "studies" finds "study".

    Args:
        passages: What is searched.
        language: Of the stop words and the stemmer, one of ``LANGUAGES``; "none" keeps every word
            as it is.

    Raises:
        InputError: The language is not known.
    """

    def __init__(self, passages: Sequence[str], language: str = "english") -> None:
        check_language(language)
        self._language = language
        self._count = len(passages)
        tokens = self._tokenize(passages)
        # bm25s cannot count nothing.
        self._index = bm25s.BM25() if any(tokens.ids) else None
        if self._index is not None:
            self._index.index(tokens, show_progress=False)

    def __bool__(self) -> bool:
        """Whether any passage has a word that could be looked up."""
        return self._index is not None

    def search(self, queries: Sequence[str], depth: int) -> list[tuple[IntArray, FloatArray]]:
        """The best passages of each query, best first.

        Returns:
            For each query the rows of at most ``depth`` passages and their scores, in (0, inf);
            a passage that shares no word with the query is not found.
        """
        if self._index is None or not queries:
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        rows, scores = self._index.retrieve(
            self._tokenize(queries), k=min(depth, self._count), show_progress=False
        )
        return [
            (np.asarray(found[scored > 0], np.int64), np.asarray(scored[scored > 0], np.float32))
            for found, scored in zip(rows, scores, strict=True)
        ]

    def _tokenize(self, texts: Sequence[str]) -> bm25s.tokenization.Tokenized:
        known = self._language if self._language in _WITH_STOP_WORDS else None
        stemmer = None if self._language == "none" else Stemmer.Stemmer(self._language)
        return bm25s.tokenize(list(texts), stopwords=known, stemmer=stemmer, show_progress=False)


def check_language(language: str) -> None:
    """Checks the name of a language.

    Raises:
        InputError: It is none of ``LANGUAGES``.
    """
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}; it must be one of {', '.join(LANGUAGES)}")
