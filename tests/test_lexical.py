"""Lexical search: whose words are one, and in which order passages come."""

from __future__ import annotations

import math

import pytest

from gpurerank import InputError
from gpurerank.lexical import LANGUAGES, LexicalIndex


def found(index: LexicalIndex, query: str, depth: int = 10) -> list[int]:
    ((rows, _),) = index.search([query], depth)
    return rows.tolist()


def test_a_word_finds_its_other_forms() -> None:
    passages = ["Studies of proteins", "A study", "Buses are late"]
    assert set(found(LexicalIndex(passages), "studying a protein")) == {0, 1}
    assert found(LexicalIndex(passages, "none"), "studying a protein") == []


def test_another_language_has_its_own_forms_and_stop_words() -> None:
    passages = ["Die Häuser der Stadt", "Ein Haus am See", "Der Hund"]
    german = LexicalIndex(passages, "german")
    assert set(found(german, "das Haus")) == {0, 1}
    assert found(german, "der") == []
    assert set(found(LexicalIndex(passages), "das Haus der")) == {0, 1, 2}
    # A language whose stop words are not known is stemmed all the same.
    assert found(LexicalIndex(["a talo", "a talon"], "finnish"), "talossa") != []


def test_scores_are_those_of_lucenes_formula() -> None:
    passages = ["cat dog", "cat cat fish", "bird"]
    ((rows, scores),) = LexicalIndex(passages).search(["cats and fishes"], 3)
    lengths, average = [2, 3, 1], 2.0
    counts = {"cat": [1, 2, 0], "fish": [0, 1, 0]}
    expected = [0.0] * 3
    for row, length in enumerate(lengths):
        for each in counts.values():
            holding = sum(count > 0 for count in each)
            idf = math.log(1 + (3 - holding + 0.5) / (holding + 0.5))
            norm = 1.5 * (1 - 0.75 + 0.75 * length / average)
            expected[row] += idf * each[row] / (each[row] + norm)
    assert rows.tolist() == [1, 0]
    assert scores.tolist() == pytest.approx([expected[1], expected[0]], rel=1e-5)


def test_nothing_to_look_up_finds_nothing() -> None:
    assert not LexicalIndex([])
    assert not LexicalIndex(["of the", "!"])
    assert found(LexicalIndex(["of the"]), "of") == []
    index = LexicalIndex(["one cat", "two cats"])
    assert index
    assert index.search([], 5) == []
    assert [rows.tolist() for rows, _ in index.search(["", "dog", "one"], 1)] == [[], [], [0]]


def test_a_language_that_is_not_known_is_refused() -> None:
    assert {"english", "german", "none"} <= set(LANGUAGES)
    with pytest.raises(InputError, match=r"language is 'klingon'; it must be one of .*, none"):
        LexicalIndex(["text"], "klingon")
