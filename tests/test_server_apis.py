"""What clients of each provider send, as their own sources say, and what they read.

The requests are those of voyageai 0.5.0, mixedbread 0.54.0, ollama 0.6.3, xinference-client
4.1.0, infinity-client 0.0.78, langchain-nvidia-ai-endpoints 1.5.0, langchain-openai 1.7.4, litellm
1.110.2, huggingface_hub 2.4.0, and of the Go sources of Weaviate's module
reranker-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gpurerank import Reranker
from tests.serving import DOCUMENTS, QUERY, Running, options_of, running

BODY: dict[str, Any] = {"model": "m", "query": QUERY, "documents": DOCUMENTS}
PARTS = [{"type": "text", "text": document} for document in DOCUMENTS]


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"))) as found:
        yield found


@pytest.fixture(scope="module")
def scores(model_folder: Callable[[str], str]) -> list[float]:
    with Reranker(model_folder("bert"), device="cpu", dtype="float32") as reranker:
        return reranker.score_pairs([(QUERY, document) for document in DOCUMENTS])


def order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def logits(scores: list[float]) -> np.ndarray:
    return np.log(scores) - np.log1p(-np.array(scores))


def ok(server: Running, path: str, body: Any, **headers: str) -> Any:
    answer = server.post(path, body, **headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("more", [{"top_k": None, "truncation": True}, {}, {"top_k": 2}])
def test_voyage_always_gets_data(
    server: Running, scores: list[float], more: dict[str, Any]
) -> None:
    data = ok(server, "/v1/rerank", {**BODY, **more})["data"]
    assert [item["index"] for item in data] == order(scores)[: more.get("top_k")]
    np.testing.assert_allclose(
        [item["relevance_score"] for item in data], [scores[item["index"]] for item in data], 1e-4
    )


def test_infinity_gets_documents_as_strings_and_raw_scores(
    server: Running, scores: list[float]
) -> None:
    body = {**BODY, "return_documents": True, "raw_scores": True}
    for result in ok(server, "/rerank", body)["results"]:
        assert result["document"] == DOCUMENTS[result["index"]]
        np.testing.assert_allclose(
            result["relevance_score"], logits(scores)[result["index"]], rtol=1e-3
        )
    plain = ok(server, "/infinity/rerank", {**BODY, "return_documents": True})["results"]
    assert [result["document"] for result in plain] == [DOCUMENTS[i] for i in order(scores)]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rank_fields_decide_what_is_scored(server: Running, path: str) -> None:
    documents = [{"text": "the same", "title": document, "year": 7} for document in DOCUMENTS]

    def ranked(documents: list[Any], **more: Any) -> dict[int, float]:
        results = ok(server, path, {**BODY, "documents": documents, **more})["results"]
        return {result["index"]: result["relevance_score"] for result in results}

    assert ranked(documents, rank_fields=["title"]) == pytest.approx(ranked(DOCUMENTS), abs=1e-5)
    yaml = [f"title: {document}\nyear: 7" for document in DOCUMENTS]
    assert ranked(documents, rank_fields=["title", "year"]) == pytest.approx(ranked(yaml), abs=1e-5)
    assert ranked(documents) == pytest.approx(ranked(["the same"] * 4), abs=1e-5)
    untitled = [{"title": document, "year": 7} for document in DOCUMENTS]
    assert ranked(untitled) == pytest.approx(ranked(yaml), abs=1e-5)
    wrong = server.post(path, {**BODY, "documents": documents, "rank_fields": ["author"]})
    assert wrong.status_code == 422
    assert "documents.0: the document has no author" in wrong.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/rerank", BODY, "instruction"),
        ("/v2/rerank", BODY, "instruction"),
        ("/rerank", BODY, "instruction"),
        ("/score", {"text_1": QUERY, "text_2": DOCUMENTS}, "instruction"),
        ("/v1/embeddings", {"input": QUERY}, "instruction"),
        ("/v1/embeddings", {"input": QUERY}, "prompt"),
        ("/rerank", {"query": QUERY, "texts": DOCUMENTS}, "instruction"),
        ("/embed", {"inputs": QUERY}, "instruction"),
        ("/v2/embed", {"texts": [QUERY]}, "instruction"),
        ("/api/embed", {"model": "m", "input": QUERY}, "instruction"),
        ("/v1/rank", {"query": QUERY, "passages": DOCUMENTS}, "instruction"),
        ("/v1/reranking", {"query": QUERY, "input": DOCUMENTS}, "instruction"),
    ],
)
def test_an_instruction_is_refused_and_never_ignored(
    server: Running, path: str, body: dict[str, Any], field: str
) -> None:
    answer = server.post(path, {**body, field: "Find code."})
    assert answer.status_code == 422
    assert answer.json()["message"].startswith(f"{field}: ")
    assert server.post(path, {**body, field: None}).status_code == 200


def test_an_instruction_in_a_template_or_in_kwargs_is_refused(server: Running) -> None:
    for more in (
        {"chat_template_kwargs": {"instruction": "Find code."}},
        {"kwargs": '{"instruction": "Find code."}'},
    ):
        assert server.post("/v1/rerank", {**BODY, **more}).status_code == 422


def test_vllm_takes_content_and_items_and_gives_logits(
    server: Running, scores: list[float]
) -> None:
    sides: list[dict[str, Any]] = [
        {"queries": QUERY, "items": DOCUMENTS},
        {"data_1": QUERY, "data_2": DOCUMENTS},
        {"text_1": {"content": [{"type": "text", "text": QUERY}]}, "text_2": {"content": PARTS}},
    ]
    for body in sides:
        data = ok(server, "/score", body)["data"]
        np.testing.assert_allclose([item["score"] for item in data], scores, rtol=1e-4)
    data = ok(server, "/score", {**sides[0], "use_activation": False})["data"]
    np.testing.assert_allclose([item["score"] for item in data], logits(scores), rtol=1e-3)
    for documents in ({"content": PARTS}, [{"content": [part]} for part in PARTS]):
        results = ok(server, "/rerank", {**BODY, "documents": documents, "top_n": 0})["results"]
        assert [result["index"] for result in results] == order(scores)
    image = [{"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    assert server.post("/score", {"text_1": QUERY, "text_2": image}).status_code == 422


def test_ragflow_sends_return_documents_as_a_word(server: Running) -> None:
    results = ok(server, "/v1/rerank", {**BODY, "return_documents": "true"})["results"]
    assert all(result["document"]["text"] for result in results)
    results = ok(server, "/v1/rerank", {**BODY, "return_documents": "false"})["results"]
    assert not any("document" in result for result in results)


def test_litellm_gets_no_documents_on_the_path_of_two_providers(server: Running) -> None:
    """Its providers infinity and hosted_vllm send the same; each fails on the other's documents."""
    body = {**BODY, "return_documents": True}
    agent = {"user-agent": "litellm/1.110.2"}
    results = ok(server, "/rerank", body, **agent)["results"]
    assert not any("document" in result for result in results)
    first = ok(server, "/vllm/rerank", body, **agent)["results"][0]["document"]
    assert first == {"text": ok(server, "/infinity/rerank", body)["results"][0]["document"]}


