"""Vectors from servers, and a server behind every plugin and the command line."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import pickle
import sys
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import SecretStr, ValidationError

from gpurerank import (
    BiEncoder,
    InputError,
    NotFiniteError,
    RemoteEmbedder,
    RemoteError,
    TextEmbedder,
    cli,
    open_embedder,
)
from langchain_gpurerank import GPUCrossEncoder, GPUEmbeddings, rerank
from langchain_gpurerank import GPURerank as Compressor
from llamaindex_gpurerank import GPUEmbedding
from llamaindex_gpurerank import GPURerank as Postprocessor
from tests.fake_server import FakeServer, Reply, overlap_scores, serving, speaking, vector
from tests.tiny_models import PASSAGES

KEY = "sk-a-key-that-nobody-may-see"
QUERY = "compares two files"
TEXTS = ["a", "bee", "", "an apple", "高さ", "tree"]


def normalised(texts: list[str]) -> np.ndarray:
    vectors = np.array([vector(text) for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# What each kind is asked for queries and for passages, beside the texts.
ROLES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "tei": ("/embed", "inputs", {"truncate": True, "normalize": True}, {}),
    "openai": ("/v1/embeddings", "input", {"encoding_format": "base64"}, {}),
    "infinity": ("/embeddings", "input", {"encoding_format": "base64"}, {}),
    "vllm": (
        "/v1/embeddings",
        "input",
        {"encoding_format": "base64", "truncate_prompt_tokens": -1},
        {},
    ),
    "jina": (
        "/v1/embeddings",
        "input",
        {"embedding_type": "base64", "truncate": True, "task": "retrieval.passage"},
        {"task": "retrieval.query"},
    ),
    "voyage": (
        "/v1/embeddings",
        "input",
        {"encoding_format": "base64", "truncation": True, "input_type": "document"},
        {"input_type": "query"},
    ),
    "cohere": (
        "/v2/embed",
        "texts",
        {"embedding_types": ["float"], "truncate": "END", "input_type": "search_document"},
        {"input_type": "search_query"},
    ),
}
ROLES["gpurerank"] = ROLES["cohere"]


@pytest.mark.parametrize("kind", ROLES)
def test_each_kind_embeds_in_its_own_shape(kind: str) -> None:
    path, name, for_passages, for_queries = ROLES[kind]
    with serving(speaking(kind)) as server:
        with RemoteEmbedder(server.url, api=kind, api_key=KEY, model="m") as embedder:
            passages, queries = embedder.embed_passages(TEXTS), embedder.embed_queries(TEXTS[:2])
        first, second = server.asked
    named = {} if kind == "tei" else {"model": "m"}
    assert (first.path, first.body) == (path, {name: TEXTS} | for_passages | named)
    assert second.body == {name: TEXTS[:2]} | for_passages | for_queries | named
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert passages.dtype == queries.dtype == np.float32
    np.testing.assert_allclose(passages, normalised(TEXTS), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(queries, passages[:2])


@pytest.mark.parametrize("kind", ["gpurerank", "tei", "vllm", "infinity", "openai"])
def test_the_kind_is_found_and_calls_are_split(kind: str) -> None:
    with serving(speaking(kind)) as server:
        with RemoteEmbedder(server.url, texts_per_request=4, concurrency=2) as embedder:
            assert isinstance(embedder, TextEmbedder)
            texts = [f"text {'e' * index}" for index in range(11)]
            found = embedder.embed_passages(texts, show_progress=True)
            np.testing.assert_allclose(found, normalised(texts), rtol=0, atol=1e-6)
            both = (
                asyncio.run(embedder.aembed_queries(texts)),
                asyncio.run(embedder.aembed_passages(texts)),
            )
            np.testing.assert_array_equal(both[0], found)
            np.testing.assert_array_equal(both[1], found)
            assert embedder.embed_queries([]).shape == (0, 3)
            assert embedder.model_name == "served"
        assert len(server.posts()) == 9


def test_vectors_of_length_one_keep_their_bits() -> None:
    exact = np.array([[0.6, 0.8], [1.0, 1e-7]], dtype=np.float32)
    with serving(lambda _: Reply(exact.tolist())) as server:
        with RemoteEmbedder(server.url, api="tei") as embedder:
            np.testing.assert_array_equal(embedder.embed_queries(["a", "b"]), exact)


def test_prompts_go_before_texts_where_the_server_knows_no_roles(own: FakeServer) -> None:
    with serving(speaking("tei")) as server:
        with RemoteEmbedder(
            server.url, query_prompt="query: ", passage_prompt="passage: "
        ) as embedder:
            embedder.embed_queries(["a"])
            embedder.embed_passages(["b"])
        assert [asked.body["inputs"] for asked in server.posts()] == [["query: a"], ["passage: b"]]
    with RemoteEmbedder(own.url, query_prompt="query: ") as embedder:
        embedder.embed_passages(["b"])
        with pytest.raises(InputError, match="a gpurerank server adds its own"):
            embedder.embed_queries(["a"])


def data(*vectors: Any) -> dict[str, Any]:
    return {"data": [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]}


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (data([1.0, 2.0]), RemoteError, "answered 1 of 2 texts; text 1 is missing"),
        (data([1.0], [1.0, 2.0]), RemoteError, "are not numbers, or differ in length"),
        (data([], []), RemoteError, r"vectors of shape \(2, 0\) for 2 texts"),
        (data(5, 5), RemoteError, "are not numbers, or differ in length"),
        (data("AAAA", "AAAA"), RemoteError, "are not numbers, or differ in length"),
        (data("&&&&", "&&&&"), RemoteError, "are not numbers, or differ in length"),
        (data([1.0], [float("nan")]), NotFiniteError, "in the vector of text 1"),
        (data([1.0], [None]), NotFiniteError, "in the vector of text 1"),
        (data([1e300], [1.0]), NotFiniteError, "in the vector of text 0"),
        ([[[1.0]], [[1.0]]], RemoteError, r"shape \(2, 1, 1\).*is it an embedding model"),
        ([[1.0]], RemoteError, r"vectors of shape \(1, 1\) for 2 texts"),
        ({"embeddings": {"int8": [[1], [2]]}}, RemoteError, "and no list of results"),
    ],
)
def test_malformed_vectors_are_named(body: Any, kind: type[Exception], said: str) -> None:
    with serving(lambda _: Reply(body)) as server:
        with RemoteEmbedder(server.url, api="openai") as embedder:
            with pytest.raises(kind, match=said):
                embedder.embed_passages(["a", "b"])


def test_another_dim_than_before_is_an_error() -> None:
    replies = [[[1.0, 0.0]], [[1.0, 0.0, 0.0]]]
    with serving(lambda _: Reply(replies.pop(0))) as server:
        with RemoteEmbedder(server.url, api="tei") as embedder:
            assert embedder.embed_queries([]).shape == (0, 0)
            embedder.embed_queries(["a"])
            with pytest.raises(RemoteError, match=r"of \[2, 3\] numbers; if it serves another"):
                embedder.embed_queries(["a"])


def test_an_embedder_is_copied_pickled_and_hides_its_key(own: FakeServer) -> None:
    with RemoteEmbedder(own.url, api_key=SecretStr(KEY), model="m") as embedder:
        assert KEY not in repr(embedder)
        expected = embedder.embed_queries(TEXTS)
        for twin in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):
            with twin:
                np.testing.assert_array_equal(twin.embed_queries(TEXTS), expected)
    assert {asked.headers["authorization"] for asked in own.posts()} == {f"Bearer {KEY}"}


def test_an_embedder_is_opened_here_or_there(own: FakeServer, bi_encoder: BiEncoder) -> None:
    here = open_embedder()
    np.testing.assert_array_equal(here.embed_queries(["a"]), bi_encoder.embed_queries(["a"]))
    there = open_embedder(base_url=own.url)
    assert there.embed_queries(["a"]).shape == (1, 3)
    there.close()
    with pytest.raises(InputError, match="dtype is 'float16', but with base_url the server"):
        open_embedder(base_url=own.url, dtype="float16")
    with pytest.raises(InputError, match="api_key is given without base_url"):
        open_embedder(api_key=KEY)


DOCUMENTS = [Document(text, id=str(index)) for index, text in enumerate(PASSAGES)]


def test_langchain_reranks_on_a_server(own: FakeServer) -> None:
    store = InMemoryVectorStore(GPUEmbeddings(base_url=own.url, api_key=KEY))
    store.add_documents(DOCUMENTS)
    first = store.as_retriever(search_kwargs={"k": 4})
    retriever = rerank(first, top_n=2, base_url=own.url, api_key=KEY)
    expected = sorted(overlap_scores(QUERY, PASSAGES), reverse=True)[:2]
    for found in (retriever.invoke(QUERY), asyncio.run(retriever.ainvoke(QUERY))):
        assert found[0].page_content == PASSAGES[2]
        assert [document.metadata["relevance_score"] for document in found] == expected
        assert found[0].metadata["gpurerank"]["model"] == "served"
    assert {asked.headers["authorization"] for asked in own.asked} == {f"Bearer {KEY}"}
    assert asyncio.run(store.embeddings.aembed_query("a")) == store.embeddings.embed_query("a")


def test_langchain_cross_encoder_scores_on_a_server(own: FakeServer) -> None:
    encoder = GPUCrossEncoder(base_url=own.url, api_key=SecretStr(KEY))
    assert encoder.score([(QUERY, text) for text in PASSAGES]) == overlap_scores(QUERY, PASSAGES)


def test_llamaindex_reranks_and_embeds_on_a_server(own: FakeServer) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in PASSAGES]
    postprocessor = Postprocessor(base_url=own.url, api_key=KEY, top_n=1)
    for found in (
        postprocessor.postprocess_nodes(nodes, query_str=QUERY),
        asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=QUERY)),
    ):
        assert [node.node.get_content() for node in found] == [PASSAGES[2]]
    embedding = GPUEmbedding(base_url=own.url, api_key=KEY)
    expected = normalised(TEXTS[:2]).tolist()
    assert embedding.get_text_embedding_batch(TEXTS[:2]) == [
        pytest.approx(row, abs=1e-6) for row in expected
    ]
    assert asyncio.run(embedding.aget_query_embedding("a")) == pytest.approx(expected[0], abs=1e-6)


@pytest.mark.parametrize("plugin", [Compressor, Postprocessor, GPUEmbedding])
def test_a_plugin_keeps_its_key_and_shows_it_nowhere(plugin: Any, own: FakeServer) -> None:
    made = plugin(base_url=own.url, api_key=KEY)
    dumped = json.dumps(made.model_dump(mode="json", exclude={"callback_manager"}))
    assert KEY not in repr(made) + str(made) + dumped
    assert "*" not in dumped
    assert json.loads(dumped)["base_url"] == own.url
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert twin.api_key.get_secret_value() == KEY
    with pytest.raises(ValidationError, match="api_key"):
        plugin(base_url=own.url, api_key=5)


def test_the_command_line_asks_a_server(
    own: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gpurerank", "rank", QUERY, *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    monkeypatch.setenv("GPURERANK_API_KEY", KEY)
    assert run(*PASSAGES, "--json", "-k", "1", "--base-url", own.url) == 0
    assert json.loads(capsys.readouterr().out)["index"] == 2
    assert own.posts()[0].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.setenv("GPURERANK_BASE_URL", own.url)
    assert run("a", "--device", "cpu") == 1
    told = capsys.readouterr().err
    assert "device is 'cpu', but with base_url the server decides" in " ".join(told.split())
    assert KEY not in told


def test_base64_is_little_endian_float32() -> None:
    told = base64.b64encode(bytes.fromhex("0000003f0000803e")).decode()
    with serving(lambda _: Reply(data(told))) as server:
        with RemoteEmbedder(server.url, api="openai") as embedder:
            found = embedder.embed_queries(["a"])
    np.testing.assert_allclose(found, np.array([[0.5, 0.25]]) / np.hypot(0.5, 0.25), rtol=1e-6)
