"""A Reranker whose scores come from a server."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest

from gpurerank import InputError, MemoryStore, Reranker
from tests.conftest import WordOverlap
from tests.fake_server import FakeServer, overlap_scores, serving, speaking
from tests.time_limits import HANG_S
from tests.tiny_models import PASSAGES

QUERY = "compares two files"
PAIRS = [(QUERY, passage) for passage in PASSAGES]
EXPECTED = overlap_scores(QUERY, PASSAGES)


@pytest.fixture(autouse=True)
def _models_are_freed() -> None:
    """In place of conftest's: nothing here loads a model."""


def test_reranker_ranks_on_a_server(own: FakeServer, overlap: WordOverlap) -> None:
    here = Reranker.from_scorer(overlap, name="served")
    with Reranker(base_url=own.url, api_key="a-key") as reranker:
        ranked = reranker.rank(QUERY, [*PASSAGES, "", PASSAGES[0]])
        assert ranked == here.rank(QUERY, [*PASSAGES, "", PASSAGES[0]])
        assert asyncio.run(reranker.arank(QUERY, PASSAGES)) == here.rank(QUERY, PASSAGES)
        assert reranker.score_pairs(PAIRS, show_progress=True) == EXPECTED
        long = "word " * 100_000
        assert reranker.rank(QUERY, [long])[0].span == (0, len(long))
    assert own.posts()[0].body["documents"] == PASSAGES
    assert own.posts()[-1].body["documents"] == [long]


def test_reranker_names_the_model_and_lets_the_server_cut() -> None:
    with serving(speaking("tei")) as server:
        with Reranker("m", base_url=server.url, long_passages="truncate") as reranker:
            assert reranker.rank(QUERY, PASSAGES)[0].model == reranker.model_name == "m"
        with Reranker("m", base_url=server.url) as reranker:
            reranker.rank(QUERY, PASSAGES)
        assert [asked.body["truncate"] for asked in server.posts()] == [True, False]


def test_a_reranker_on_a_server_is_copied_and_pickled(own: FakeServer) -> None:
    with Reranker(base_url=own.url, api_key="a-key", model="m") as reranker:
        expected = reranker.rank(QUERY, PASSAGES)
        for twin in (copy.deepcopy(reranker), pickle.loads(pickle.dumps(reranker))):
            with twin:
                assert twin.rank(QUERY, PASSAGES) == expected
        assert reranker.rank(QUERY, PASSAGES) == expected
    assert {asked.headers["authorization"] for asked in own.posts()} == {"Bearer a-key"}


def test_cached_scores_belong_to_an_address_and_a_model(own: FakeServer) -> None:
    store = MemoryStore()
    with serving(speaking("gpurerank")) as other:
        for url, model in [(own.url, "m"), (own.url, "m"), (own.url, "n"), (other.url, "m")]:
            with Reranker(model, base_url=url, cache=store) as reranker:
                reranker.rank(QUERY, PASSAGES)
        assert (len(own.posts()), len(other.posts())) == (2, 1)


def test_a_server_in_place_of_a_model_needs_no_torch(own: FakeServer) -> None:
    script = f"""
import asyncio, sys
from gpurerank import Reranker, RemoteEmbedder
from langchain_gpurerank import GPUEmbeddings, GPURerank
from llamaindex_gpurerank import GPURerank as Postprocessor
with Reranker(base_url={own.url!r}) as reranker:
    print(reranker.rank("a fox", ["a dog", "a fox"])[0].index)
    print(asyncio.run(reranker.arank("a fox", ["a dog", "a fox"]))[0].index)
print(len(GPUEmbeddings(base_url={own.url!r}).embed_query("a")))
GPURerank(base_url={own.url!r})
Postprocessor(base_url={own.url!r})
print(*{{"torch", "transformers", "tokenizers", "sentence_transformers"}} & set(sys.modules))
"""
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-W", "default::ResourceWarning", "-c", script],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert told.stdout.split() == ["1", "1", "3"], told.stderr
    assert told.stderr == ""


def test_a_missing_extra_is_named() -> None:
    script = """
import sys
sys.modules["httpx"] = None
from gpurerank import InputError, Reranker
try:
    Reranker(base_url="http://gpu:8000")
except InputError as error:
    print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert "base_url needs httpx" in told.stdout
    assert "pip install 'gpurerank[client]'" in told.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda"}, "device is 'cuda', but with base_url the server decides"),
        ({"instruction": "find"}, "instruction is 'find'"),
        ({"max_length": 64}, "max_length is 64"),
        ({"trust_remote_code": True}, "trust_remote_code is True"),
    ],
)
def test_what_only_a_model_here_can_do_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Reranker(base_url="http://gpu:8000", **options)


def test_a_key_without_a_server_is_refused() -> None:
    with pytest.raises(InputError, match="api_key is given without base_url"):
        Reranker(api_key="a-key")
