"""Parts of a training run: the loss, negative mining, and the delta of the embedded model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from benchmarks.embedded_weights import write_delta
from gpurerank import BiEncoder
from gpurerank.collection import Collection, Document, Query
from gpurerank.errors import WeightsError
from gpurerank.models import embedded
from gpurerank.models.blend import Blend
from gpurerank.training.hyperparameters import MiningOptions
from gpurerank.training.listwise_loss import PADDING_LOGIT, ListwiseDistillationLoss, pad_lists
from gpurerank.training.negative_mining import NegativeMiner, unlabelled_lists
from gpurerank.training.trainer import build_dataset
from gpurerank.training.training_lists import TrainingList, read_lists, write_lists
from gpurerank.types import FloatArray
from tests.test_collection import write_collection

TOPICS = ["cats", "rivers", "violins", "tax law", "bread", "glaciers", "chess", "bees"]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    corpus, queries, judgements = "", "", ""
    for i, topic in enumerate(TOPICS):
        for j in range(4):
            text = f"Fact {j} about {topic}: the answer is number {i}{j}."
            corpus += f'{{"_id": "d{i}{j}", "title": "{topic}", "text": "{text}"}}\n'
        metadata = f'{{"answers": ["number {i}2"]}}'
        queries += f'{{"_id": "q{i}", "text": "which fact of {topic}", "metadata": {metadata}}}\n'
        judgements += f"q{i}\td{i}0\t1\n"
    return Collection.read(write_collection(tmp_path, corpus, queries, judgements), "test")


def loss_of(logits: list[list[float]], teacher: list[list[float]], positives: list[int]) -> float:
    loss = ListwiseDistillationLoss.__new__(ListwiseDistillationLoss)
    loss.blend, loss.teacher_weight, loss.pointwise_weight = None, 0.5, 0.2
    marks = torch.zeros(1, len(logits[0]), dtype=torch.bool)
    marks[0, positives] = True
    return float(loss.loss(torch.tensor(logits), torch.tensor(teacher), marks))


def test_loss_of_a_labelled_list_is_its_three_terms() -> None:
    logits, similarities = [1.0, 0.5, -1.0], [2.0, 6.0, 1.0]
    entropy = -math.log(math.exp(1.0) / sum(map(math.exp, logits)))
    teacher = np.exp(np.array([6.0, 1.0])) / np.exp(np.array([6.0, 1.0])).sum()
    student = np.exp(np.array([0.5, -1.0])) / np.exp(np.array([0.5, -1.0])).sum()
    divergence = float((teacher * np.log(teacher / student)).sum())
    positive, negatives = math.log1p(math.exp(-1.0)), [math.log1p(math.exp(x)) for x in (0.5, -1.0)]
    pointwise = (2 * positive + sum(negatives)) / 4
    expected = entropy + 0.5 * divergence + 0.2 * pointwise
    assert loss_of([logits], [similarities], [0]) == pytest.approx(expected, abs=1e-6)


def test_two_positives_share_one_entropy() -> None:
    logits = [[1.0, 1.0, -30.0]]
    # Both are as likely as each other, and nothing is left for the negative.
    pointwise = (2 * 0.5 * math.log1p(math.exp(-1.0)) + 0.0) / 2
    loss = loss_of(logits, [[0.0, 0.0, 0.0]], [0, 1])
    assert loss == pytest.approx(math.log(2) + 0.2 * pointwise, abs=1e-5)


def test_loss_of_an_unlabelled_list_is_agreement_with_the_teacher() -> None:
    assert loss_of([[6.0, 1.0, 3.0]], [[6.0, 1.0, 3.0]], []) == pytest.approx(0, abs=1e-6)
    assert loss_of([[1.0, 6.0, 3.0]], [[6.0, 1.0, 3.0]], []) > 1


def test_padding_changes_no_loss() -> None:
    padded = loss_of([[1.0, 0.5, -1.0, PADDING_LOGIT]], [[2.0, 6.0, 1.0, PADDING_LOGIT]], [0])
    assert padded == pytest.approx(loss_of([[1.0, 0.5, -1.0]], [[2.0, 6.0, 1.0]], [0]), abs=1e-6)
    lists = pad_lists(torch.tensor([1.0, 2.0, 3.0]), [1, 2], 0.0)
    assert lists.tolist() == [[1.0, 0.0], [2.0, 3.0]]


def test_loss_trains_a_real_model(tiny: str) -> None:
    model = CrossEncoder(tiny, device="cpu")
    loss = ListwiseDistillationLoss(model, pairs_per_pass=3)
    inputs = (["what is the capital?", "a fox"], [["Paris", "a fox", "merge"], ["a fox", "Paris"]])
    labels = [
        torch.tensor([[1.0, 0.5, 5.0], [0.0, 0.2, 2.0], [0.0, 0.1, 1.0]]),
        torch.tensor([[0.0, 0.9, 9.0], [0.0, 0.1, 1.0]]),
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = loss(inputs, labels).item()
    for _ in range(8):
        optimizer.zero_grad()
        loss(inputs, labels).backward()
        optimizer.step()
    assert loss(inputs, labels).item() < 0.5 * first


def test_a_blend_that_ranks_right_leaves_nothing_to_learn(tiny: str) -> None:
    model = CrossEncoder(tiny, device="cpu")
    for parameter in model.parameters():
        parameter.data.zero_()
    loss = ListwiseDistillationLoss(model, blend=Blend(weight=60.0, center=0.5))
    inputs = (["query"], [["right", "wrong"]])
    right = torch.tensor([[1.0, 0.9, 0.0], [0.0, 0.1, 0.0]])
    assert loss(inputs, [right]).item() == pytest.approx(0, abs=1e-6)
    wrong = torch.tensor([[1.0, 0.1, 0.0], [0.0, 0.9, 0.0]])
    assert loss(inputs, [wrong]).item() > 40


def test_labels_hold_the_similarity_that_the_blend_weighs() -> None:
    training_list = TrainingList("q", ("a", "b"), (1.0, 0.0), (0.2, 0.4), (3.0, 6.0), (1.0, 0.0))
    blend = Blend(weight=60.0, token_share=0.25, center=0.5)
    [row] = build_dataset([training_list], blend=blend).to_list()
    np.testing.assert_allclose(row["labels"], [[1.0, 0.4, 3.0], [0.0, 0.3, 6.0]], atol=1e-6)
    [row] = build_dataset([training_list]).to_list()
    np.testing.assert_allclose(row["labels"], [[1.0, 0.2, 3.0], [0.0, 0.4, 6.0]], atol=1e-6)


def test_no_mined_negative_holds_a_right_answer(
    collection: Collection, bi_encoder: BiEncoder, tmp_path: Path
) -> None:
    options = MiningOptions(hard=2, hard_depth=6, lexical=1, medium=2, medium_depth=20, random=2)
    queries = list(collection.judgements)
    rng = np.random.default_rng(1)
    lists = list(NegativeMiner(collection, bi_encoder, options, rng).mine(queries))
    assert len(lists) == len(queries)
    for i, mined in enumerate(lists):
        assert mined.grades == (1.0,) + (0.0,) * 7
        assert f"number {i}0" in mined.passages[0]
        assert len(mined.passages) == len(set(mined.passages)) == len(mined.similarities) == 8
        assert not any(f"number {i}2" in passage for passage in mined.passages)
        assert mined.teacher == pytest.approx([15 * s for s in mined.similarities])
    path = tmp_path / "lists.jsonl"
    write_lists(path, lists)
    assert list(read_lists(path)) == lists
    again = NegativeMiner(collection, bi_encoder, options, np.random.default_rng(1)).mine(queries)
    assert list(again) == lists


class LookupEmbedder:
    """A fake embedder that looks vectors up."""

    def __init__(self, vectors: dict[str, tuple[float, float]]) -> None:
        self._vectors = vectors

    def embed_queries(self, queries: Sequence[str]) -> FloatArray:
        return np.array([self._vectors[query] for query in queries], dtype=np.float32)

    embed_passages = embed_queries


def small_collection(grades: dict[str, int]) -> Collection:
    documents = {name: Document("", name) for name in ("right", "twin", "near", "far")}
    return Collection("small", documents, {"q": Query("ask")}, {"q": grades})


EMBEDDER = LookupEmbedder(
    {
        "ask": (1.0, 0.0),
        "right": (0.8, 0.6),
        "twin": (0.79, 0.61),
        "near": (0.5, 0.866),
        "far": (0.0, 1.0),
    }
)


def negatives(collection: Collection, mining: MiningOptions) -> list[set[str]]:
    miner = NegativeMiner(collection, EMBEDDER, mining, np.random.default_rng(0))
    return [set(mined.passages[1:]) for mined in miner.mine(["q"])]


def test_a_passage_as_similar_as_the_positive_is_no_negative() -> None:
    mining = MiningOptions(hard=4, medium=0)
    assert negatives(small_collection({"right": 1}), mining) == [{"near", "far"}]
    judged = small_collection({"right": 1, "twin": 0})
    assert negatives(judged, mining) == [{"near", "far", "twin"}]


def test_easy_queries_and_lost_positives_are_dropped() -> None:
    easy = small_collection({"right": 1})
    assert negatives(easy, MiningOptions(easy_share=0.0, easy_margin=0.2)) == []
    assert len(negatives(easy, MiningOptions(easy_share=0.0, easy_margin=0.5))) == 1
    lost = small_collection({"far": 1})
    assert negatives(lost, MiningOptions(positive_depth=2)) == []
    assert len(negatives(lost, MiningOptions(positive_depth=3, too_similar=None))) == 1


def test_unlabelled_lists_go_from_near_to_far(bi_encoder: BiEncoder) -> None:
    texts = [f"all about {topic} and number {n}" for topic in TOPICS for n in range(8)]
    queries = [texts[3], texts[9]]
    rng = np.random.default_rng(2)
    (first, *_) = unlabelled_lists(queries, texts, bi_encoder, 8, 15.0, rng)
    assert not first.labelled
    assert first.query not in first.passages
    assert len(first.passages) >= 6
    assert max(first.similarities[:2]) > max(first.similarities[-2:])


def test_delta_restores_what_training_changed(tmp_path: Path) -> None:
    trained = embedded.with_new_head(embedded.base_folder(), "cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in embedded.parameters_of(trained).items():
            if ".embeddings." not in name:
                parameter += 1e-3 * torch.randn(parameter.shape, generator=generator)
    path = tmp_path / "delta.safetensors"
    write_delta(trained, path)
    assert path.stat().st_size < 25_000_000
    fresh = embedded.with_new_head(embedded.base_folder(), "cpu")
    delta = embedded.load_delta(path)
    embedded.apply_delta(fresh, delta)
    expected = embedded.parameters_of(trained)
    for name, parameter in embedded.parameters_of(fresh).items():
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=1e-4)
    del delta["classifier.weight"]
    with pytest.raises(WeightsError, match="does not fit the model at 'classifier"):
        embedded.apply_delta(fresh, delta)
    path.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        embedded.load_delta(path)
