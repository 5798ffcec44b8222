"""Embeddings in the types, lengths and encodings that Voyage, Cohere, Jina and OpenAI have."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from gpurerank import BiEncoder
from gpurerank.server.refusal import Refusal
from gpurerank.server.vector_output import check_dimensions, quantize, shorten
from tests.serving import DOCUMENTS, Running, options_of, running

DTYPES = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"))) as found:
        yield found


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    encoder = BiEncoder("embedded", device="cpu", dtype="float32")
    found = encoder.embed_passages(DOCUMENTS)
    encoder.close()
    return found


def rows(server: Running, path: str, **body: Any) -> list[Any]:
    answer = server.post(path, {"input": DOCUMENTS, **body})
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]]


def test_binary_vectors_hold_the_signs(vectors: np.ndarray) -> None:
    packed = quantize(vectors, "ubinary")
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1), vectors > 0)
    np.testing.assert_array_equal(quantize(vectors, "binary"), packed.astype(int) - 128)


def test_int8_vectors_keep_the_similarities(vectors: np.ndarray) -> None:
    small = quantize(vectors, "int8").astype(float)
    np.testing.assert_array_equal(quantize(vectors, "uint8"), small + 128)
    norms = np.linalg.norm(small, axis=1)
    np.testing.assert_allclose(
        small @ small.T / np.outer(norms, norms), vectors @ vectors.T, atol=0.01
    )
    alone = quantize(vectors[:1], "int8")
    np.testing.assert_array_equal(alone[0], small[0])  # no neighbour changes a vector


@pytest.mark.parametrize("kind", DTYPES)
def test_voyage_gets_the_type_that_it_asks_for(
    server: Running, vectors: np.ndarray, kind: Any
) -> None:
    """As voyageai 0.5.0 does by default: base64, read as the requested type."""
    expected = quantize(vectors, kind)
    body = {"model": "m", "input_type": None, "truncation": True, "output_dtype": kind}
    coded = rows(server, "/v1/embeddings", **body, encoding_format="base64")
    for row, wanted in zip(coded, expected, strict=True):
        found = np.frombuffer(base64.b64decode(row), DTYPES[kind])
        np.testing.assert_allclose(found.astype(int), wanted, atol=1)
    numbers = rows(server, "/v1/embeddings", **body)
    np.testing.assert_allclose(np.array(numbers, int), expected, atol=1)


def test_voyage_gets_float32_in_base64(server: Running, vectors: np.ndarray) -> None:
    for more in ({}, {"output_dtype": "float"}, {"output_dimension": 384}):
        coded = rows(server, "/embeddings", truncation=True, encoding_format="base64", **more)
        found = [np.frombuffer(base64.b64decode(row), "<f4") for row in coded]
        np.testing.assert_allclose(found, vectors, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        {"output_dtype": "int4"},
        {"output_dimension": 256},
        {"dimensions": 256},
        {"dimensions": 768},
        {"task": "text-matching", "dimensions": 128},
        {"late_chunking": True},
    ],
)
def test_what_cannot_be_given_is_refused(server: Running, body: dict[str, Any]) -> None:
    answer = server.post("/v1/embeddings", {"input": DOCUMENTS, **body})
    assert answer.status_code == 422
    assert list(body)[-1] in answer.json()["message"]


def test_a_matryoshka_model_is_cut_to_the_lengths_it_declares(vectors: np.ndarray) -> None:
    encoder = cast(BiEncoder, SimpleNamespace(dim=384, matryoshka_dims=(64, 128)))
    check_dimensions(encoder, 128, "dimensions")
    with pytest.raises(Refusal, match="100 is not possible"):
        check_dimensions(encoder, 100, "dimensions")
    short = shorten(vectors, 128)
    assert short.shape == (4, 128)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, rtol=1e-5)
    ratio = short / vectors[:, :128]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-3)


@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed", "/v1/v2/embed", "/v2/v1/embed"])
def test_cohere_gets_every_type(server: Running, vectors: np.ndarray, path: str) -> None:
    types = ["float", "base64", *DTYPES]
    body = {"model": "m", "input_type": "search_document", "embedding_types": types}
    answer = server.post(path, {**body, "texts": DOCUMENTS}).json()
    assert set(answer["embeddings"]) == set(types)
    for kind in DTYPES:
        np.testing.assert_allclose(
            np.array(answer["embeddings"][kind], int), quantize(vectors, cast(Any, kind)), atol=1
        )
    coded = [np.frombuffer(base64.b64decode(row), "<f4") for row in answer["embeddings"]["base64"]]
    np.testing.assert_allclose(coded, answer["embeddings"]["float"], atol=1e-6)
    inputs = [{"content": [{"type": "text", "text": text}]} for text in DOCUMENTS]
    same = server.post(path, {**body, "inputs": inputs}).json()
    np.testing.assert_allclose(same["embeddings"]["float"], vectors, atol=1e-5)
    assert server.post(path, {**body, "texts": ["a"], "output_dimension": 99}).status_code == 422


def test_jina_embeds_objects_as_bits(server: Running, vectors: np.ndarray) -> None:
    body = {"task": "retrieval.passage", "embedding_type": "ubinary", "normalized": True}
    texts = [{"text": DOCUMENTS[0]}, *DOCUMENTS[1:]]
    found = rows(server, "/v1/embeddings", **{**body, "input": texts})
    np.testing.assert_array_equal(found, quantize(vectors, "ubinary"))


@pytest.mark.parametrize("tokens", [[[101, 102], [7]], [101, 102]])
def test_tokens_are_refused_with_the_setting_that_helps(server: Running, tokens: Any) -> None:
    """As langchain-openai 1.7.4 sends them by default."""
    answer = server.post("/v1/embeddings", {"model": "m", "input": tokens})
    assert answer.status_code == 422
    assert "check_embedding_ctx_length=False" in answer.json()["message"]
