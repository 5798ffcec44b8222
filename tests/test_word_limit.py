"""Words over the limit of a WordPiece tokenizer are reported, not scored in silence."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from gpurerank import BiEncoder, Reranker
from gpurerank.models.word_limit import WordLimit
from tests.tiny_models import bytelevel_tokenizer, unigram_tokenizer, wordpiece_tokenizer

LONG = "a" * 101
LONGEST_READ = "a" * 100


@pytest.mark.parametrize(
    ("text", "exceeded"),
    [
        (LONG, True),
        (LONGEST_READ, False),
        (f"the fox\n{LONG}, again", True),
        ("fox " * 200, False),
        # Punctuation splits words, and a character that is not in the vocabulary is no long word.
        (f"{LONGEST_READ}/{LONGEST_READ}", False),
        ("한" * 10, False),
        # Counted after normalization: each syllable is three characters.
        ("한" * 34, True),
        ("한" * 33, False),
        ("", False),
    ],
)
def test_a_word_over_the_limit_is_detected(text: str, exceeded: bool) -> None:
    tokenizer = wordpiece_tokenizer().backend_tokenizer
    limit = WordLimit(tokenizer)
    assert limit.characters == 100
    assert limit.is_exceeded(text, tokenizer.encode(text)) is exceeded
    assert limit.may_be_exceeded(text) or not exceeded


@pytest.mark.parametrize("build", [bytelevel_tokenizer, unigram_tokenizer])
def test_other_tokenizers_have_no_limit(build: Callable[..., object]) -> None:
    tokenizer = build().backend_tokenizer  # type: ignore[attr-defined]
    limit = WordLimit(tokenizer)
    assert limit.characters is None
    assert not limit.may_be_exceeded("x" * 5000)
    assert not limit.is_exceeded("x" * 5000, tokenizer.encode("x" * 5000))


@pytest.mark.parametrize("long_passages", ["windows", "truncate"])
def test_a_passage_with_an_unread_word_is_marked(tiny: str, long_passages: str) -> None:
    reranker = Reranker(tiny, device="cpu", dtype="float32", long_passages=long_passages)  # type: ignore[arg-type]
    passages = [f"the fox {LONG}", f"the fox {LONGEST_READ}", f"{'fox ' * 600}{LONG}", "the fox"]
    ranked = sorted(reranker.rank("fox", passages), key=lambda passage: passage.index)
    assert [passage.truncated for passage in ranked] == [True, False, True, False]
    assert all(passage.truncated for passage in reranker.rank(f"fox {LONG}", passages))


async def test_the_embedded_models_mark_and_warn_once(
    embedded: Reranker, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["the keys are rotated", f"secret{LONG}"]
    for ranked in (embedded.rank("keys", texts), await embedded.arank("keys", texts)):
        assert {passage.index: passage.truncated for passage in ranked} == {0: False, 1: True}
    encoder = BiEncoder(max_length=99)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="gpurerank"):
        ranked = encoder.rank("keys", texts)
        encoder.embed_passages([f"another{LONG}"])
        encoder.embed_queries([f"yet{LONG}"])
    assert {passage.index: passage.truncated for passage in ranked} == {0: False, 1: True}
    (record,) = caplog.records
    assert "'embedded' reads a word of over 100 characters as unknown" in record.getMessage()
    assert "secret" not in record.getMessage()
    encoder.close()
