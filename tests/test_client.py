"""Servers of each kind, real ones on the loopback: what they are asked, and what comes back."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gpurerank import (
    ClosedError,
    DeadlineError,
    InputError,
    MemoryStore,
    RemoteScorer,
    Reranker,
    calling,
)
from gpurerank.client import probe
from gpurerank.client.address import Address
from gpurerank.client.session import parts
from gpurerank.ranking import sigmoid
from tests.conftest import WordOverlap
from tests.fake_server import Asked, FakeServer, Reply, overlap_scores, serving, speaking
from tests.tiny_models import PASSAGES

QUERY = "compares two files"
PAIRS = [(QUERY, passage) for passage in PASSAGES]
EXPECTED = overlap_scores(QUERY, PASSAGES)
COUNT = len(PASSAGES)

# What a request of each kind has beside the model, with and without leave to cut.
BODIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpurerank": ("/v2/rerank", {"query": QUERY, "documents": PASSAGES, "top_n": COUNT}, {}),
    "tei": (
        "/rerank",
        {"query": QUERY, "texts": PASSAGES, "raw_scores": False, "return_text": False}
        | {"truncate": False},
        {"truncate": True},
    ),
    "vllm": ("/score", {"text_1": QUERY, "text_2": PASSAGES}, {"truncate_prompt_tokens": -1}),
    "infinity": (
        "/rerank",
        {"query": QUERY, "documents": PASSAGES, "top_n": COUNT}
        | {"return_documents": False, "raw_scores": False},
        {},
    ),
    "cohere": ("/v2/rerank", {"query": QUERY, "documents": PASSAGES, "top_n": COUNT}, {}),
    "cohere_v1": (
        "/v1/rerank",
        {"query": QUERY, "documents": PASSAGES, "top_n": COUNT, "return_documents": False},
        {},
    ),
    "jina": (
        "/v1/rerank",
        {"query": QUERY, "documents": PASSAGES, "top_n": COUNT, "return_documents": False},
        {},
    ),
    "voyage": (
        "/v1/rerank",
        {"query": QUERY, "documents": PASSAGES, "top_k": COUNT, "return_documents": False}
        | {"truncation": False},
        {"truncation": True},
    ),
}


@pytest.fixture(autouse=True)
def _models_are_freed() -> None:
    """In place of conftest's: nothing here loads a model."""


@pytest.fixture
def own() -> Iterator[FakeServer]:
    """A server of gpurerank's own kind."""
    with serving(speaking("gpurerank")) as server:
        yield server


@pytest.mark.parametrize("kind", BODIES)
def test_each_kind_is_asked_in_its_own_shape(kind: str) -> None:
    path, body, when_cutting = BODIES[kind]
    with serving(speaking(kind)) as server:
        with RemoteScorer(server.url, api=kind, api_key="a-key") as scorer:
            assert scorer.score_pairs(PAIRS) == EXPECTED
        with RemoteScorer(server.url, api=kind, model="m", truncate=True) as scorer:
            assert scorer.score_pairs(PAIRS) == EXPECTED
        first, second = server.asked
    assert (first.path, first.body) == (path, body)
    assert first.headers["authorization"] == "Bearer a-key"
    named = {} if kind == "tei" else {"model": "m"}
    assert second.body == body | when_cutting | named
    assert "authorization" not in second.headers


@pytest.mark.parametrize(
    ("kind", "looked", "path"),
    [
        ("gpurerank", ["/info"], "/v2/rerank"),
        ("tei", ["/info"], "/rerank"),
        ("vllm", ["/info", "/v1/models"], "/score"),
        ("infinity", ["/info", "/v1/models", "/models"], "/rerank"),
        ("openai", ["/info", "/v1/models"], "/v1/rerank"),
    ],
)
@pytest.mark.parametrize("ending", ["", "/", "/v1"])
def test_the_kind_of_a_server_is_found(
    kind: str, looked: list[str], path: str, ending: str
) -> None:
    with (
        serving(speaking(kind)) as server,
        RemoteScorer(server.url + ending) as scorer,
        RemoteScorer(server.url + ending) as another,
    ):
        assert scorer.model_name == server.url.removeprefix("http://")
        assert scorer.score_pairs(PAIRS) == pytest.approx(EXPECTED, abs=1e-6)
        assert scorer.model_name == "served"
        assert another.score_pairs(PAIRS) == scorer.score_pairs(PAIRS)
        assert server.gets() == looked
        assert {asked.path for asked in server.posts()} == {path}


