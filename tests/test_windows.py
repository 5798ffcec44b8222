"""Long passages: windows that cover, fit and say where they lie; cuts that are reported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gpurerank import (
    CrossEncoder,
    Reranker,
)
from tests.conftest import WordOverlap
from tests.tiny_models import PASSAGES, tiny_reranker


def test_a_megabyte_is_ranked_by_its_best_window(overlap: WordOverlap, tiny: str) -> None:
    filler = "the quick brown fox jumps over the lazy dog " * 23_000
    middle = len(filler) // 2
    passage = filler[:middle] + " zebra zebra zebra " + filler[middle:]
    assert len(passage) > 1_000_000
    encoder = CrossEncoder(tiny, device="cpu", dtype="float32")
    fit = encoder.fit("zebra", [passage], "windows")[0]
    assert not fit.truncated
    assert fit.spans[0][0] == 0
    assert fit.spans[-1][1] == len(passage)
    joins = zip(fit.spans, fit.spans[1:], strict=False)
    assert all(following[0] < earlier[1] for earlier, following in joins)
    scores = overlap.score_pairs([("zebra", passage[slice(*span)]) for span in fit.spans])
    start, stop = fit.spans[int(np.argmax(scores))]
    assert "zebra" in passage[start:stop]


def test_long_passage_scores_as_its_best_window(tiny: str) -> None:
    long = " ".join(f"word{i} {PASSAGES[i % 4]}" for i in range(120))
    reranker = tiny_reranker(tiny, max_length=64)
    best = reranker.rank("run a command", [long])[0]
    assert best.span is not None
    assert not best.truncated
    start, stop = best.span
    assert 0 < stop - start < len(long)
    alone = reranker.rank("run a command", [long[start:stop]])[0]
    assert alone.score == pytest.approx(best.score, abs=1e-6)
    fits = CrossEncoder(tiny, device="cpu", dtype="float32", max_length=64).fit(
        "run a command", [long], "windows"
    )[0]
    every = reranker.score_pairs([("run a command", long[a:b]) for a, b in fits.spans])
    assert best.score == pytest.approx(max(every), abs=1e-6)


def test_truncation_is_reported(tiny: str) -> None:
    reranker = tiny_reranker(tiny, max_length=32, long_passages="truncate")
    short, long = "a fox", "a fox " * 100
    ranked = {p.index: p for p in reranker.rank("fox", [short, long])}
    assert not ranked[0].truncated
    assert ranked[1].truncated
    assert ranked[1].span is not None
    start, stop = ranked[1].span
    assert (start, stop) < (0, len(long))
    same = reranker.score_pairs([("fox", long), ("fox", long[:stop])])
    assert same[0] == pytest.approx(same[1], abs=1e-6)


def test_a_query_that_leaves_no_room_is_reported(tiny: str) -> None:
    ranked = tiny_reranker(tiny, max_length=32).rank("why " * 200, ["a fox"])
    assert ranked[0].truncated


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm_roberta", "causal_chat"])
@pytest.mark.parametrize("word", ["fox jumps ", "高さ", "größe 😀 "])
def test_no_window_is_cut_unseen(
    family: str, word: str, model_folder: Callable[[str], str]
) -> None:
    encoder = CrossEncoder(model_folder(family), device="cpu", dtype="float32", max_length=64)
    passage = word * 200
    (fit,) = encoder.fit("a query", [passage], "windows")
    assert not fit.truncated
    assert len(fit.spans) > 1
    pairs = [("a query", passage[slice(*span)]) for span in fit.spans]
    assert not any(tokens.truncated for tokens in encoder._lease.model.tokenize(pairs))
    covered = set().union(*(range(*span) for span in fit.spans))
    assert covered == set(range(len(passage)))


def test_a_long_query_is_cut_and_not_the_passage(model_folder: Callable[[str], str]) -> None:
    reranker = Reranker(model_folder("causal_chat"), device="cpu", dtype="float32", max_length=64)
    passages = ["a fox", "merge sorted inputs with heapq", "Paris"]
    ranked = reranker.rank("why and how does it do this? " * 30, passages)
    assert all(passage.truncated for passage in ranked)
    scores = [passage.score for passage in ranked]
    assert max(scores) - min(scores) > 1e-4
