"""What a hostile body can cost: it is counted before it is parsed, and parsed in short steps."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from gpurerank.server.body_scan import BodyScan, Bounds
from gpurerank.server.catalog import APIS
from gpurerank.server.json_body import parse_object
from gpurerank.server.options import Limits
from gpurerank.server.refusal import Refusal
from tests.serving import DOCUMENTS, QUERY, Running, eventually, options_of, running

BODY_BYTES = 8 << 20


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    limits = Limits(body_bytes=BODY_BYTES, body_s=600)
    with running(options_of(model_folder("bert"), limits=limits)) as started:
        yield started


def post(server: Running, body: bytes, path: str = "/v1/rerank") -> httpx.Response:
    headers = {"content-type": "application/json"}
    return server.client.post(path, content=body, headers=headers)


def scan(body: bytes, bounds: Bounds, chunk_bytes: int) -> str:
    """The refusal of a body that arrives in chunks, or an empty text."""
    scanner = BodyScan(bounds)
    try:
        for start in range(0, len(body), chunk_bytes):
            scanner.feed(body[start : start + chunk_bytes])
    except Refusal as refusal:
        return refusal.message
    return ""


def count(value: Any) -> tuple[int, int, int]:
    """Values and names, containers, and depth of a value, as the scan should count them."""
    if not isinstance(value, dict | list):
        return 0, 0, 0
    items = list(value.values()) if isinstance(value, dict) else value
    names = len(items) if isinstance(value, dict) else 0
    inner = [count(item) for item in items]
    return (
        1 + names + max(0, len(items) - 1) + sum(values for values, *_ in inner),
        1 + sum(containers for _, containers, _ in inner),
        1 + max((depth for *_, depth in inner), default=0),
    )


def made_up(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(8 if depth < 4 else 4)
    if kind < 4:
        letters = ['"', "\\", "[", "]", "{", "}", ",", ":", "a", "é", "😀", "\n"]
        return "".join(chance.choices(letters, k=chance.randrange(9)))
    items = [made_up(chance, depth + 1) for _ in range(chance.randrange(5))]
    return items if kind < 6 else {f'{i}"\\': item for i, item in enumerate(items)}


@pytest.mark.parametrize("chunk_bytes", [1, 2, 7, 1 << 16])
def test_the_scan_counts_what_the_parser_builds(chunk_bytes: int) -> None:
    chance = random.Random(7)
    for _ in range(60):
        value = {"x": made_up(chance)}
        body = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode()
        values, containers, depth = count(value)
        assert scan(body, Bounds(values, containers, depth), chunk_bytes) == ""
        assert "values and names" in scan(body, Bounds(values=values - 1), chunk_bytes)
        assert "arrays and objects" in scan(body, Bounds(containers=containers - 1), chunk_bytes)
        assert "nested" in scan(body, Bounds(depth=depth - 1), chunk_bytes)


@pytest.mark.parametrize("chunk_bytes", [3, 1 << 16])
def test_a_string_is_bounded_by_its_bytes(chunk_bytes: int) -> None:
    body = b'{"a": "' + b"x" * 200_000 + b'", "b": "' + b"x" * 200_000 + b'"}'
    assert scan(body, Bounds(string_bytes=200_000), chunk_bytes) == ""
    assert "a string" in scan(body, Bounds(string_bytes=100_000), chunk_bytes)


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/v1/rerank", b'{"query":"a","documents":[' + b"1," * 1_000_000 + b"1]}", 413, "values"),
        ("/rerank", b'{"query":"a","texts":[' + b"1," * 1_000_000 + b"1]}", 413, "values"),
        (
            "/v1/rerank",
            b'{"query":"a","documents":["b"],"x":[' + b"[]," * 300_000 + b"[]]}",
            413,
            "arrays and objects",
        ),
        (
            "/v1/rerank",
            b'{"query":"a","documents":["b"],"x":[' + b"{}," * 300_000 + b"{}]}",
            413,
            "arrays and objects",
        ),
        ("/v1/rerank", b'{"x":' + b"[" * 1_000_000, 422, "nested"),
        ("/v1/rerank", b'"' * 2_000_000, 413, "values"),
        (
            "/v1/rerank",
            b'{"query":"a","documents":[' + b'"",' * 20_000 + b'""]}',
            413,
            "documents: 20,001 are over the limit of 10,000",
        ),
    ],
)
def test_a_body_of_too_many_values_is_refused(
    server: Running, path: str, body: bytes, status: int, reason: str
) -> None:
    answer = post(server, body, path)
    assert answer.status_code == status
    assert reason in answer.json()["message"]
    assert server.service.bodies.memory.held_bytes == 0


def test_the_server_answers_others_while_it_refuses_wrong_documents(server: Running) -> None:
    # Under every bound: the list is too long, and each of its items is wrong.
    body = b'{"query":"a","documents":[' + b"1," * 450_000 + b"1]}"
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(post(server, body)))
    slowest_s = 0.0
    thread.start()
    with httpx.Client(base_url=server.url, timeout=60) as other:
        while thread.is_alive():
            started = time.perf_counter()
            assert other.get("/livez").status_code == 200
            slowest_s = max(slowest_s, time.perf_counter() - started)
    thread.join()
    assert answers[0].status_code == 413
    # It was 10 s, and is 0.03 s where nothing else runs.
    assert slowest_s < 5.0


def test_every_list_of_every_schema_stops_at_its_first_error() -> None:
    schemas = {endpoint.request for api in APIS for endpoint in api.endpoints}
    assert len(schemas) >= 7
    for schema in schemas:
        for name in schema.model_fields:
            with pytest.raises(ValidationError) as error:
                schema.model_validate({name: [object()] * 5_000})
            assert error.value.error_count() < 40, (schema, name)


def test_errors_are_few_and_name_their_place(server: Running) -> None:
    message = post(server, b'{"query":1,"documents":["a",2,3,4],"top_n":"x"}').json()["message"]
    assert message.split("; ") == [
        "query: Input should be a valid string",
        "query: Input should be a valid dictionary",
        "documents.1: Input should be a valid string",
    ]


@pytest.mark.parametrize("text", ["é" * 700_001, "😀" * 350_001, "a" + "中" * 800_000])
def test_large_bodies_are_decoded_across_the_parts_they_are_decoded_in(text: str) -> None:
    body = bytearray(json.dumps({"a": text}, ensure_ascii=False).encode())
    assert parse_object(body) == {"a": text}
    assert not body


def test_a_large_body_is_answered_like_a_small_one(server: Running) -> None:
    padding = {"user": "x" * 100_000}
    small = {"query": QUERY, "documents": DOCUMENTS}
    first = server.post("/v1/rerank", small)
    second = server.post("/v1/rerank", {**padding, **small})
    assert first.status_code == second.status_code == 200
    assert first.json()["results"] == second.json()["results"]


def test_slow_uploads_hold_no_more_than_four_bodies(server: Running) -> None:
    part = b'{"query":"a","documents":["' + b"x" * (BODY_BYTES - 2_000)
    memory = server.service.bodies.memory
    with ExitStack() as stack:
        # One after another: each is held a few bytes short.
        for count in range(1, 5):
            upload = stack.enter_context(server.connect())
            threading.Thread(target=begin_upload, args=(upload, part), daemon=True).start()
            eventually(lambda count=count: memory.held_bytes == count * len(part))
        # A body of a usual size is not refused because of them; a large one is, at once.
        answer = server.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS})
        assert answer.status_code == 200
        refused = post(server, part + b'"]}')
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        eventually(lambda: memory.held_bytes == 4 * len(part))
    eventually(lambda: memory.held_bytes == 0)


def begin_upload(connection: socket.socket, part: bytes) -> None:
    head = (
        "POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {BODY_BYTES - 1}\r\n\r\n"
    )
    try:
        connection.sendall(head.encode() + part)
    except OSError:
        # The server refused it.
        pass