def test_a_page_for_every_path_is_no_finding() -> None:
    def answer(asked: Asked) -> Reply:
        page = Reply(b"<!doctype html><title>App</title>")
        return page if asked.path == "/info" else speaking("vllm")(asked)

    with serving(answer) as server, RemoteScorer(server.url) as scorer:
        assert scorer.score_pairs(PAIRS) == EXPECTED


def test_a_server_that_changed_is_asked_anew() -> None:
    with serving(speaking("vllm")) as server, RemoteScorer(server.url) as scorer:
        scorer.score_pairs(PAIRS)
        server.answer = speaking("gpurerank")
        with pytest.raises(Exception, match="answered 404"):
            scorer.score_pairs(PAIRS)
        assert scorer.score_pairs(PAIRS) == EXPECTED


def test_many_callers_share_one_asking() -> None:
    with serving(speaking("tei")) as server, RemoteScorer(server.url) as scorer:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(scorer.score_pairs, [PAIRS] * 8))
        assert found == [found[0]] * 8
        assert server.gets() == ["/info"]


def test_logits_of_text_embeddings_inference_keep_their_places() -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path == "/info":
            return Reply({"model_id": "m", "max_client_batch_size": 4})
        assert asked.body["raw_scores"]
        return Reply([{"index": 1, "score": 21.0}, {"index": 0, "score": 20.0}])

    with serving(answer) as server, Reranker(base_url=server.url) as reranker:
        ranked = reranker.rank(QUERY, PASSAGES[:2])
    # In float32 both sigmoids are 1.
    assert [passage.index for passage in ranked] == [1, 0]
    assert ranked[0].score == sigmoid(21.0)
    assert ranked[0].logit == pytest.approx(21.0, abs=1e-6)


def test_logits_are_taken_where_they_are_announced() -> None:
    def answer(asked: Asked) -> Reply:
        return Reply({"results": [{"index": 0, "relevance_score": -2.5}]})

    with serving(answer) as server:
        with RemoteScorer(server.url, api="jina", logits=True) as scorer:
            assert scorer.score_pairs(PAIRS[:1]) == [sigmoid(-2.5)]
        with RemoteScorer(server.url, api="jina") as scorer:
            with pytest.raises(Exception, match=r"-2\.5 for text 0.*logits=True"):
                scorer.score_pairs(PAIRS[:1])


def test_large_calls_are_split_and_put_together(own: FakeServer) -> None:
    passages = [f"two files {'x' * (index % 7)} compares"[: 9 + index % 13] for index in range(100)]
    with RemoteScorer(own.url, texts_per_request=7, concurrency=3) as scorer:
        found = scorer.score_pairs([(QUERY, passage) for passage in passages])
    assert found == overlap_scores(QUERY, passages)
    assert len(own.posts()) == 15
    assert own.connections <= 3
    sent = [text for asked in own.posts() for text in asked.body["documents"]]
    assert sorted(sent) == sorted(passages)


def test_the_servers_own_limit_is_kept() -> None:
    with serving(speaking("tei")) as server, RemoteScorer(server.url) as scorer:
        assert len(scorer.score_pairs(PAIRS * 3)) == 12
        assert [len(asked.body["texts"]) for asked in server.posts()] == [4, 4, 4]


