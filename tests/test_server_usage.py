"""Usage counts what a request contains, whatever was computed before and by whom."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from transformers import AutoTokenizer

from gpurerank.server.options import Named
from tests.serving import DOCUMENTS, QUERY, Running, options_of, running

LONG = "the quick brown fox jumps over the lazy dog " * 40


@pytest.fixture(scope="module", params=[0, 1_000], ids=["uncached", "cached"])
def server(request: pytest.FixtureRequest, model_folder: Callable[[str], str]) -> Iterator[Running]:
    folder = model_folder("bert")
    both = (Named("tiny", folder), Named("blended", "embedded"))
    options = options_of(folder, rerankers=both, cached_scores=request.param, max_length=64)
    with running(options) as started:
        yield started


def usage(server: Running, path: str, body: dict[str, Any]) -> int:
    answer = server.post(path, body)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    if "usage" in content:
        tokens = content["usage"]["total_tokens"]
    else:
        meta = content["meta"]
        tokens = meta.get("tokens", meta["billed_units"])["input_tokens"]
    assert isinstance(tokens, int)
    return tokens


@pytest.fixture(scope="module")
def pair_tokens(model_folder: Callable[[str], str]) -> Callable[[str, str], int]:
    """Tokens of a pair as the tokenizer of the tiny model itself gives them."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder("bert"))
    return lambda query, passage: len(tokenizer(query, passage)["input_ids"])


@pytest.mark.parametrize("model", ["tiny", "blended"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS}),
        ("/v2/rerank", {"query": QUERY, "documents": [*DOCUMENTS, LONG]}),
        ("/v1/rank", {"query": QUERY, "passages": DOCUMENTS}),
        ("/v1/rank", {"query": QUERY, "passages": DOCUMENTS, "method": "cascade"}),
        ("/v1/score", {"text_1": QUERY, "text_2": DOCUMENTS}),
        ("/v1/score", {"text_1": DOCUMENTS, "text_2": DOCUMENTS}),
    ],
)
def test_the_same_ranking_reports_the_same_number(
    server: Running, path: str, body: dict[str, Any], model: str
) -> None:
    numbers = [usage(server, path, {**body, "model": model}) for _ in range(3)]
    assert len(set(numbers)) == 1
    assert numbers[0] > 4 * len(DOCUMENTS)


def test_a_ranking_counts_its_pairs_as_the_model_reads_them(
    server: Running, pair_tokens: Callable[[str, str], int]
) -> None:
    expected = sum(pair_tokens(QUERY, document) for document in DOCUMENTS)
    body = {"query": QUERY, "documents": DOCUMENTS, "model": "tiny"}
    assert usage(server, "/v1/rerank", body) == expected
    assert usage(server, "/v1/rerank", {**body, "top_n": 1}) == expected
    # A repeated passage counts each time, a blank one is not read.
    repeated = {**body, "documents": [*DOCUMENTS, *DOCUMENTS, " "]}
    assert usage(server, "/v1/rerank", repeated) == 2 * expected
    one = {**body, "documents": DOCUMENTS[:1]}
    assert usage(server, "/v1/rerank", one) == pair_tokens(QUERY, DOCUMENTS[0])


def test_scores_count_each_pair(server: Running, pair_tokens: Callable[[str, str], int]) -> None:
    queries = [QUERY, "the fox", QUERY, QUERY]
    expected = sum(map(pair_tokens, queries, DOCUMENTS))
    body = {"text_1": queries, "text_2": DOCUMENTS, "model": "tiny"}
    assert usage(server, "/v1/score", body) == expected


def test_a_long_passage_counts_all_its_windows(server: Running) -> None:
    body = {"query": QUERY, "documents": [LONG], "model": "tiny"}
    answer = server.post("/v1/rank", {"query": QUERY, "passages": [LONG], "model": "tiny"}).json()
    start, stop = answer["results"][0]["span"]
    windows = len(LONG) / (stop - start)
    assert usage(server, "/v1/rerank", body) > 0.8 * windows * 64


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/embeddings", "input"), ("/v2/embed", "texts"), ("/v1/embed", "texts")]
)
def test_a_text_that_was_embedded_before_counts_the_same(
    server: Running, path: str, name: str
) -> None:
    text = f"a text of its own for {path}"
    first = usage(server, path, {name: [text]})
    assert first > 6
    assert usage(server, path, {name: [text]}) == first
    assert usage(server, path, {name: [text, text, text]}) == 3 * first


def test_what_was_reported_and_what_was_run_are_counted_apart(server: Running) -> None:
    # The vectors of a model are remembered by the process, not by the server.
    body = {"input": [f"a text that nobody has sent before: {uuid.uuid4()}"]}
    reported = server.sample("gpurerank_usage_tokens_total")
    run = server.sample("gpurerank_tokens_read_total")
    tokens = usage(server, "/v1/embeddings", body)
    assert usage(server, "/v1/embeddings", body) == tokens
    assert server.sample("gpurerank_usage_tokens_total") == reported + 2 * tokens
    assert server.sample("gpurerank_tokens_read_total") == run + tokens
