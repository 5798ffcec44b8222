"""Models: what is loaded, refused, shared between threads and objects, and freed."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as Reference

from gpurerank import (
    BiEncoder,
    ClosedError,
    CrossEncoder,
    InputError,
    MemoryStore,
    ModelError,
    ModelNotFoundError,
    NotFiniteError,
    Reranker,
    WeightsError,
    free_models,
)
from gpurerank.engine.registry import REGISTRY
from gpurerank.models.embedded import base_folder
from tests.conftest import WordOverlap
from tests.time_limits import HANG_S
from tests.tiny_models import PASSAGES, build_classifier, tiny_reranker


def test_a_model_that_returns_nan_is_an_error(model_folder: Callable[[str], str]) -> None:
    scorer = CrossEncoder(model_folder("electra"), device="cpu", dtype="float32")
    model = scorer._lease.model
    weight = model._model.classifier.out_proj.weight
    kept = weight.detach().clone()
    try:
        weight.data.fill_(float("nan"))
        with pytest.raises(NotFiniteError, match="nan for pair 0"):
            scorer.score_pairs([("a", "b")])
    finally:
        weight.data.copy_(kept)
    assert 0 <= scorer.score_pairs([("a", "b")])[0] <= 1


def test_threads_score_as_one_after_another(model_folder: Callable[[str], str]) -> None:
    reranker = Reranker(model_folder("roberta"), device="cpu", dtype="float32", max_length=64)
    requests = [
        (f"question {i}", [f"{PASSAGES[(i + j) % 4]} " * (1 + (i * j) % 9) for j in range(12)])
        for i in range(24)
    ]
    one_by_one = [[p.score for p in reranker.rank(*request)] for request in requests]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda r: [p.score for p in reranker.rank(*r)], requests))
    for expected, found in zip(one_by_one, together, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_first_loads_at_once_give_one_model(model_folder: Callable[[str], str]) -> None:
    folder = model_folder("camembert")
    before = REGISTRY.loaded()
    with ThreadPoolExecutor(6) as pool:
        rerankers = list(pool.map(lambda _: Reranker(folder, device="cpu"), range(6)))
    assert REGISTRY.loaded() == before + 1
    for reranker in rerankers:
        reranker.close()
    assert REGISTRY.loaded() == before


def test_closing_frees_the_model_and_says_so(model_folder: Callable[[str], str]) -> None:
    before = REGISTRY.loaded()
    reranker = Reranker(model_folder("electra"), device="cpu", on_error="keep_order")
    assert REGISTRY.loaded() == before + 1
    reranker.close()
    reranker.close()
    assert REGISTRY.loaded() == before
    with pytest.raises(ClosedError):
        reranker.rank("q", PASSAGES)
    with Reranker(model_folder("electra"), device="cpu") as first:
        second = Reranker(model_folder("electra"), device="cpu")
        model = weakref.ref(second._encoder._lease.model)  # type: ignore[union-attr]
        second.close()
        with pytest.raises(ClosedError):
            second.rank("q", PASSAGES)
        assert len(first.rank("q", PASSAGES)) == 4
    gc.collect()
    assert model() is None, "closing must free the weights while the objects still live"


def test_a_dropped_reranker_leaves_its_model_for_the_next(
    model_folder: Callable[[str], str],
) -> None:
    gc.collect()
    free_models()
    loads, held = REGISTRY.loads, REGISTRY.loaded()
    for _ in range(3):
        Reranker(model_folder("electra"), device="cpu").rank("q", PASSAGES)
        gc.collect()
    assert (REGISTRY.loads, REGISTRY.loaded()) == (loads + 1, held + 1)
    assert free_models() == 1
    assert REGISTRY.loaded() == held


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_and_does_not_hang(tiny: str) -> None:
    script = f"""
import os, sys
from gpurerank import ClosedError, Reranker
reranker = Reranker({tiny!r}, device="cpu", dtype="float32")
reranker.rank("q", ["a"])
child = os.fork()
if child == 0:
    try:
        reranker.rank("q", ["a"])
    except ClosedError as error:
        os._exit(7 if "before the process forked" in str(error) else 1)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run([sys.executable, "-c", script], timeout=HANG_S, capture_output=True)
    assert result.returncode == 7, result.stderr