def test_queries_are_asked_one_by_one(own: FakeServer) -> None:
    pairs = [("two files", "two"), ("a fox", "fox"), ("two files", "files two"), ("a fox", "")]
    with RemoteScorer(own.url) as scorer:
        assert scorer.score_pairs(pairs) == [WordOverlap._score(*pair) for pair in pairs]
        assert scorer.score_pairs([]) == []
    assert {asked.body["query"]: asked.body["documents"] for asked in own.posts()} == {
        "two files": ["two", "files two"],
        "a fox": ["fox", ""],
    }


def test_parts_hold_both_limits() -> None:
    texts = ["aa", "bb", "cccccccc", "d", "e", "f"]
    assert [texts[part] for part in parts(texts, most=2, characters=4)] == [
        ["aa", "bb"],
        ["cccccccc"],
        ["d", "e"],
        ["f"],
    ]
    assert list(parts([], most=2, characters=4)) == []


def test_connections_are_used_again_by_all_threads_and_loops(own: FakeServer) -> None:
    with RemoteScorer(own.url, concurrency=2) as scorer:
        for _ in range(5):
            assert scorer.score_pairs(PAIRS) == EXPECTED
        assert own.connections == 1
        for _ in range(3):
            assert asyncio.run(scorer.ascore_pairs(PAIRS)) == EXPECTED
        assert own.connections == 1

        async def many() -> list[list[float]]:
            return await asyncio.gather(*(scorer.ascore_pairs(PAIRS) for _ in range(10)))

        with ThreadPoolExecutor(4) as pool:
            loops = [pool.submit(asyncio.run, many()) for _ in range(4)]
            assert all(loop.result() == [EXPECTED] * 10 for loop in loops)
        assert own.connections == 2


async def test_a_cancelled_task_closes_its_request() -> None:
    with serving(lambda _: Reply(silent=True)) as server:
        with RemoteScorer(server.url, api="cohere") as scorer:
            task = asyncio.create_task(scorer.ascore_pairs(PAIRS))
            await asyncio.to_thread(server.arrived.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.left.wait, 10)


async def test_calls_that_end_early_leave_no_connection() -> None:
    with serving(lambda _: Reply(silent=True)) as server:
        with RemoteScorer(server.url, api="cohere", texts_per_request=1) as scorer:
            tasks = [asyncio.create_task(scorer.ascore_pairs(PAIRS)) for _ in range(4)]
            with calling(timeout_s=0.3), pytest.raises(DeadlineError):
                await scorer.ascore_pairs(PAIRS)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for _ in range(server.connections):
                assert await asyncio.to_thread(server.ended.acquire, timeout=10)


def test_closing_ends_calls_under_way() -> None:
    with serving(lambda _: Reply(silent=True)) as server, ThreadPoolExecutor(1) as pool:
        scorer = RemoteScorer(server.url, api="cohere")
        waiting = pool.submit(scorer.score_pairs, PAIRS)
        assert server.arrived.wait(10)
        scorer.close()
        with pytest.raises(ClosedError, match="this object was closed"):
            waiting.result(10)
        assert server.left.wait(10)
        scorer.close()
        with pytest.raises(ClosedError):
            scorer.score_pairs([])


def test_an_object_that_is_dropped_leaves_no_connection(own: FakeServer) -> None:
    scorer = RemoteScorer(own.url)
    assert scorer.score_pairs(PAIRS) == EXPECTED
    del scorer
    gc.collect()
    assert own.ended.acquire(timeout=10)


def test_copies_and_pickles_have_their_own_connections(own: FakeServer) -> None:
    with RemoteScorer(own.url, api_key="a-key", model="m", logits=True) as scorer:
        scorer.score_pairs(PAIRS)
        before = own.connections
        for twin in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
            with twin:
                assert twin.score_pairs(PAIRS) == scorer.score_pairs(PAIRS)
            with pytest.raises(ClosedError):
                twin.score_pairs(PAIRS)
        assert own.connections == before + 2
    last = own.posts()[-1]
    assert last.headers["authorization"] == "Bearer a-key"
    assert last.body["model"] == "m"


