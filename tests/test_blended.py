"""A cross-encoder on top of a bi-encoder: one logit of both, and no text embedded twice."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpurerank import BiEncoder, CrossEncoder, MemoryStore, Reranker, calling
from gpurerank.errors import WeightsError
from gpurerank.late_interaction import LateInteraction
from gpurerank.models.blend import FILE_NAME, Blend, read_blend
from gpurerank.models.embedded import DELTA_FILE
from gpurerank.models.remembered import RememberedRows
from gpurerank.ranking import logit_of
from tests.conftest import items_run

QUERY = "how do I compare two files?"
PASSAGES = ["difflib compares two files", "a brown fox", "subprocess.run executes a command"]


@pytest.fixture
def on_top(tiny: str, tmp_path: Path) -> str:
    """The tiny cross-encoder, trained, so to speak, on top of the embedded bi-encoder."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    Blend(weight=12.0, center=0.25, scale=0.5).write(folder)
    return str(folder)


def expected(folder: str, bi_encoder: BiEncoder) -> list[float]:
    encoder = CrossEncoder(folder, dtype="float32")
    own = encoder.logits([(QUERY, passage) for passage in PASSAGES])
    encoder.close()
    cosines = bi_encoder.embed_passages(PASSAGES) @ bi_encoder.embed_queries([QUERY])[0]
    return [float(logit) for logit in 0.5 * (own + 12.0 * (cosines - 0.25))]


def test_logit_is_the_models_own_plus_the_similarity(on_top: str, bi_encoder: BiEncoder) -> None:
    wanted = expected(on_top, bi_encoder)
    with Reranker(on_top, dtype="float32") as reranker:
        ranked = reranker.rank(QUERY, PASSAGES)
        scores = reranker.score_pairs([(QUERY, passage) for passage in PASSAGES])
        waited = asyncio.run(reranker.arank(QUERY, PASSAGES))
    by_index = sorted(ranked, key=lambda passage: passage.index)
    assert [p.logit for p in by_index] == pytest.approx(wanted, abs=1e-3)
    assert [logit_of(score) for score in scores] == pytest.approx(wanted, abs=1e-3)
    assert [p.index for p in waited] == [p.index for p in ranked]
    assert [p.logit for p in waited] == pytest.approx([p.logit for p in ranked], abs=1e-3)


def test_sentence_transformers_gives_the_same_model_its_own_logit(on_top: str) -> None:
    from sentence_transformers import CrossEncoder as Reference

    encoder = CrossEncoder(on_top, dtype="float32")
    pairs = [(QUERY, passage) for passage in PASSAGES]
    np.testing.assert_allclose(
        encoder.score_pairs(pairs), Reference(on_top, device="cpu").predict(pairs), atol=1e-4
    )
    encoder.close()


def test_scores_are_remembered_under_the_blend(on_top: str) -> None:
    store = MemoryStore()
    with Reranker(on_top, dtype="float32", cache=store) as reranker:
        first = reranker.rank(QUERY, PASSAGES)
    Blend(weight=0.0, center=0.0).write(Path(on_top))
    with Reranker(on_top, dtype="float32", cache=store) as reranker:
        second = reranker.rank(QUERY, PASSAGES)
    assert [p.logit for p in first] != pytest.approx([p.logit for p in second], abs=1e-3)


def test_a_blend_that_cannot_be_read_is_named(on_top: str) -> None:
    (Path(on_top) / FILE_NAME).write_text(json.dumps({"weight": 1}))
    with pytest.raises(WeightsError, match="does not say how to blend"):
        Reranker(on_top)


def test_a_text_is_embedded_once(bi_encoder: BiEncoder) -> None:
    texts = ["seen for the first time by this test", "and another", "and another"]
    before = items_run(bi_encoder._lease.engine)
    first = bi_encoder.embed_passages(texts)
    assert items_run(bi_encoder._lease.engine) == before + 2
    again = BiEncoder("embedded").embed_passages([*reversed(texts), "not seen"])
    assert items_run(bi_encoder._lease.engine) == before + 3
    np.testing.assert_array_equal(again[:3], first[::-1])
    again[:] = 0
    np.testing.assert_array_equal(bi_encoder.embed_passages(texts), first)