def test_devices_are_resolved_before_models_are_counted(
    model_folder: Callable[[str], str],
) -> None:
    before = REGISTRY.loaded()
    kept = [Reranker(model_folder("albert"), device=device) for device in ("auto", "cpu")]
    assert REGISTRY.loaded() == before + (2 if torch.cuda.is_available() else 1)
    for reranker in kept:
        reranker.close()


def test_cache_identity_follows_the_weights(tmp_path: Path) -> None:
    first = CrossEncoder(str(build_classifier(tmp_path, "bert", seed=1)), device="cpu")
    identity = first.identity()
    first.close()
    second = CrossEncoder(str(build_classifier(tmp_path, "bert", seed=2)), device="cpu")
    assert second.identity() != identity
    second.close()


def test_pickle_and_copy_make_a_working_twin(tiny: str) -> None:
    reranker = tiny_reranker(tiny, max_length=64, cache=MemoryStore())
    own = Reranker.from_scorer(WordOverlap(), name="overlap", cache=MemoryStore())
    for each in (reranker, own):
        for twin in (pickle.loads(pickle.dumps(each)), copy.deepcopy(each)):
            assert twin.rank("a command", PASSAGES) == each.rank("a command", PASSAGES)


def test_unknown_model_says_what_to_do() -> None:
    with pytest.raises(ModelNotFoundError, match=r"'embedded'.*local folder"):
        Reranker("nobody/has-this-model")
    with pytest.raises(ModelNotFoundError, match="/no/such/folder"):
        BiEncoder("/no/such/folder")


def test_models_that_are_no_rerankers_are_named(
    model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="has 3 labels"):
        Reranker(model_folder("three_labels"))
    with pytest.raises(ModelError, match="positive_label=0 or positive_label=1"):
        Reranker(model_folder("two_labels"))
    from transformers import BertConfig, BertModel

    BertModel(
        BertConfig(
            vocab_size=50,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
        )
    ).save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="is no reranker"):
        Reranker(str(tmp_path))
    # A bi-encoder has modules.json, as a saved cross-encoder does.
    with pytest.raises(ModelError, match="is no reranker"):
        Reranker(str(base_folder()))
    with pytest.raises(ModelError, match="has one label; leave positive_label out"):
        Reranker(model_folder("bert"), positive_label=1)


def test_models_saved_by_sentence_transformers_load(
    model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    Reference(model_folder("bert"), device="cpu").save_pretrained(str(tmp_path / "one"))
    expected = Reranker(model_folder("bert"), device="cpu").rank("q", PASSAGES)
    found = Reranker(str(tmp_path / "one"), device="cpu").rank("q", PASSAGES)
    assert [p.score for p in found] == [p.score for p in expected]
    Reference(model_folder("two_labels"), device="cpu").save_pretrained(str(tmp_path / "two"))
    with pytest.raises(ModelError, match="positive_label=0 or positive_label=1"):
        Reranker(str(tmp_path / "two"))


def test_damaged_weights_of_a_folder_are_named(
    model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("bert"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="are damaged"):
        Reranker(str(folder))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda:77"}, "cuda:77"),
        ({"device": "abacus"}, "abacus"),
        ({"dtype": "int3"}, "dtype is 'int3'"),
        ({"max_length": 2}, "max_length is 2"),
        ({"positive_label": 5}, "positive_label is 5"),
        ({"long_passages": "drop"}, "long_passages is 'drop'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"model": ""}, "the model name is ''"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], said: str, tiny: str) -> None:
    with pytest.raises(InputError, match=said):
        Reranker(**{"model": tiny, **options})  # type: ignore[arg-type]


def test_jobs_of_threads_do_not_wait_for_a_thread_pool(tiny: str) -> None:
    reranker = tiny_reranker(tiny)

    async def many() -> int:
        blocker = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        held = loop.run_in_executor(None, blocker.wait)
        ranked = await asyncio.wait_for(reranker.arank("q", PASSAGES), 20)
        blocker.set()
        await held
        return len(ranked)

    assert asyncio.run(many()) == 4
