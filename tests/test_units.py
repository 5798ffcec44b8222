"""The arithmetic below the models: batches, windows, scores, cache keys, calls, collections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gpurerank.cache import CachedScorer, DiskStore, MemoryStore, cache_key
from gpurerank.calls import calling, current_call, stage
from gpurerank.chunking import longest_first, max_passage_scores, window_spans
from gpurerank.errors import DeadlineError, InputError
from gpurerank.ranking import logit_of, sigmoid
from tests.conftest import WordOverlap


def words(text: str) -> np.ndarray:
    spans, start = [], 0
    for word in text.split(" "):
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return np.array(spans)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 25, 400])
@pytest.mark.parametrize("size", [1, 2, 10, 37])
def test_windows_cover_the_text_and_fit(count: int, size: int) -> None:
    text = " ".join(f"w{i}" for i in range(count))
    offsets = words(text)
    spans = window_spans(offsets, text, size)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    covered = set()
    for start, stop in spans:
        inside = [i for i, (a, b) in enumerate(offsets) if a >= start and b <= stop]
        assert 1 <= len(inside) <= size
        covered.update(inside)
    assert covered == set(range(count))


def test_windows_of_text_without_spaces_still_cover() -> None:
    text = "高さ" * 300
    offsets = np.array([(i, i + 1) for i in range(600)])
    spans = window_spans(offsets, text, 50)
    assert set().union(*(range(a, b) for a, b in spans)) == set(range(600))
    assert max(b - a for a, b in spans) <= 50


def test_best_window_is_the_first_among_equals() -> None:
    scores = np.array([0.1, 0.9, 0.9, 0.2], dtype=np.float32)
    best, windows = max_passage_scores(scores, np.array([0, 0, 0, 1]), 2)
    np.testing.assert_array_equal(best, scores[[1, 3]])
    assert windows.tolist() == [1, 3]
    with pytest.raises(InputError, match="passage 1 owns no window"):
        max_passage_scores(scores, np.array([0, 0, 2, 2]), 3)


@pytest.mark.parametrize(
    ("query", "passage", "room", "kept"),
    [(5, 5, 10, (5, 5)), (3, 50, 20, (3, 17)), (50, 3, 20, (17, 3)), (50, 50, 21, (10, 11))],
)
def test_longest_text_is_cut_first(
    query: int, passage: int, room: int, kept: tuple[int, int]
) -> None:
    assert longest_first(query, passage, room) == kept


@pytest.mark.parametrize("logit", [-700.0, -50.0, -3.5, 0.0, 1e-3, 12.25, 25.0])
def test_score_and_logit_are_inverse(logit: float) -> None:
    assert 0 <= sigmoid(logit) <= 1
    assert logit_of(sigmoid(logit)) == pytest.approx(logit, abs=1e-4)


def test_extreme_logits_stay_finite() -> None:
    assert sigmoid(1e6) == 1.0
    assert sigmoid(-1e6) >= 0.0
    assert math.isfinite(logit_of(0.0))
    assert math.isfinite(logit_of(1.0))


def test_cache_keys_do_not_collide() -> None:
    assert cache_key("a", "bc") != cache_key("ab", "c")
    assert cache_key("a", "b") != cache_key("b", "a")
    assert cache_key("", "a") != cache_key("a", "")
    assert cache_key("\ud800") != cache_key("?")


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cached_scorer_asks_once_and_keeps_models_apart(
    kind: str, tmp_path: Path, overlap: WordOverlap
) -> None:
    store = MemoryStore() if kind == "memory" else DiskStore(tmp_path)
    cached = CachedScorer(overlap, store, identity=["model a"])
    pairs = [("q", "q x"), ("q", "y"), ("q", "q x")]
    assert cached.score_pairs(pairs) == overlap.score_pairs(pairs)
    asked = len(overlap.seen)
    assert cached.score_pairs(pairs) == overlap.score_pairs(pairs)
    assert len(overlap.seen) == asked + 3
    other = CachedScorer(overlap, store, identity=["model b"])
    other.score_pairs([("q", "y")])
    assert len(overlap.seen) == asked + 4
    if isinstance(store, DiskStore):
        store.close()


def test_disk_cache_outlives_its_process_and_holds_no_text(
    tmp_path: Path, overlap: WordOverlap
) -> None:
    pairs = [("a secret query", "a secret passage")]
    store = DiskStore(tmp_path)
    first = CachedScorer(overlap, store, identity=["m"]).score_pairs(pairs)
    store.close()
    again = DiskStore(tmp_path)

    class Nobody:
        def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            raise AssertionError("the cache should have answered")

    assert CachedScorer(Nobody(), again, identity=["m"]).score_pairs(pairs) == first
    again.close()
    assert not any(b"secret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_memory_cache_forgets_the_least_recently_used() -> None:
    store = MemoryStore(max_entries=2)
    store.put({"a": 0.1, "b": 0.2})
    assert store.get("a") == 0.1
    store.put({"c": 0.3})
    assert [store.get(key) for key in "abc"] == [0.1, None, 0.3]


def test_calls_nest_and_only_shorten_the_deadline() -> None:
    assert current_call().deadline is None
    with calling(timeout_s=10) as outer, calling(timeout_s=99) as inner:
        assert inner.deadline == outer.deadline
        with stage("work"):
            pass
        assert outer.stages_ms["work"] >= 0
        with calling(timeout_s=1e-9), pytest.raises(DeadlineError):
            current_call().check_deadline()
    assert current_call().deadline is None
    with pytest.raises(InputError, match="timeout_s is -1"), calling(timeout_s=-1):
        pass
