"""Bodies that a server should not be sent: seeded, so that what fails fails again.

``python -m tests.fuzzing 10000`` sends so many to a server of its own and counts the answers.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpurerank.server.options import Limits
from tests.serving import DOCUMENTS, QUERY, Running, options_of, running
from tests.time_limits import HANG_S
from tests.tiny_models import build_classifier

LIMITS = Limits(passages=50, passage_chars=5_000, query_chars=1_000, body_bytes=100_000)
# What a body may be answered with; 401, 408 and 429 have tests of their own.
EXPECTED = {200, 400, 404, 413, 415, 422}
VALID: list[tuple[str, dict[str, Any]]] = [
    ("/v2/rerank", {"model": "m", "query": QUERY, "documents": DOCUMENTS, "top_n": 2}),
    ("/v1/rerank", {"query": QUERY, "documents": [{"text": "a"}, "b"], "return_documents": True}),
    ("/rerank", {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, "truncate": True}),
    ("/score", {"text_1": QUERY, "text_2": DOCUMENTS}),
    ("/v1/score", {"queries": ["a", "b"], "documents": ["c", "d"]}),
    ("/v1/rank", {"query": QUERY, "passages": DOCUMENTS, "method": "cascade", "threshold": 0.1}),
    ("/v1/embeddings", {"input": DOCUMENTS[:2], "encoding_format": "base64", "dimensions": 384}),
    ("/embed", {"inputs": "a text", "normalize": True, "prompt_name": "query"}),
    ("/v2/embed", {"texts": ["a"], "input_type": "search_query", "embedding_types": ["float"]}),
]
ODD: list[Any] = [
    None, True, False, 0, -1, 2, 10**18, 10**30, 0.0, -0.0, 1e308, 5e-324, 2.5, "", " ", "\x00",
    "\ud800", "\udfff\ud800", "\U0001f600" * 40, "a" * 6_000, "word " * 900, "[SEP] [CLS] [MASK]",
    [], {}, [[]], [None], [""], ["a", 1], {"text": "a"}, {"text": None}, ["a"] * 60,
    float("nan"), float("inf"), -float("inf"),
]  # fmt: skip


def bodies(seed: int) -> Iterator[tuple[str, bytes, str]]:
    """Path, body and media type, without end."""
    rng = random.Random(seed)
    while True:
        path, valid = rng.choice(VALID)
        kind = "application/json" if rng.random() < 0.97 else rng.choice(["text/plain", "", "x"])
        yield path, _body(rng, json.loads(json.dumps(valid))), kind


def _body(rng: random.Random, valid: dict[str, Any]) -> bytes:
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            _change(rng, valid)
        return json.dumps(valid, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    whole = json.dumps(valid).encode()
    return rng.choice([_cut, _flipped, _noise, _deep, _twice, _number, _coded])(rng, whole)


def _change(rng: random.Random, valid: dict[str, Any]) -> None:
    """Puts something odd in the place of a field, of an item of a list, or beside them."""
    name = rng.choice(list(valid) or ["query"])
    match rng.randrange(4):
        case 0:
            valid.pop(name, None)
        case 1:
            valid[f"unknown{rng.randrange(9)}"] = rng.choice(ODD)
        case 2 if isinstance(valid.get(name), list) and valid[name]:
            items = valid[name] = list(valid[name])
            items[rng.randrange(len(items))] = rng.choice(ODD)
        case _:
            valid[name] = rng.choice(ODD)


def _cut(rng: random.Random, whole: bytes) -> bytes:
    return whole[: rng.randrange(len(whole))]


def _flipped(rng: random.Random, whole: bytes) -> bytes:
    changed = bytearray(whole)
    for _ in range(rng.randint(1, 5)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _noise(rng: random.Random, whole: bytes) -> bytes:
    return rng.randbytes(rng.randrange(400))


def _deep(rng: random.Random, whole: bytes) -> bytes:
    opened, closed = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    depth = rng.choice([50, 900, 5_000, 15_000])
    nested = opened * depth + b"1" + (closed * depth if rng.random() < 0.7 else b"")
    return nested if rng.random() < 0.5 else whole[:-1] + b', "deep": ' + nested + b"}"


def _twice(rng: random.Random, whole: bytes) -> bytes:
    name = rng.choice(list(json.loads(whole)))
    return whole[:-1] + f', "{name}": {json.dumps(rng.choice(ODD))}}}'.encode()


def _number(rng: random.Random, whole: bytes) -> bytes:
    number = rng.choice(
        [b"1e999", b"-1e999", b"9" * 5_000, b"0." + b"3" * 5_000, b"01", b"+1", b"1.", b".5",
         b"0x1", b"NaN", b"-Infinity", b"1e-9999", b"1E400", b"-", b"9223372036854775808"]
    )  # fmt: skip
    return whole[:-1] + b', "top_n": ' + number + b"}"


def _coded(rng: random.Random, whole: bytes) -> bytes:
    text = whole.decode()
    return rng.choice(
        [b"\xef\xbb\xbf" + whole, text.encode("utf-16"), text.encode("utf-32-le"),
         b"[" + whole + b"]", b" \n\t" + whole + b"\r\n", whole * 2, b'"' + whole,
         b"\x00" + whole, b"null", b"7", b""]
    )  # fmt: skip


def send(server: Running, found: Iterator[tuple[str, bytes, str]], count: int) -> Counter[int]:
    """Sends so many over one kept connection; how often each status came.

    Raises:
        AssertionError: An answer is not one of those expected, or no JSON.
    """
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=HANG_S)
    statuses: Counter[int] = Counter()
    for _ in range(count):
        path, body, kind = next(found)
        connection.request("POST", path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        statuses[answer.status] += 1
        assert answer.status in EXPECTED, (answer.status, path, body[:500], told)
        assert answer.status == 200 or told["message"] == told["detail"]
    connection.close()
    return statuses


def beside(server: Running, stop: threading.Event) -> int:
    """Asks what is right until told to stop; how often.

    Raises:
        AssertionError: An answer differs from the first.
    """
    body = {"query": QUERY, "documents": DOCUMENTS}
    first = server.post("/v1/rerank", body).json()["results"]
    asked = 0
    while not stop.wait(0.05):
        found = server.post("/v1/rerank", body).json()["results"]
        assert [each["index"] for each in found] == [each["index"] for each in first]
        differences = [
            abs(a["relevance_score"] - b["relevance_score"])
            for a, b in zip(found, first, strict=True)
        ]
        assert max(differences) < 1e-5, differences
        asked += 1
    return asked


def main(count: int) -> None:
    """Sends so many to a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        build_classifier(Path(folder), "bert")
        with running(options_of(folder, limits=LIMITS)) as server:
            print(send(server, bodies(1), count))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
