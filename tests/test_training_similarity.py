"""Training computes similarities as serving does, also where a bi-encoder does not normalise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from gpurerank import BiEncoder
from gpurerank.blended import Late
from gpurerank.collection import Collection, Document, Query
from gpurerank.late_interaction import LateInteraction
from gpurerank.models.blend import Blend
from gpurerank.training.hyperparameters import MiningOptions
from gpurerank.training.negative_mining import NegativeMiner, unlabelled_lists
from gpurerank.training.training_lists import TrainingList, with_late_interaction
from tests.tiny_models import CORPUS

TEACHER_SCALE = 15.0
TEXTS = list(dict.fromkeys(CORPUS)) + [f"{text[:40]} once more" for text in CORPUS[:6]]


@pytest.fixture
def unnormalized(model_folder: Callable[[str], str], tmp_path: Path) -> Iterator[BiEncoder]:
    """A tiny bi-encoder without a Normalize module: its vectors are not of length 1."""
    modules = [Transformer(model_folder("bert")), Pooling(32, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "bi"))
    encoder = BiEncoder(str(tmp_path / "bi"), device="cpu", dtype="float32")
    assert np.linalg.norm(encoder.embed_passages(TEXTS), axis=1).min() > 1.5
    yield encoder
    encoder.close()


def assert_served_similarities(training_list: TrainingList, encoder: BiEncoder) -> None:
    ranked = encoder.rank(training_list.query, training_list.passages)
    cosines = [p.score for p in sorted(ranked, key=lambda passage: passage.index)]
    np.testing.assert_allclose(training_list.similarities, cosines, rtol=0, atol=1e-5)
    teacher = TEACHER_SCALE * np.array(training_list.similarities)
    np.testing.assert_allclose(training_list.teacher, teacher, rtol=1e-6)


def test_mined_similarities_are_the_cosines_of_serving(unnormalized: BiEncoder) -> None:
    documents = {f"d{i}": Document("", text) for i, text in enumerate(TEXTS)}
    queries = {f"q{i}": Query(text.split()[-1]) for i, text in enumerate(TEXTS)}
    judgements = {f"q{i}": {f"d{i}": 1} for i in range(len(TEXTS))}
    collection = Collection("tiny", documents, queries, judgements)
    options = MiningOptions(too_similar=None, teacher_scale=TEACHER_SCALE)
    miner = NegativeMiner(collection, unnormalized, options, np.random.default_rng(0))
    lists = list(miner.mine(list(queries)))
    assert len(lists) == len(TEXTS)
    for training_list in lists:
        assert_served_similarities(training_list, unnormalized)


def test_unlabelled_similarities_are_the_cosines_of_serving(unnormalized: BiEncoder) -> None:
    rng = np.random.default_rng(0)
    lists = list(unlabelled_lists(TEXTS[:4], TEXTS, unnormalized, 8, TEACHER_SCALE, rng))
    assert len(lists) == 4
    for training_list in lists:
        assert_served_similarities(training_list, unnormalized)


def test_a_blend_is_trained_on_the_similarity_that_it_serves(bi_encoder: BiEncoder) -> None:
    """Late interaction reads past the bi-encoder's own limit, and so does its cosine."""
    long_passage = "the quick brown fox jumps over the lazy dog. " * 30 + "Rivers carry silt. " * 30
    passages = (long_passage, "Rivers carry silt.")
    query = "what do rivers carry"
    ranked = bi_encoder.rank(query, passages)
    cosines = tuple(p.score or 0.0 for p in sorted(ranked, key=lambda passage: passage.index))
    mined = TrainingList(query, passages, (1.0, 0.0), cosines, (3.0, 9.0))
    blend = Blend(weight=60.0, token_share=0.5, center=0.5)
    with closing(LateInteraction("embedded", device="cpu")) as late_interaction:
        [trained] = with_late_interaction([mined], late_interaction)
        served = Late(late_interaction, blend).of([(query, text) for text in passages])
    np.testing.assert_allclose(trained.blend_similarities(blend), served, rtol=0, atol=1e-5)
    assert trained.teacher == mined.teacher
