"""Late interaction: a bi-encoder read token by token, from the weights that are loaded already."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from gpurerank import BiEncoder, ClosedError, ModelError, NotFiniteError
from gpurerank.calls import calling
from gpurerank.engine.registry import REGISTRY
from gpurerank.evaluation import EvalOptions, QuerySet, evaluate
from gpurerank.evaluation.query_latency import Timing
from gpurerank.evaluation.query_set import Candidate, JudgedQuery
from gpurerank.late_interaction import LateInteraction
from gpurerank.models import token_model
from gpurerank.models.blend import Blend
from gpurerank.models.embedded import base_folder
from gpurerank.models.remembered import RememberedRows
from gpurerank.types import FloatArray
from tests.conftest import items_run
from tests.test_bi_encoder import build

QUERY = "how do I compare two files?"
PASSAGES = [
    "difflib compares two files",
    "subprocess.run executes a command, waits, and returns its output. " * 8,
    "Größe, naïve café — 12.5 % of £3, 高さ мир",
    "fox",
    "the quick brown fox " * 200,
]
SHORT = PASSAGES[:4]
# Tokens are kept in half precision.
TOLERANCE = 5e-4


def reference(model: SentenceTransformer, query: str, passage: str) -> tuple[float, float]:
    """Cosine and MaxSim from sentence-transformers' own token embeddings."""
    marks = {model.tokenizer.cls_token_id, model.tokenizer.sep_token_id}
    read = []
    for features in (
        model.encode_query([query], output_value=None)[0],
        model.encode_document([passage], output_value=None)[0],
    ):
        meant = [i for i, token in enumerate(features["input_ids"].tolist()) if token not in marks]
        states = features["token_embeddings"].cpu().float().numpy()[meant]
        vector = features["sentence_embedding"].cpu().float().numpy()
        read.append(
            (
                vector / np.linalg.norm(vector),
                states / np.linalg.norm(states, axis=1, keepdims=True),
            )
        )
    (asked, of_query), (found, of_passage) = read
    return float(asked @ found), float((of_query @ of_passage.T).max(axis=1).mean())


def test_it_is_maxsim_over_sentence_transformers_own_states() -> None:
    model = SentenceTransformer(str(base_folder()), device="cpu")
    late = LateInteraction(device="cpu", dtype="float32")
    assert late._engine().model.max_length == 512
    model.max_seq_length = 512  # not the 256 after which it embeds no more
    cosines, similarities = late.similarities([(QUERY, passage) for passage in PASSAGES])
    expected = [reference(model, QUERY, passage) for passage in PASSAGES]
    np.testing.assert_allclose(cosines, [each[0] for each in expected], atol=TOLERANCE)
    np.testing.assert_allclose(similarities, [each[1] for each in expected], atol=TOLERANCE)
    assert similarities.dtype == np.float32
    assert similarities.argmax() == 0
    late.close()


