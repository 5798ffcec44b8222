"""The remote scorer and embedder against this package's own server: the same as in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from langchain_core.documents import Document

from gpurerank import BiEncoder, RemoteEmbedder, RemoteScorer, Reranker
from langchain_gpurerank import GPURerank
from tests.serving import options_of, running

KEY = "a-key-of-the-test"
QUERY = "how do I compare two files?"
PASSAGES = [f"passage {n} about {t}" for n, t in enumerate(("files", "bread", "diffs", "bees") * 6)]


@pytest.fixture(scope="module")
def base_url(tiny: str) -> Iterator[str]:
    with running(options_of(tiny, api_key=KEY)) as server:
        yield server.url


def test_a_server_scores_as_a_model_in_this_process(base_url: str, tiny: str) -> None:
    pairs = [(f"{QUERY} {n % 3}", passage) for n, passage in enumerate(PASSAGES)]
    with Reranker(tiny, dtype="float32") as local:
        wanted = local.score_pairs(pairs)
        ranked = local.rank(QUERY, PASSAGES, top_k=5)
    scorer = RemoteScorer(base_url, api_key=KEY)
    np.testing.assert_allclose(scorer.score_pairs(pairs), wanted, rtol=0, atol=1e-5)
    scorer.close()
    with Reranker(base_url=base_url, api_key=KEY) as remote:
        found = remote.rank(QUERY, PASSAGES, top_k=5)
        assert [p.index for p in found] == [p.index for p in ranked]
        assert [p.logit for p in found] == pytest.approx([p.logit for p in ranked], abs=1e-4)
        assert asyncio.run(remote.arank(QUERY, PASSAGES, top_k=5)) == found
        assert remote.model_name == "tiny"


def test_a_plugin_takes_the_server_with_one_line(base_url: str, tiny: str) -> None:
    documents = [Document(passage) for passage in PASSAGES]
    found = GPURerank(base_url=base_url, api_key=KEY, top_n=3).compress_documents(documents, QUERY)
    wanted = GPURerank(model=tiny, dtype="float32", top_n=3).compress_documents(documents, QUERY)
    assert [d.page_content for d in found] == [d.page_content for d in wanted]


def test_a_server_embeds_as_a_model_in_this_process(base_url: str, bi_encoder: BiEncoder) -> None:
    embedder = RemoteEmbedder(base_url, api_key=KEY)
    np.testing.assert_allclose(
        embedder.embed_passages(PASSAGES), bi_encoder.embed_passages(PASSAGES), rtol=0, atol=1e-3
    )
    np.testing.assert_allclose(
        embedder.embed_queries([QUERY]), bi_encoder.embed_queries([QUERY]), rtol=0, atol=1e-3
    )
    embedder.close()
