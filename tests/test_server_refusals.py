"""What the server does not take, and how it says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gpurerank import Reranker
from gpurerank.errors import (
    ClosedError,
    DeviceError,
    InputError,
    NotFiniteError,
    OutOfMemoryError,
)
from gpurerank.server.models import ServedModels
from gpurerank.server.options import Limits, Named, ServerOptions
from tests.serving import (
    DOCUMENTS,
    QUERY,
    Failing,
    Gate,
    Running,
    eventually,
    options_of,
    routes_of,
    running,
)
from tests.time_limits import HANG_S

KEY = "a-key-of-some-length"
LIMITS = Limits(body_bytes=4_000, passages=5, passage_chars=300, query_chars=100)
ASKED = {"query": QUERY, "documents": DOCUMENTS}
TEXTS = {"query": QUERY, "texts": DOCUMENTS}


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"), limits=LIMITS)) as found:
        yield found


@pytest.fixture(scope="module")
def locked(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"), api_key=KEY)) as found:
        yield found


def send(server: Running, content: bytes | str, path: str = "/v1/rerank") -> httpx.Response:
    return server.client.post(path, content=content, headers={"content-type": "application/json"})


def inference_paths(server: Running) -> list[str]:
    paths = server.app.openapi()["paths"]
    return [path for path, methods in paths.items() if "post" in methods]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"query": "q", "documents": ["a"], "top_n": "2"}', "top_n"),
        (b'{"query": "q", "documents": ["a"], "top_n": 2.0}', "top_n"),
        (b'{"query": "q", "documents": ["a"], "top_n": true}', "top_n"),
        (b'{"query": "q", "documents": ["a"], "top_n": -1}', "top_n"),
        (b'{"query": "q", "documents": ["a"], "top_n": NaN}', "NaN"),
        (b'{"query": "q", "documents": ["a"], "top_n": Infinity}', "Infinity"),
        (b'{"query": "q", "documents": ["a"], "top_n": 1e999}', "too large"),
        (b'{"query": "q", "query": "p", "documents": ["a"]}', "twice"),
        (b'{"query": "q", "documents": [{"text": "a", "text": "b"}]}', "twice"),
        (b'\xef\xbb\xbf{"query": "q", "documents": ["a"]}', "JSON"),
        ('{"query": "q", "documents": ["a"]}'.encode("utf-16"), "UTF-8"),
        ('{"query": "q", "documents": ["a"]}'.encode("utf-16-le"), "JSON"),
        (b'{"query": "q", "documents": ["\xff"]}', "UTF-8"),
        (b'{"query": 1, "documents": ["a"]}', "query"),
        (b'{"query": "q", "documents": "a"}', "documents"),
        (
            b'{"query": "q", "documents": ["a", null]}',
            "documents.1: Input should be a valid string;",
        ),
        (b'{"query": "q", "documents": [{"title": null}]}', "documents.0"),
        (b'{"documents": ["a"]}', "query"),
        (b'{"query": "  ", "documents": ["a"]}', "query"),
        (b"[]", "object"),
        (b"", "JSON"),
        (b'{"query": "q"', "JSON"),
        (b"[" * 3_900, "nested"),
        (b'{"query": "q", "documents": ["a"], "top_n": ' + b"9" * 3_900 + b"}", "digits"),
    ],
)
def test_a_wrong_body_is_422_and_named(server: Running, body: bytes, field: str) -> None:
    answer = send(server, body)
    assert answer.status_code == 422
    assert field in answer.json()["message"]


@pytest.mark.parametrize("path", ["/v2/rerank", "/rerank", "/embed", "/v1/embeddings", "/score"])
def test_half_of_a_surrogate_pair_is_replaced(server: Running, path: str) -> None:
    text = '"a \\ud800 b"'
    fields = ("query", "documents"), ("query", "texts"), ("text_1", "text_2")
    bodies = [f'{{"{one}": {text}, "{many}": [{text}]}}' for one, many in fields]
    bodies += [f'{{"inputs": {text}, "input": {text}}}']
    answers = [send(server, body, path) for body in bodies]
    assert {answer.status_code for answer in answers} <= {200, 422}
    assert any(answer.status_code == 200 for answer in answers)


def test_a_surrogate_scores_as_its_replacement(server: Running) -> None:
    asked = {"query": QUERY, "documents": ["a \ud800 command"], "top_n": None}
    odd = send(server, json.dumps(asked), "/v1/rerank").json()
    plain = server.post(
        "/v1/rerank", {**asked, "documents": ["a \N{REPLACEMENT CHARACTER} command"]}
    )
    assert odd["results"] == plain.json()["results"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"query": QUERY, "documents": []}),
        ("/rerank", {"query": QUERY, "texts": []}),
        ("/score", {"text_1": QUERY, "text_2": []}),
        ("/v1/embeddings", {"input": []}),
        ("/embed", {"inputs": []}),
        ("/v2/embed", {"texts": []}),
        ("/v1/rank", {"query": QUERY, "passages": []}),
    ],
)
def test_nothing_to_work_on_is_400(server: Running, path: str, body: dict[str, Any]) -> None:
    assert server.post(path, body).status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"query": QUERY, "documents": ["a"] * 6}),
        ("/v1/rerank", {"query": "q" * 101, "documents": ["a"]}),
        ("/v1/rerank", {"query": QUERY, "documents": ["a", "b" * 301]}),
        ("/rerank", {"query": QUERY, "texts": ["a"] * 6}),
        ("/score", {"queries": ["q" * 101, "q"], "documents": ["a", "b"]}),
        ("/score", {"queries": ["q"] * 6, "documents": ["a"] * 6}),
        ("/embed", {"inputs": ["a"] * 6}),
        ("/v1/embeddings", {"input": "a" * 301}),
        ("/v2/embed", {"texts": ["a" * 301]}),
        ("/v1/rank", {"query": QUERY, "passages": ["a"] * 6}),
    ],
)
def test_over_a_limit_is_413(server: Running, path: str, body: dict[str, Any]) -> None:
    answer = server.post(path, body)
    assert answer.status_code == 413
    assert "limit" in answer.json()["message"]


def test_as_many_queries_as_documents_or_one(server: Running) -> None:
    for queries in (["a", "b"], []):
        answer = server.post("/score", {"text_1": queries, "text_2": ["a", "b", "c"]})
        assert answer.status_code == 422
    assert server.post("/score", {"text_1": "a", "documents": ["b"]}).status_code == 422


def test_dimensions_of_another_length_are_refused(server: Running) -> None:
    assert server.post("/embeddings", {"input": "a", "dimensions": 7}).status_code == 422


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png"])
def test_another_media_type_is_415(server: Running, kind: str) -> None:
    headers = {"content-type": kind}
    answer = server.client.post("/v1/rerank", content=json.dumps(ASKED), headers=headers)
    assert answer.status_code == 415
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    assert server.client.post("/rerank", content=b"", headers=packed).status_code == 415


def test_a_media_type_with_charset_is_taken(server: Running) -> None:
    for kind in ("Application/JSON; charset=utf-8", "application/vnd.api+json"):
        headers = {"content-type": kind}
        answer = server.client.post("/v1/rerank", content=json.dumps(ASKED), headers=headers)
        assert answer.status_code == 200


def test_a_body_without_a_media_type_is_415_on_every_inference_path(server: Running) -> None:
    for path in inference_paths(server):
        answer = server.client.post(path, content=json.dumps(ASKED))
        assert answer.status_code == 415, path
        assert "Content-Type: application/json" in answer.json()["message"]


def test_another_path_is_404_and_another_method_405(server: Running) -> None:
    missing, wrong = server.client.post("/nowhere"), server.client.get("/v1/rerank")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert wrong.headers["allow"] == "POST"
    for answer in (missing, wrong):
        assert answer.json()["error"]["message"] == answer.json()["message"]


def test_every_client_can_read_an_error(server: Running) -> None:
    told = server.post("/v1/rerank", {"query": QUERY, "documents": []}).json()
    assert set(told) == {"error", "message", "detail", "error_type"}
    assert set(told["error"]) == {"message", "type", "code"}
    assert told["error"]["code"] == "empty"
    for path, body in (("/rerank", {**TEXTS, "texts": []}), ("/embed", {"inputs": []})):
        told = server.post(path, body).json()
        assert told["error"] == told["message"] == told["detail"]
        assert told["error_type"] == "Empty"


def test_every_inference_route_asks_for_the_key(locked: Running) -> None:
    paths = inference_paths(locked)
    assert len(paths) >= 12
    for path in [*paths, "/v1/models", "/info", "/metrics"]:
        method = "POST" if path in paths else "GET"
        for headers in ({}, {b"x-api-key": b"wrong"}, {b"authorization": b"Bearer \xc3\xa9"}):
            answer = locked.client.request(method, path, headers=headers, content=b"{")
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"


def test_no_route_of_the_app_is_forgotten(locked: Running) -> None:
    free = {"/", "/docs", "/livez", "/readyz", "/health", "/api/version"}
    checked = 0
    for route in routes_of(locked.app):
        path = route.path
        if path in free or path.startswith(("/playground", "/.well-known")):
            continue
        checked += 1
        for method in route.methods:
            assert locked.client.request(method, path).status_code == 401, path
    assert checked >= 14


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": KEY.encode()},
        {b"authorization": b"Bearer " + KEY.encode()},
        {b"authorization": b"bearer  " + KEY.encode()},
        {b"x-api-key": KEY.encode()},
        {b"x-api-key": KEY.encode(), b"authorization": b"Basic of-a-proxy"},
    ],
)
def test_the_key_is_taken_as_clients_send_it(locked: Running, headers: dict[bytes, bytes]) -> None:
    json_headers = {**headers, b"content-type": b"application/json"}
    for path in inference_paths(locked):
        answer = locked.client.post(path, content=b"{}", headers=json_headers)
        assert answer.status_code == 422, path


def failing(model: str, error: type[Exception]) -> Callable[[ServedModels], None]:
    def change(models: ServedModels) -> None:
        models.rerankers = {model: Reranker.from_scorer(Failing(error), name=model)}

    return change


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFiniteError, 424),
        (OutOfMemoryError, 413),
        (ClosedError, 503),
        (InputError, 422),
        (RuntimeError, 500),
    ],
)
def test_what_the_model_raises_has_a_status(
    model_folder: Callable[[str], str], error: type[Exception], status: int
) -> None:
    options = options_of(model_folder("bert"), embedders=())
    with running(options, failing("tiny", error)) as server:
        answer = server.post("/rerank", TEXTS)
        assert answer.status_code == status
        assert "x-request-id" in answer.headers
        assert server.sample("gpurerank_requests_total", path="/rerank", status=str(status)) == 1
        assert server.client.get("/readyz").status_code == 200


def test_a_lost_device_ends_the_server_with_a_failure(model_folder: Callable[[str], str]) -> None:
    gate = Gate()

    def change(models: ServedModels) -> None:
        failing("tiny", DeviceError)(models)
        models.rerankers["gate"] = Reranker.from_scorer(gate, name="gate")

    options = options_of(model_folder("bert"), embedders=())
    with running(options, change) as server, ThreadPoolExecutor(1) as threads:
        other = threads.submit(server.post, "/v1/rerank", {**ASKED, "model": "gate"})
        eventually(lambda: gate.calls == 1)
        assert server.post("/rerank", TEXTS).status_code == 503
        for path in ("/readyz", "/livez"):
            assert httpx.get(f"{server.url}{path}").status_code == 503
        gate.open.set()
        assert other.result(HANG_S).status_code == 200
        assert isinstance(server.ended.exception(HANG_S), DeviceError)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"host": "0.0.0.0"}, "--open-to-all"),
        ({"host": "::"}, "--open-to-all"),
        ({"host": "example.org"}, "--open-to-all"),
        ({"api_key": "short"}, "8 characters"),
        ({"api_key": "long enough"}, "blank"),
        ({"api_key": "of-some-length-é"}, "ASCII"),
        ({"port": 65_536}, "65536"),
        ({"rerankers": (), "embedders": ()}, "nothing to serve"),
        ({"rerankers": (Named("a", "x"), Named("a", "y"))}, "'a'"),
        ({"limits": Limits(drain_s=0)}, "drain_s"),
        ({"limits": Limits(queued_s=float("nan"))}, "queued_s"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        ServerOptions(**options).check()


def test_this_machine_alone_is_listened_on_unless_said_otherwise() -> None:
    assert ServerOptions().host == "127.0.0.1"
    ServerOptions().check()
    ServerOptions(host="0.0.0.0", api_key="12345678").check()
    ServerOptions(host="0.0.0.0", open_to_all=True).check()


def test_a_model_is_named_or_names_itself() -> None:
    assert Named.parse("a=b/c") == Named("a", "b/c")
    assert Named.parse("b/c") == Named("b/c", "b/c")
    for wrong in ("", "a=", " "):
        with pytest.raises(InputError, match="names no model"):
            Named.parse(wrong)