@pytest.mark.parametrize(("pooling", "packed"), [("mean", True), ("max", False)])
def test_a_model_that_runs_padded_is_read_alike(
    pooling: str, packed: bool, model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    folder = build(tmp_path, model_folder("bert"), pooling)
    model = SentenceTransformer(folder, device="cpu")
    late = LateInteraction(folder, device="cpu", dtype="float32")
    assert late._lease.model.packed is packed
    model.max_seq_length = late._engine().model.max_length
    found = np.transpose(late.similarities([(QUERY, passage) for passage in PASSAGES]))
    expected = [reference(model, QUERY, passage) for passage in PASSAGES]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    late.close()


def test_a_pair_ignores_its_neighbours_and_tasks_get_the_same() -> None:
    late = LateInteraction(device="cpu", dtype="float32")
    pairs = [(query, passage) for query in (QUERY, "a fox") for passage in PASSAGES]
    alone = np.array([np.ravel(late.similarities([pair])) for pair in pairs]).T
    late.close()
    late = LateInteraction(device="cpu", dtype="float32")
    np.testing.assert_allclose(late.similarities(pairs), alone, atol=TOLERANCE)
    np.testing.assert_array_equal(asyncio.run(late.asimilarities(pairs)), late.similarities(pairs))
    assert [each.shape for each in late.similarities([])] == [(0,), (0,)]
    late.close()


def test_what_has_no_token_is_like_nothing(bi_encoder: BiEncoder) -> None:
    late = LateInteraction()
    _, similarities = late.similarities([(QUERY, ""), ("", "a fox"), ("", "")])
    assert similarities.tolist() == [0.0, 0.0, 0.0]
    late.close()


def test_many_pairs_are_read_in_slices_and_counted_as_pairs(bi_encoder: BiEncoder) -> None:
    late = LateInteraction()
    pairs = [(f"fact {i % 3}", f"number {i}") for i in range(1_100)]
    told: list[tuple[int, int]] = []
    with calling(on_progress=lambda done, total: told.append((done, total))):
        _, similarities = late.similarities(pairs)
    assert told[-1] == (1_100, 1_100)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    _, last = late.similarities(pairs[-40:])
    np.testing.assert_allclose(similarities[-40:], last, atol=TOLERANCE)
    late.close()


def test_weights_are_shared_with_the_bi_encoder(bi_encoder: BiEncoder) -> None:
    before = REGISTRY.loaded()
    late = LateInteraction("embedded")
    assert late._lease.model is bi_encoder._lease.model
    assert REGISTRY.loaded() == before
    late.close()
    with pytest.raises(ClosedError):
        late.similarities([(QUERY, "fox")])
    assert bi_encoder.embed_queries(["fox"]).shape == (1, 384)


def test_who_is_closed_last_frees_the_weights(
    model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    folder = build(tmp_path, model_folder("bert"), "mean")
    before = REGISTRY.loaded()
    encoder, late = BiEncoder(folder, device="cpu"), LateInteraction(folder, device="cpu")
    encoder.close()
    assert np.isfinite(late.similarities([(QUERY, "the fox runs")])).all()
    late.close()
    assert REGISTRY.loaded() == before
    encoder, late = BiEncoder(folder, device="cpu"), LateInteraction(folder, device="cpu")
    of_tokens = weakref.ref(late._engine().model)
    del late
    gc.collect()
    encoder.close()
    gc.collect()
    assert REGISTRY.loaded() == before
    assert of_tokens() is None, "nobody uses it, and its weights are gone"


def test_a_text_is_read_once(bi_encoder: BiEncoder) -> None:
    late = LateInteraction()
    pairs = [("a query that only this test asks", passage) for passage in ("one", "two", "one")]
    first = late.similarities(pairs)
    read = items_run(late._engine())
    np.testing.assert_array_equal(late.similarities(pairs[::-1])[1], first[1][::-1])
    assert items_run(late._engine()) == read
    late.close()


def test_a_model_whose_tokens_live_elsewhere_is_refused(
    model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    folder = build(tmp_path, model_folder("bert"), "mean", dense=True)
    before = REGISTRY.loaded()
    with pytest.raises(ModelError, match="a token has 32 numbers and a text 12"):
        LateInteraction(folder, device="cpu")
    assert REGISTRY.loaded() == before


def test_not_a_number_is_an_error(model_folder: Callable[[str], str], tmp_path: Path) -> None:
    late = LateInteraction(build(tmp_path, model_folder("bert"), "mean"), device="cpu")
    weight = late._lease.model._transformer.model.embeddings.LayerNorm.weight
    weight.data.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="NaN or infinity for 2 of 2 texts"):
        late.similarities([("one", "two")])
    late.close()


def test_both_engines_of_a_padded_model_run_at_once(
    model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    folder = build(tmp_path, model_folder("bert"), "max")
    encoder, late = BiEncoder(folder, device="cpu"), LateInteraction(folder, device="cpu")
    texts = [f"number {i} " * (1 + i % 7) for i in range(120)]
    expected = encoder.embed_passages(texts)
    encoder._lease.model.remembered = RememberedRows(0)

    async def both() -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
        return await asyncio.gather(
            encoder.aembed_passages(texts), late.asimilarities([(QUERY, text) for text in texts])
        )

    vectors, (cosines, _) = asyncio.run(both())
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(cosines, expected @ encoder.embed_queries([QUERY])[0], atol=1e-3)
    encoder.close()
    late.close()


def test_an_evaluation_reads_a_passage_once(
    tiny: str,
    model_folder: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_model, "REMEMBERED_BYTES", 0)  # a collection that is far larger
    monkeypatch.setattr("gpurerank.evaluation.ranking_runner.INITIAL_PAIRS", 1)
    monkeypatch.setattr(
        "gpurerank.evaluation.evaluator.measure_latency", lambda *_, **__: Timing([1.0])
    )
    bi_encoder = build(tmp_path / "bi", model_folder("bert"), "mean")
    on_top = tmp_path / "on_top"
    shutil.copytree(tiny, on_top)
    Blend(bi_encoder=bi_encoder, weight=12.0, token_share=0.75, center=0.25).write(on_top)
    found = tuple(Candidate(f"d{i}", text) for i, text in enumerate(SHORT))
    queries = tuple(JudgedQuery(f"q{i}", f"question {i}", {"d0": 1}, found) for i in range(7))
    late = LateInteraction(bi_encoder, device="cpu", dtype="float32")
    engine = late._engine()
    options = EvalOptions(model=str(on_top), device="cpu", dtype="float32")
    evaluate(QuerySet("made up", "BM25", queries, available=7), ["cross-encoder"], options)
    tried = 2  # a question and a passage, before anything is judged
    assert items_run(engine) == tried + len(queries) + len(SHORT)
    late.similarities([("question 0", PASSAGES[0])])
    assert items_run(engine) == tried + len(queries) + len(SHORT) + 2, "nothing stays"
    late.close()
