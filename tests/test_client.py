"""Servers of each kind, real ones on the loopback: what they are asked, and what comes back."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gpurerank import InputError, RemoteScorer, Reranker, calling
from gpurerank.ranking import sigmoid
from gpurerank.remote import discovery
from gpurerank.remote.address import Address
from gpurerank.remote.session import split_texts
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
    assert [texts[part] for part in split_texts(texts, max_texts=2, max_characters=4)] == [
        ["aa", "bb"],
        ["cccccccc"],
        ["d", "e"],
        ["f"],
    ]
    assert list(split_texts([], max_texts=2, max_characters=4)) == []


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "gpu:8000"}, "is not an address such as"),
        ({"base_url": "ftp://gpu"}, "is not an address such as"),
        ({"base_url": "http://"}, "is not an address such as"),
        ({"base_url": "http://gpu:port"}, "is not an address such as"),
        ({"base_url": "http://g pu"}, "is not an address such as"),
        ({"base_url": None}, "base_url is NoneType"),
        ({"base_url": "http://user:hunter2@gpu"}, "contains a user or a password"),
        ({"base_url": "http://gpu?key=1"}, "contains a '\\?'"),
        ({"base_url": "http://gpu/v1/rerank"}, "ends in '/rerank'"),
        ({"api_key": " "}, "api_key is blank"),
        ({"api_key": 5}, "api_key is int"),
        ({"api_key": "Bearer abc"}, "give only the key"),
        ({"api_key": "a\nb"}, "contains whitespace or a non-ASCII"),
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
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_wrong_pairs_are_named() -> None:
    with RemoteScorer("http://gpu:8000") as scorer:
        with pytest.raises(InputError, match="pair 1 is str"):
            scorer.score_pairs([("q", "a"), "b"])  # type: ignore[list-item]


def test_hosted_services_are_known_by_name() -> None:
    async def discover(url: str) -> discovery.Server:
        return await discovery.find_server(Address.of(url), None)  # type: ignore[arg-type]

    for url, kind in [
        ("https://api.cohere.com", "cohere"),
        ("https://api.jina.ai/v1", "jina"),
        ("https://api.voyageai.com/v1/", "voyage"),
    ]:
        assert asyncio.run(discover(url)).provider == kind
