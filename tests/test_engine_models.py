"""The engine with real models: several devices, forks, threads, stage times."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpurerank import (
    BiEncoder,
    CrossEncoder,
    InputError,
    Reranker,
    calling,
)
from gpurerank.models.devices import respect_cpu_quota
from gpurerank.models.loading import alike
from gpurerank.models.tokenization import TextTokenizer, backend_of
from tests.time_limits import HANG_S
from tests.tiny_models import PAIRS, PASSAGES, wordpiece_tokenizer


def test_copies_on_devices_of_different_kinds_are_refused() -> None:
    cpu = SimpleNamespace(device=torch.device("cpu"), packed=True)
    gpu = SimpleNamespace(device=torch.device("cuda:0"), packed=True)
    assert alike([cpu, cpu]) == [cpu, cpu]
    with pytest.raises(InputError, match="the devices are cpu, cuda:0"):
        alike([cpu, gpu])


def test_a_long_text_of_one_token_does_not_pass_as_small() -> None:
    tokenizer = TextTokenizer(backend_of(wordpiece_tokenizer()), remembered=100_000)
    for number in range(20):
        tokenizer.ids([f"{number}" + "x" * 100_000])
        tokenizer.ids(["short text"] * 2)
    assert sum(len(text) for text in tokenizer._known) < 400_000
    assert "short text" in tokenizer._known


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_begins_with_an_empty_registry(tiny: str) -> None:
    script = f"""
import os, sys
from gpurerank import Reranker
from gpurerank.engine.registry import REGISTRY
reranker = Reranker({tiny!r}, device="cpu", dtype="float32")
child = os.fork()
if child == 0:
    found = REGISTRY.loaded()
    reranker.close()
    os._exit(found)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(0 if code == 0 and REGISTRY.loaded() == 1 else 1)
"""
    environment = {**os.environ, "PYTHONPATH": "core", "OMP_NUM_THREADS": "1"}
    child = subprocess.run([sys.executable, "-c", script], env=environment, timeout=HANG_S)
    assert child.returncode == 0


def test_copies_on_several_devices_score_as_one(tiny: str) -> None:
    pairs = [(f"question {i}", PASSAGES[i % 4]) for i in range(300)]
    one = CrossEncoder(tiny, device="cpu", dtype="float32").score_pairs(pairs)
    two = CrossEncoder(tiny, device="cpu,cpu", dtype="float32")
    assert len(two._lease.engine._replicas) == 2
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: two.score_pairs(pairs), range(4)):
            np.testing.assert_allclose(found, one, rtol=0, atol=1e-6)
    two.close()


@pytest.mark.parametrize(
    ("granted", "threads"), [("150000 100000", 2), ("max 100000", 3), ("900000 100000", 3)]
)
def test_threads_are_those_that_the_container_grants(
    granted: str, threads: int, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        (tmp_path / "cpu.max").write_text(granted + "\n")
        respect_cpu_quota(tmp_path / "cpu.max")
        assert torch.get_num_threads() == threads
        respect_cpu_quota(tmp_path / "absent")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_call_is_told_the_time_of_its_stages(tiny: str) -> None:
    with calling() as call, Reranker(tiny, device="cpu") as reranker:
        reranker.rank("q", PASSAGES)
    assert call.stages_ms.keys() == {"tokenize", "model"}
    assert min(call.stages_ms.values()) > 0


def test_embeddings_of_many_threads_are_those_of_one(bi_encoder: BiEncoder) -> None:
    texts = [passage for _, passage in PAIRS]
    expected = bi_encoder.embed_passages(texts)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: bi_encoder.embed_passages(texts), range(6)))
    for vectors in found:
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-3)
