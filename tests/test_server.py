"""What the server answers, compared with the models in the same process."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gpurerank import BiEncoder, Cascade, Reranker
from gpurerank.server.options import Named
from tests.serving import DOCUMENTS, QUERY, Running, options_of, running

TEXTS = {"query": QUERY, "texts": DOCUMENTS}
ASKED = {"model": "any-name", "query": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"))) as found:
        yield found


@pytest.fixture(scope="module")
def reranker(model_folder: Callable[[str], str]) -> Iterator[Reranker]:
    with Reranker(model_folder("bert"), device="cpu", dtype="float32") as found:
        yield found


@pytest.fixture(scope="module")
def encoder() -> Iterator[BiEncoder]:
    found = BiEncoder("embedded", device="cpu", dtype="float32")
    yield found
    found.close()


def assert_ranking(results: list[dict[str, Any]], reranker: Reranker, key: str) -> None:
    ranked = reranker.rank(QUERY, DOCUMENTS, len(results))
    assert [r["index"] for r in results] == [p.index for p in ranked]
    np.testing.assert_allclose([r[key] for r in results], [p.score for p in ranked], atol=1e-5)


def test_cohere_v2_gives_the_best_first(server: Running, reranker: Reranker) -> None:
    answer = server.post("/v2/rerank", {**ASKED, "top_n": 2}).json()
    assert set(answer) == {"id", "results", "meta"}
    assert len(answer["results"]) == 2
    assert set(answer["results"][0]) == {"index", "relevance_score"}
    assert answer["meta"]["api_version"] == {"version": "2"}
    assert_ranking(answer["results"], reranker, "relevance_score")


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/reranking"])
def test_documents_come_as_strings_or_objects(
    server: Running, reranker: Reranker, path: str
) -> None:
    mixed = [DOCUMENTS[0], *({"text": text, "title": "unknown"} for text in DOCUMENTS[1:])]
    answer = server.post(path, {**ASKED, "documents": mixed}).json()
    assert {"id", "model", "results", "usage", "meta"} <= set(answer)
    assert answer["model"] == "tiny"
    assert answer["usage"]["total_tokens"] > len(DOCUMENTS)
    for result in answer["results"]:
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}
    assert_ranking(answer["results"], reranker, "relevance_score")


def test_return_documents_false_leaves_them_out(server: Running) -> None:
    answer = server.post("/v1/rerank", {**ASKED, "return_documents": False}).json()
    assert all("document" not in result for result in answer["results"])


def test_voyage_gets_data_beside_results(server: Running, reranker: Reranker) -> None:
    asked = {**ASKED, "top_k": 3, "truncation": True, "return_documents": True}
    answer = server.post("/v1/rerank", asked).json()
    assert answer["object"] == "list"
    assert len(answer["data"]) == 3
    assert all(item["document"] == DOCUMENTS[item["index"]] for item in answer["data"])
    assert_ranking(answer["data"], reranker, "relevance_score")


def test_texts_are_answered_by_a_bare_list(server: Running, reranker: Reranker) -> None:
    answer = server.post("/rerank", {**TEXTS, "return_text": True, "truncate": True}).json()
    assert len(answer) == len(DOCUMENTS)
    assert all(item["text"] == DOCUMENTS[item["index"]] for item in answer)
    assert_ranking(answer, reranker, "score")
    assert set(server.post("/rerank", TEXTS).json()[0]) == {"index", "score"}


def test_raw_scores_are_logits(server: Running, reranker: Reranker) -> None:
    answer = server.post("/rerank", {**TEXTS, "raw_scores": True}).json()
    logits = [p.logit for p in reranker.rank(QUERY, DOCUMENTS)]
    np.testing.assert_allclose([item["score"] for item in answer], logits, atol=1e-5)


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents")])
def test_score_keeps_the_order(
    server: Running, reranker: Reranker, path: str, names: tuple[str, str]
) -> None:
    queries = [QUERY, "sorted", QUERY, "a"]
    one = server.post(path, {names[0]: QUERY, names[1]: DOCUMENTS}).json()
    several = server.post(path, {names[0]: queries, names[1]: DOCUMENTS}).json()
    for answer, left in ((one, [QUERY] * 4), (several, queries)):
        expected = reranker.score_pairs(list(zip(left, DOCUMENTS, strict=True)))
        assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
        assert answer["data"][0]["object"] == "score"
        np.testing.assert_allclose([d["score"] for d in answer["data"]], expected, atol=1e-5)


def test_score_of_one_text_with_one(server: Running, reranker: Reranker) -> None:
    answer = server.post("/score", {"text_1": QUERY, "text_2": DOCUMENTS[1]}).json()
    expected = reranker.score_pairs([(QUERY, DOCUMENTS[1])])
    np.testing.assert_allclose([d["score"] for d in answer["data"]], expected, atol=1e-5)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_openai_embeddings_as_numbers_and_base64(
    server: Running, encoder: BiEncoder, path: str
) -> None:
    plain = server.post(path, {"model": "m", "input": DOCUMENTS, "dimensions": 384}).json()
    coded = server.post(path, {"input": DOCUMENTS, "encoding_format": "base64"}).json()
    expected = encoder.embed_passages(DOCUMENTS)
    numbers = [item["embedding"] for item in plain["data"]]
    bits = [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in coded["data"]]
    np.testing.assert_allclose(numbers, expected, atol=1e-5)
    np.testing.assert_allclose(bits, expected, atol=1e-5)
    assert plain["model"] == "mini"
    assert [d["index"] for d in plain["data"]] == [0, 1, 2, 3]
    one = server.post(path, {"input": DOCUMENTS[1]}).json()["data"]
    np.testing.assert_allclose(one[0]["embedding"], expected[1], atol=1e-5)


def test_tei_embeddings_are_a_bare_list(server: Running, encoder: BiEncoder) -> None:
    expected = encoder.embed_passages(DOCUMENTS)
    assert np.allclose(server.post("/embed", {"inputs": DOCUMENTS}).json(), expected, atol=1e-5)
    assert np.allclose(
        server.post("/embed", {"inputs": QUERY}).json(), encoder.embed_passages([QUERY]), atol=1e-5
    )


@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])
def test_cohere_embeddings(server: Running, encoder: BiEncoder, path: str) -> None:
    asked = {"model": "m", "texts": DOCUMENTS, "input_type": "search_document"}
    answer = server.post(path, {**asked, "embedding_types": ["float"]}).json()
    assert answer["texts"] == DOCUMENTS
    assert answer["response_type"] == "embeddings_by_type"
    expected = encoder.embed_passages(DOCUMENTS)
    np.testing.assert_allclose(answer["embeddings"]["float"], expected, atol=1e-5)
    if path == "/v1/embed":
        floats = server.post(path, asked).json()
        assert floats["response_type"] == "embeddings_floats"
        np.testing.assert_allclose(floats["embeddings"], expected, atol=1e-5)


@pytest.mark.parametrize("method", ["cross-encoder", "bi-encoder", "cascade"])
def test_rank_tells_all_of_a_ranking(
    server: Running, reranker: Reranker, encoder: BiEncoder, method: str
) -> None:
    rankers = {
        "cross-encoder": reranker,
        "bi-encoder": encoder,
        "cascade": Cascade(encoder, reranker, 2),
    }
    asked = {"query": QUERY, "passages": DOCUMENTS, "method": method, "candidates": 2}
    answer = server.post("/v1/rank", asked).json()
    ranked = rankers[method].rank(QUERY, DOCUMENTS)
    assert [r["index"] for r in answer["results"]] == [p.index for p in ranked]
    np.testing.assert_allclose(
        [r["logit"] for r in answer["results"]], [p.logit for p in ranked], atol=1e-4
    )
    assert [r["previous_rank"] for r in answer["results"]] == [p.previous_rank for p in ranked]
    if method != "bi-encoder":  # whose vectors are remembered, so that no model runs
        assert answer["stages_ms"]
    assert all("passage" not in result for result in answer["results"])


def test_null_is_absent_and_unknown_fields_are_ignored(server: Running) -> None:
    nulls = {
        "top_n": None,
        "top_k": None,
        "max_tokens_per_doc": None,
        "return_documents": None,
        "truncation": None,
    }
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        plain = server.post(path, ASKED).json()["results"]
        odd = {
            **ASKED,
            **nulls,
            "model": None,
            "rank_fields": None,
            "priority": 3,
            "xyz": {"a": [1]},
        }
        answer = server.post(path, odd)
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"] == plain
    for path, body in (
        (
            "/rerank",
            {
                **TEXTS,
                "raw_scores": None,
                "return_text": None,
                "truncate": None,
                "truncation_direction": None,
                "x": 1,
            },
        ),
        (
            "/score",
            {"text_1": QUERY, "text_2": QUERY, "model": None, "queries": None, "documents": None},
        ),
        (
            "/embeddings",
            {
                "input": "a",
                "model": None,
                "encoding_format": None,
                "dimensions": None,
                "user": None,
            },
        ),
        ("/embed", {"inputs": "a", "truncate": None, "normalize": None}),
        ("/v2/embed", {"texts": ["a"], "model": None, "input_type": None, "embedding_types": None}),
    ):
        assert server.post(path, body).status_code == 200


def test_top_n_of_zero_and_of_too_many_follow_each_api(server: Running) -> None:
    assert server.post("/v2/rerank", {**ASKED, "top_n": 0}).status_code == 422
    for path in ("/rerank", "/v1/rerank", "/vllm/v2/rerank"):
        results = server.post(path, {**ASKED, "top_n": 0}).json()["results"]
        assert len(results) == len(DOCUMENTS), path
    many = server.post("/v2/rerank", {**ASKED, "top_n": 10**30}).json()["results"]
    assert len(many) == len(DOCUMENTS)


def test_a_blank_document_is_ranked_last(server: Running) -> None:
    results = server.post("/v2/rerank", {**ASKED, "documents": ["", *DOCUMENTS]}).json()["results"]
    assert results[-1] == {"index": 0, "relevance_score": 0.0}


def test_a_long_document_is_scored_by_its_best_window(server: Running, reranker: Reranker) -> None:
    long = ["fox " * 600 + DOCUMENTS[1]]
    results = server.post("/v2/rerank", {**ASKED, "documents": long}).json()["results"]
    expected = reranker.rank(QUERY, long)[0].score
    np.testing.assert_allclose(results[0]["relevance_score"], expected, atol=1e-5)


def test_what_is_served_is_told(server: Running) -> None:
    assert [m["id"] for m in server.client.get("/v1/models").json()["data"]] == ["tiny", "mini"]
    info = server.client.get("/info").json()
    assert info["model_id"] == "tiny"
    assert list(info["model_type"]) == ["reranker"]
    assert info["embedders"] == {"mini": 384}
    assert info["max_client_batch_size"] == 10_000
    assert server.client.get("/docs").status_code == 200
    for path in ("/livez", "/readyz", "/health"):
        assert server.client.get(path).json()["status"] == "ok"


def test_several_models_answer_by_name(model_folder: Callable[[str], str]) -> None:
    named = (Named("one", model_folder("bert")), Named("two", model_folder("roberta")))
    with running(options_of("", rerankers=named, embedders=())) as server:
        found = {
            name: server.post("/v1/rerank", {**ASKED, "model": name}).json()
            for name in ("one", "two")
        }
        assert found["one"]["model"] == "one"
        assert found["two"]["model"] == "two"
        for name, folder in (("one", "bert"), ("two", "roberta")):
            with Reranker(model_folder(folder), device="cpu", dtype="float32") as reranker:
                assert_ranking(found[name]["results"], reranker, "relevance_score")
        default = server.post("/v1/rerank", {**ASKED, "model": None}).json()
        assert default["model"] == "one"
        unknown = server.post("/v1/rerank", {**ASKED, "model": "three"})
        assert unknown.status_code == 404
        assert "one, two" in unknown.json()["message"]
        assert server.post("/embed", {"inputs": "a"}).status_code == 404
