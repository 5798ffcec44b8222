"""Remote scoring and embedding over an injected transport: no sockets, no server process."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest

from gpurerank import OverloadedError, RemoteEmbedder, RemoteScorer, Reranker, Retry
from gpurerank.remote.providers import EMBED_APIS, PROVIDERS, RERANK_APIS

URL = "http://gpu-server:8000"


class ProviderFake:
    """Answers like a provider: each document scores its length over 100, in reverse order."""

    def __init__(self, busy: int = 0) -> None:
        self.requests: list[httpx.Request] = []
        self._busy = busy

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self._busy > 0:
            self._busy -= 1
            return httpx.Response(429, json={"message": "busy"}, headers={"Retry-After": "0"})
        body = json.loads(request.content)
        texts = body.get("documents") or body.get("texts") or body.get("text_2")
        if texts is None or "embedding_types" in body:
            texts = texts or body.get("input") or body["inputs"]
            rows = [{"index": i, "embedding": [3.0, 4.0]} for i in range(len(texts))]
        else:
            rows = [{"index": i, "score": len(text) / 100} for i, text in enumerate(texts)]
        return httpx.Response(200, json={"data": rows[::-1]})


@pytest.mark.parametrize("api", RERANK_APIS)
def test_every_provider_scores_over_an_injected_transport(api: str) -> None:
    fake = ProviderFake()
    with RemoteScorer(URL, api=api, transport=httpx.MockTransport(fake)) as scorer:
        assert scorer.score_pairs([("a", "one"), ("a", "three"), ("b", "")]) == pytest.approx(
            [0.03, 0.05, 0.0]
        )
    assert len(fake.requests) == 2, "one request for each query"
    assert {request.url.host for request in fake.requests} == {"gpu-server"}


@pytest.mark.parametrize("api", EMBED_APIS)
def test_every_provider_embeds_over_an_injected_transport(api: str) -> None:
    fake = ProviderFake()
    with RemoteEmbedder(URL, api=api, transport=httpx.MockTransport(fake)) as embedder:
        vectors = embedder.embed_queries(["one", "two"])
    np.testing.assert_allclose(vectors, [[0.6, 0.8]] * 2, atol=1e-6)


def test_a_busy_server_is_retried_and_then_given_up() -> None:
    patient = ProviderFake(busy=1)
    transport = httpx.MockTransport(patient)
    scorer = RemoteScorer(URL, api="jina", transport=transport)
    ranked = Reranker.from_scorer(scorer, name="remote").rank("a", ["x", "xxx"])
    assert [passage.index for passage in ranked] == [1, 0]
    assert len(patient.requests) == 2
    scorer.close()
    busy = ProviderFake(busy=9)
    options = {"api": "jina", "retry": Retry(attempts=2), "transport": httpx.MockTransport(busy)}
    with RemoteScorer(URL, **options) as scorer, pytest.raises(OverloadedError):  # type: ignore[arg-type]
        scorer.score_pairs([("a", "b")])
    assert len(busy.requests) == 2


def test_provider_names_are_unique_and_each_offers_something() -> None:
    assert all(name == provider.name for name, provider in PROVIDERS.items())
    assert all(provider.rerank or provider.embed for provider in PROVIDERS.values())
    hosts = [host for provider in PROVIDERS.values() for host in provider.hosts]
    assert len(hosts) == len(set(hosts))
