"""Lanes: batches that run on a CPU at the same time, and the threads they take for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gpurerank import BiEncoder, CrossEncoder, Reranker, free_models
from gpurerank.models.devices import enter_lane, lanes_of, tokens_per_batch
from gpurerank.models.loading import ModelSpec
from gpurerank.models.pair_model import PairModel
from gpurerank.models.text_model import TextModel
from tests.tiny_models import FAMILIES

CPU = torch.device("cpu")
PAIRS = [(f"{n % 7} quick fox", "lazy dog jumps over " * (1 + n % 9)) for n in range(400)]


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    """As if the machine had four cores, so that there are four lanes."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def on_a_new_thread(work: Callable[[], int]) -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.mark.parametrize("family", [*FAMILIES, "causal"])
def test_scores_do_not_depend_on_other_lanes(
    family: str, model_folder: Callable[[str], str]
) -> None:
    folder = model_folder(family)
    model = PairModel(ModelSpec(name=folder, device="cpu", dtype="float32"))
    alone = model.run(model.prepare(PAIRS, model.tokenize(PAIRS)))
    scorer = CrossEncoder(model)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(scorer.score_pairs, [PAIRS] * 4))
    wanted = 1 / (1 + np.exp(-alone.astype(np.float64)))
    for found in together:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_vectors_do_not_depend_on_other_lanes() -> None:
    model = TextModel(ModelSpec(name="embedded", device="cpu", dtype="float32"))
    texts = [f"{query} {passage}" for query, passage in PAIRS]
    items = [(model.prompt(query=False), text) for text in texts]
    alone = model.run(model.prepare(items, model.tokenize(items)))
    encoder = BiEncoder("embedded", device="cpu", dtype="float32")
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(encoder.embed_passages, [texts[n::4] for n in range(4)]))
    for number, part in enumerate(parts):
        np.testing.assert_allclose(part, alone[number::4], rtol=0, atol=1e-5)


def test_a_lane_takes_its_share_and_leaves_the_other_threads_theirs() -> None:
    def share() -> int:
        enter_lane(lanes_of(CPU, 512))
        return torch.get_num_threads()

    assert on_a_new_thread(share) == 1
    assert torch.get_num_threads() == 4
    assert on_a_new_thread(torch.get_num_threads) == 4


def test_lanes_that_begin_at_once_take_the_same_share() -> None:
    found: list[int] = []
    barrier = threading.Barrier(8)

    def begin() -> None:
        barrier.wait()
        enter_lane(2)
        found.append(torch.get_num_threads())

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 8
    assert on_a_new_thread(torch.get_num_threads) == 4


def test_one_core_has_one_lane_with_larger_batches() -> None:
    torch.set_num_threads(1)
    assert lanes_of(CPU, 512) == 1
    assert tokens_per_batch(CPU, 1) == (1_024, 2_048)
    assert lanes_of(torch.device("cuda"), 512) == 1


@pytest.mark.parametrize("threads", range(1, 17))
def test_no_core_is_left_idle(threads: int) -> None:
    torch.set_num_threads(threads)
    lanes = lanes_of(CPU, 512)
    assert lanes * (threads // lanes) == threads


def test_long_texts_have_all_threads(model_folder: Callable[[str], str]) -> None:
    assert lanes_of(CPU, 8_192) == 1
    short = PairModel(ModelSpec(name=model_folder("modernbert_cls"), device="cpu", dtype="float32"))
    assert (short.max_length, short.lanes) == (512, 4)


def test_a_loaded_model_has_entered_its_lanes(tiny: str) -> None:
    for _ in range(10):
        with Reranker(tiny, device="cpu", dtype="float32"):
            assert on_a_new_thread(torch.get_num_threads) == 4
        free_models()


def test_a_padded_model_has_one_lane(model_folder: Callable[[str], str]) -> None:
    padded = PairModel(ModelSpec(name=model_folder("albert"), device="cpu", dtype="float32"))
    packed = PairModel(ModelSpec(name=model_folder("bert"), device="cpu", dtype="float32"))
    assert (padded.packed, padded.lanes) == (False, 1)
    assert (packed.packed, packed.lanes) == (True, 4)