def test_nvidia_ranks_by_logit(server: Running, scores: list[float]) -> None:
    body = {
        "model": "m",
        "query": {"text": QUERY},
        "passages": [{"text": document} for document in DOCUMENTS],
        "truncate": "END",
    }
    rankings = ok(server, "/v1/ranking", body)["rankings"]
    assert [item["index"] for item in rankings] == order(scores)
    np.testing.assert_allclose(
        [item["logit"] for item in rankings], sorted(logits(scores), reverse=True), rtol=1e-3
    )


def test_mixedbread_reranks_its_input(server: Running, scores: list[float]) -> None:
    documents = [{"title": document, "text": "x"} for document in DOCUMENTS]
    body = {"query": QUERY, "input": documents, "rank_fields": ["title"], "return_input": True}
    answer = ok(server, "/v1/reranking", {**body, "top_k": 2})
    assert [item["index"] for item in answer["data"]] == order(scores)[:2]
    assert answer["data"][0]["input"] == documents[order(scores)[0]]
    assert (answer["top_k"], answer["return_input"]) == (2, True)
    assert server.post("/v1/reranking", {**body, "rewrite_query": True}).status_code == 422


def test_weaviate_gets_scores_in_order_without_a_content_type(
    server: Running, scores: list[float]
) -> None:
    content = server.client.build_request(
        "POST", "/rerank", json={"query": QUERY, "documents": DOCUMENTS, "property": ""}
    ).content
    answer = server.client.post(
        "/rerank", content=content, headers={"user-agent": "Go-http-client/1.1"}
    )
    assert answer.status_code == 200
    found = answer.json()["scores"]
    assert [item["document"] for item in found] == DOCUMENTS
    np.testing.assert_allclose([item["score"] for item in found], scores, rtol=1e-4)
    assert server.client.get("/.well-known/ready").status_code == 200
    assert server.client.get("/meta").json()["model"] == "tiny"
    assert server.client.post("/rerank", content=content).status_code == 415