def score_in_child(scorer: RemoteScorer, results: Any) -> None:
    results.put(scorer.score_pairs(PAIRS))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_asks_for_itself(own: FakeServer) -> None:
    with RemoteScorer(own.url) as scorer:
        assert scorer.score_pairs(PAIRS) == EXPECTED
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        child = context.Process(target=score_in_child, args=(scorer, results))
        child.start()
        assert results.get(timeout=30) == EXPECTED
        child.join(10)
        assert child.exitcode == 0
        assert scorer.score_pairs(PAIRS) == EXPECTED
        assert own.connections == 2


def test_progress_is_told_on_the_callers_thread(own: FakeServer) -> None:
    told: list[tuple[int, int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total, threading.get_ident()))

    with RemoteScorer(own.url, texts_per_request=1, concurrency=1) as scorer:
        with calling(on_progress=tell):
            scorer.score_pairs(PAIRS)
    here = threading.get_ident()
    assert told == [(done, COUNT, here) for done in range(1, COUNT + 1)]


async def test_progress_is_told_on_the_callers_loop(own: FakeServer) -> None:
    told: list[tuple[int, int]] = []
    with RemoteScorer(own.url, texts_per_request=3) as scorer:
        with calling(on_progress=lambda done, total: told.append((done, total))):
            await scorer.ascore_pairs(PAIRS)
    assert told[-1] == (COUNT, COUNT)


def test_lone_surrogates_are_sent_as_the_models_here_read_them(own: FakeServer) -> None:
    with RemoteScorer(own.url) as scorer:
        scorer.score_pairs([("\ud83d query", "a \ud800 b 😀 \x00 高\ud83d\ude00")])
    (asked,) = own.posts()
    assert asked.body["query"] == "\ufffd query"
    assert asked.body["documents"] == ["a \ufffd b 😀 \x00 高\ufffd\ufffd"]


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
        timeout=100,
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
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=True
    )
    assert "base_url needs httpx" in told.stdout
    assert "pip install 'gpurerank[client]'" in told.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "gpu:8000"}, "no address such as"),
        ({"base_url": "ftp://gpu"}, "no address such as"),
        ({"base_url": "http://"}, "no address such as"),
        ({"base_url": "http://gpu:port"}, "no address such as"),
        ({"base_url": "http://g pu"}, "no address such as"),
        ({"base_url": None}, "base_url is NoneType"),
        ({"base_url": "http://user:pass@gpu"}, "holds a user or a password"),
        ({"base_url": "http://gpu?key=1"}, "has a '\\?'"),
        ({"base_url": "http://gpu/v1/rerank"}, "ends in '/rerank'"),
        ({"api_key": " "}, "api_key is blank"),
        ({"api_key": 5}, "api_key is int"),
        ({"api_key": "Bearer abc"}, "give the key alone"),
        ({"api_key": "a\nb"}, "a blank or a character beyond ASCII"),
        ({"api": "grpc"}, "api is 'grpc'; it must be 'auto' or one of gpurerank, tei"),
        ({"model": ""}, "model is ''"),
        ({"texts_per_request": 0}, "texts_per_request is 0"),
        ({"concurrency": 1.5}, "concurrency is 1.5"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"request_timeout_s": float("nan")}, "request_timeout_s is nan"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        RemoteScorer(**{"base_url": "http://gpu:8000", **options})
    assert "pass" not in str(caught.value).replace("password", "")
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda"}, "device is 'cuda', an option of a model in this process"),
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


def test_wrong_pairs_are_named() -> None:
    with RemoteScorer("http://gpu:8000") as scorer:
        with pytest.raises(InputError, match="pair 1 is str"):
            scorer.score_pairs([("q", "a"), "b"])  # type: ignore[list-item]


def test_hosted_services_are_known_by_name() -> None:
    async def found(url: str) -> probe.Server:
        return await probe.find_server(Address.of(url), None)  # type: ignore[arg-type]

    for url, kind in [
        ("https://api.cohere.com", "cohere"),
        ("https://api.jina.ai/v1", "jina"),
        ("https://api.voyageai.com/v1/", "voyage"),
    ]:
        assert asyncio.run(found(url)).kind == kind
