"""Clients as they are published, against a real server: nothing of them is changed."""

from __future__ import annotations

import base64
import gc
from collections.abc import Callable, Iterator

import cohere
import numpy as np
import openai
import pytest
from langchain_cohere import CohereRerank as LangChainRerank
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank as LlamaIndexRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

from gpurerank import BiEncoder, RankedPassage, Reranker
from tests.serving import DOCUMENTS, QUERY, Running, options_of, running

KEY = "a-key-of-some-length"
MODEL = "rerank-v3.5"
# Cohere's client has no way to close its connections; the collector does.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"), api_key=KEY)) as found:
        yield found


@pytest.fixture(scope="module")
def ranked(model_folder: Callable[[str], str]) -> list[RankedPassage]:
    with Reranker(model_folder("bert"), device="cpu", dtype="float32") as reranker:
        return reranker.rank(QUERY, DOCUMENTS, 3)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    encoder = BiEncoder("embedded", device="cpu", dtype="float32")
    found = encoder.embed_passages(DOCUMENTS)
    encoder.close()
    return found


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in DOCUMENTS]


def assert_same(found: list[tuple[str, float]], ranked: list[RankedPassage]) -> None:
    assert [text for text, _ in found] == [p.passage for p in ranked]
    np.testing.assert_allclose([score for _, score in found], [p.score for p in ranked], atol=1e-5)


def test_cohere_v2_reranks(server: Running, ranked: list[RankedPassage]) -> None:
    client = cohere.ClientV2(KEY, base_url=server.url)
    answer = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=3)
    found = [(DOCUMENTS[r.index], r.relevance_score) for r in answer.results]
    assert_same(found, ranked)


def test_cohere_v1_reranks_and_returns_documents(
    server: Running, ranked: list[RankedPassage]
) -> None:
    client = cohere.Client(KEY, base_url=server.url)
    answer = client.rerank(
        model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=3, return_documents=True
    )
    found = [(r.document.text, r.relevance_score) for r in answer.results if r.document]
    assert_same(found, ranked)


def test_cohere_embeds(server: Running, vectors: np.ndarray) -> None:
    second = cohere.ClientV2(KEY, base_url=server.url).embed(
        model="embed-v4.0",
        texts=DOCUMENTS,
        input_type="search_document",
        embedding_types=["float"],
    )
    np.testing.assert_allclose(second.embeddings.float_, vectors, atol=1e-5)
    first = cohere.Client(KEY, base_url=server.url).embed(
        model="embed-v4.0", texts=DOCUMENTS, input_type="search_document"
    )
    np.testing.assert_allclose(first.embeddings, vectors, atol=1e-5)


def test_cohere_reads_errors(server: Running) -> None:
    client = cohere.ClientV2(KEY, base_url=server.url)
    with pytest.raises(cohere.BadRequestError, match="empty"):
        client.rerank(model=MODEL, query=QUERY, documents=[])
    with pytest.raises(cohere.UnauthorizedError, match="key"):
        cohere.ClientV2("wrong", base_url=server.url).rerank(
            model=MODEL, query=QUERY, documents=DOCUMENTS
        )


@pytest.mark.parametrize("coded", ["float", "base64", None])
def test_openai_embeds(server: Running, vectors: np.ndarray, coded: str | None) -> None:
    asked = {} if coded is None else {"encoding_format": coded}
    with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0) as client:
        answer = client.embeddings.create(model="m", input=DOCUMENTS, **asked)  # type: ignore[call-overload]
        assert [model.id for model in client.models.list()] == ["tiny", "mini"]
    found = [d.embedding for d in answer.data]
    if coded == "base64":
        found = [np.frombuffer(base64.b64decode(row), "<f4") for row in found]
    np.testing.assert_allclose(found, vectors, atol=1e-5)
    assert answer.usage.total_tokens >= 0


def test_openai_reads_errors(server: Running) -> None:
    with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model="m", input=[])
    assert refused.value.code == "empty"
    with openai.OpenAI(api_key="wrong", base_url=f"{server.url}/v1", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.embeddings.create(model="m", input="a")


def test_llamaindex_cohere_reranks(server: Running, ranked: list[RankedPassage]) -> None:
    reranker = LlamaIndexRerank(top_n=3, model=MODEL, api_key=KEY, base_url=server.url)
    found = reranker.postprocess_nodes(nodes(), query_str=QUERY)
    assert_same([(n.node.get_content(), n.score or 0.0) for n in found], ranked)


@pytest.mark.parametrize("token", [KEY, f"Bearer {KEY}"])
def test_llamaindex_tei_reranks(server: Running, ranked: list[RankedPassage], token: str) -> None:
    reranker = TextEmbeddingInference(top_n=3, base_url=server.url, auth_token=token)
    found = reranker.postprocess_nodes(nodes(), query_str=QUERY)
    assert_same([(n.node.get_content(), n.score or 0.0) for n in found], ranked)


def test_langchain_cohere_reranks(server: Running, ranked: list[RankedPassage]) -> None:
    reranker = LangChainRerank(model=MODEL, top_n=3, cohere_api_key=KEY, base_url=server.url)
    documents = [Document(page_content=text) for text in DOCUMENTS]
    found = reranker.compress_documents(documents, QUERY)
    assert_same([(d.page_content, d.metadata["relevance_score"]) for d in found], ranked)