@pytest.mark.parametrize("path", ["/reranking", "/v1/reranking"])
def test_llama_cpp_reranks_documents_and_texts(
    server: Running, scores: list[float], path: str
) -> None:
    assert [r["index"] for r in ok(server, path, BODY)["results"]] == order(scores)
    ranks = ok(server, path, {"query": QUERY, "texts": DOCUMENTS})
    assert [rank["index"] for rank in ranks] == order(scores)


def test_hugging_face_posts_to_the_root(server: Running, scores: list[float]) -> None:
    for path in ("/", "/tei"):
        assert np.shape(ok(server, path, {"inputs": QUERY})) == (1, 384)
    ranks = ok(server, "/", {"query": QUERY, "texts": DOCUMENTS})
    assert [rank["index"] for rank in ranks] == order(scores)
    inputs = {"source_sentence": "a dog", "sentences": ["a puppy", "a car"]}
    near, far = ok(server, "/", {"inputs": inputs})
    assert 1 > near > far


def test_tei_predicts_tokenizes_and_names_its_labels(server: Running, scores: list[float]) -> None:
    pairs = [[QUERY, document] for document in DOCUMENTS]
    predictions = ok(server, "/predict", {"inputs": pairs, "raw_scores": False})
    np.testing.assert_allclose([row[0]["score"] for row in predictions], scores, rtol=1e-4)
    model_type = server.client.get("/info").json()["model_type"]["reranker"]
    assert model_type == {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    single = ok(server, "/predict", {"inputs": pairs[0]})
    assert single[0]["label"] == "LABEL_0"
    assert single[0]["score"] == pytest.approx(scores[0], rel=1e-4)
    assert server.post("/predict", {"inputs": QUERY}).status_code == 422
    tokens = ok(server, "/tokenize", {"inputs": "compare files"})[0]
    assert [token["text"] for token in tokens] == ["[CLS]", "compare", "files", "[SEP]"]
    assert (tokens[2]["start"], tokens[2]["stop"], tokens[0]["start"]) == (8, 13, None)
    assert len(ok(server, "/tokenize", {"inputs": ["a b"], "add_special_tokens": False})[0]) == 2
    assert server.post("/embed", {"inputs": "a", "prompt_name": "poem"}).status_code == 422


def test_ollama_embeds_and_lists(server: Running) -> None:
    answer = ok(server, "/api/embed", {"model": "mini:latest", "input": DOCUMENTS, "options": {}})
    assert np.shape(answer["embeddings"]) == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(answer["embeddings"], axis=1), 1, rtol=1e-5)
    one = ok(server, "/api/embeddings", {"model": "m", "prompt": DOCUMENTS[0]})["embedding"]
    np.testing.assert_allclose(one, answer["embeddings"][0], atol=1e-5)
    assert isinstance(server.post("/api/embed", {"input": 1}).json()["error"], str)
    assert [m["name"] for m in server.client.get("/api/tags").json()["models"]] == ["tiny", "mini"]
    assert "version" in server.client.get("/api/version").json()


def test_xinference_tells_rerankers_from_embedders(server: Running, scores: list[float]) -> None:
    types = {m["id"]: m["model_type"] for m in server.client.get("/v1/models").json()["data"]}
    assert types == {"tiny": "rerank", "mini": "embedding"}
    assert server.client.get("/v1/models/mini").json()["model_type"] == "embedding"
    assert server.client.get("/v1/models/none").status_code == 404
    body = {**BODY, "top_n": None, "max_chunks_per_doc": None, "return_documents": None}
    results = ok(server, "/v1/rerank", {**body, "return_len": None, "kwargs": "{}"})["results"]
    assert [result["index"] for result in results] == order(scores)