def test_the_least_recently_used_rows_go_first() -> None:
    remembered = RememberedRows(max_bytes=3 * 2 * 4)
    items = [("", name) for name in "abcd"]
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    remembered.keep(items[:3], rows[:3], [False, True, False], [3, 4, 5])
    remembered.find([items[0]])
    remembered.keep(items[3:], rows[3:], [False], [6])
    found = remembered.find([*items, ("prompt", "a")])
    assert [one is not None for one in found] == [True, False, True, True, False]
    assert found[0] is not None
    assert found[0][0].tolist() == [0.0, 1.0]
    remembered.keep(items, rows, [False] * 4, [3] * 4)
    assert [one is not None for one in remembered.find(items)] == [False, True, True, True]


def test_rows_of_any_length_share_the_memory() -> None:
    remembered = RememberedRows(max_bytes=100)
    items = [("", name) for name in "abcd"]
    rows = np.empty(4, dtype=object)
    rows[:] = [np.zeros((count, 5), np.float16) for count in (4, 3, 2, 20)]
    remembered.keep(items[:3], rows[:3], [False] * 3, [4, 3, 2])
    assert [one is not None for one in remembered.find(items)] == [True, True, True, False]
    remembered.keep(items[1:2], rows[2:3], [False], [2])
    remembered.keep(items[3:], rows[3:], [False], [20])
    assert [one is not None for one in remembered.find(items)] == [True, True, True, False]
    remembered.keep([("", "e")], rows[1:2], [False], [3])
    assert [one is not None for one in remembered.find(items)] == [False, True, True, False]


def test_late_interaction_has_its_share(on_top: str) -> None:
    pairs = [(QUERY, passage) for passage in PASSAGES]
    blend = Blend(weight=12.0, token_share=0.75, center=0.25, scale=0.5)
    blend.write(Path(on_top))
    late = LateInteraction(dtype="float32")
    cosines, of_tokens = late.similarities(pairs)
    encoder = CrossEncoder(on_top, dtype="float32")
    mixed = 0.25 * cosines + 0.75 * of_tokens
    wanted = 0.5 * (encoder.logits(pairs) + 12.0 * (mixed - 0.25))
    encoder.close()
    late.close()
    with Reranker(on_top, dtype="float32") as reranker:
        ranked = reranker.rank(QUERY, PASSAGES)
        waited = asyncio.run(reranker.arank(QUERY, PASSAGES))
    by_index = sorted(ranked, key=lambda passage: passage.index)
    assert [p.logit for p in by_index] == pytest.approx(wanted.tolist(), abs=1e-3)
    assert [p.logit for p in waited] == pytest.approx([p.logit for p in ranked], abs=1e-3)


def test_a_share_over_one_is_refused(on_top: str) -> None:
    told = {"bi_encoder": "embedded", "weight": 1, "center": 0, "scale": 1, "token_share": 1.5}
    (Path(on_top) / FILE_NAME).write_text(json.dumps(told))
    with pytest.raises(WeightsError, match=r"token_share is 1\.5"):
        Reranker(on_top)


def test_progress_counts_pairs_once_whichever_model_read_them(on_top: str) -> None:
    for share in (0.0, 0.5):
        Blend(weight=12.0, token_share=share, center=0.25).write(Path(on_top))
        pairs = [(QUERY, f"passage {share} {i}") for i in range(600)]
        with Reranker(on_top, dtype="float32") as reranker:
            for scores in (
                reranker.score_pairs,
                lambda some, r=reranker: asyncio.run(r.ascore_pairs(some)),
            ):
                told: list[tuple[int, int]] = []
                with calling(on_progress=lambda done, of, t=told: t.append((done, of))):
                    scores(pairs)
                assert told[-1] == (600, 600)
                assert told == sorted(told)


def test_the_card_states_the_blend_that_ships() -> None:
    blend = read_blend(DELTA_FILE.with_name(FILE_NAME))
    card = DELTA_FILE.with_name("MODEL_CARD.md").read_text()
    told = f"{blend.scale} * (logit + {blend.weight:g} * (similarity - {blend.center}))"
    assert told in card
    assert f"{blend.token_share} * late interaction" in card
