"""Servers that are busy, broken, slow or lying: what is tried again, what is raised, what shows."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

import pytest

from gpurerank import (
    DeadlineError,
    InputError,
    NotFiniteError,
    OverloadedError,
    RemoteError,
    RemoteScorer,
    Reranker,
    Retry,
    calling,
)
from gpurerank.remote.http_client import MAX_RESPONSE_BYTES
from gpurerank.remote.http_errors import error_message, redact
from gpurerank.remote.retry import Clock, retry_after_s
from gpurerank.remote.session import RemoteOptions
from tests.fake_server import (
    Answer,
    Asked,
    FakeServer,
    Reply,
    overlap_scores,
    rerank_always,
    serving,
    speaking,
)
from tests.time_limits import HANG_S
from tests.tiny_models import PASSAGES

QUERY = "compares two files"
PAIRS = [(QUERY, passage) for passage in PASSAGES]
EXPECTED = overlap_scores(QUERY, PASSAGES)
KEY = "sk-a-key-that-nobody-may-see-0123456789"
NOW = 1_700_000_000.0


class FakeClock(Clock):
    """Records delays instead of waiting."""

    def __init__(self, jitter: float = 0.0) -> None:
        self.delays: list[float] = []
        self._jitter = jitter

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)

    def now(self) -> float:
        return NOW

    def jitter(self) -> float:
        return self._jitter


@pytest.fixture(autouse=True)
def _models_are_freed() -> None:
    """In place of conftest's: nothing here loads a model."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def in_turn(*replies: Reply) -> Answer:
    """These answers one after the other, then those of a server that works."""
    waiting = list(replies)
    return lambda asked: waiting.pop(0) if waiting else speaking("cohere")(asked)


def ask(
    server: FakeServer, *, pairs: Sequence[tuple[str, str]] = PAIRS, **options: Any
) -> list[float]:
    remote_options = RemoteOptions(base_url=server.url, **{"api": "cohere", **options})
    with RemoteScorer.from_options(remote_options) as scorer:
        return scorer.score_pairs(pairs)


BUSY = Reply({"message": "too many requests"}, 429)


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (formatdate(NOW + 7, usegmt=True), 7.0),
        (formatdate(NOW - 7, usegmt=True), 0.0),
        ("30", 30.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(header: str, pause: float, status: int, clock: FakeClock) -> None:
    busy = Reply({"message": "busy"}, status, {"Retry-After": header})
    with serving(in_turn(busy)) as server:
        assert ask(server, clock=clock) == EXPECTED
    assert clock.delays == [pytest.approx(pause)]


def test_jitter_comes_after_the_time_that_was_asked_for() -> None:
    error = OverloadedError("busy", retry_after_s=2.0, transient=True)
    delays = [Retry().delay_s(error, 1, jitter) for jitter in (0.0, 1.0)]
    assert delays == [2.0, pytest.approx(2.2)]


def test_without_retry_after_delays_grow() -> None:
    clock = FakeClock(jitter=1.0)
    with serving(in_turn(BUSY, BUSY, BUSY)) as server:
        assert ask(server, clock=clock) == EXPECTED
    assert clock.delays == [0.25, 0.5, 1.0]
    error = RemoteError("gone", transient=True)
    assert Retry(attempts=99).delay_s(error, 50, 1.0) == 30.0
    assert Retry().delay_s(error, 1, 0.0) == 0.125


def test_a_server_that_asks_for_too_long_is_not_asked_again(clock: FakeClock) -> None:
    with serving(lambda _: Reply({}, 429, {"Retry-After": "31"})) as server:
        with pytest.raises(OverloadedError, match="it asks to wait 31 s") as caught:
            ask(server, clock=clock)
        assert len(server.asked) == 1
    assert (caught.value.status, caught.value.retry_after_s) == (429, 31.0)
    assert clock.delays == []


def test_a_pause_beyond_the_deadline_is_not_begun(clock: FakeClock) -> None:
    with serving(lambda _: Reply({}, 429, {"Retry-After": "20"})) as server:
        with pytest.raises(OverloadedError):
            ask(server, clock=clock, timeout_s=10)
    assert clock.delays == []


def test_a_storm_of_429_is_bounded(clock: FakeClock) -> None:
    with serving(lambda _: BUSY) as server:
        limits = {"texts_per_request": 1, "concurrency": 3, "retry": Retry(attempts=4)}
        with pytest.raises(OverloadedError, match="429: too many requests; lower concurrency"):
            ask(server, pairs=PAIRS * 25, clock=clock, **limits)
        # Four attempts of one request, and those that were in flight at the same time.
        assert 4 <= len(server.asked) <= 12


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 424, 500, 504])
def test_what_will_not_mend_is_asked_once(status: int, clock: FakeClock) -> None:
    with serving(lambda _: Reply({"error": "no"}, status)) as server:
        with pytest.raises(RemoteError, match=f"answered {status}: no") as caught:
            ask(server, clock=clock)
        assert len(server.asked) == 1
    assert caught.value.status == status
    assert not caught.value.transient


def test_a_broken_answer_is_asked_for_again(clock: FakeClock) -> None:
    with serving(in_turn(Reply({"results": []}, missing=100), Reply({}, 502))) as server:
        assert ask(server, clock=clock) == EXPECTED
    assert len(clock.delays) == 2


def test_a_server_that_always_breaks_off_is_named(clock: FakeClock) -> None:
    with serving(lambda _: Reply({"results": []}, missing=100)) as server:
        with pytest.raises(
            RemoteError, match="cannot be reached or closed the connection"
        ) as caught:
            ask(server, clock=clock, retry=Retry(attempts=2))
        assert len(server.asked) == 2
    assert caught.value.status is None


def test_a_server_that_is_not_there_is_named(clock: FakeClock) -> None:
    with serving(speaking("cohere")) as server:
        pass
    with pytest.raises(RemoteError, match="is the server running, and is base_url right"):
        ask(server, clock=clock, retry=Retry(attempts=3))
    assert len(clock.delays) == 2


@pytest.mark.parametrize("header", ["soon", "nan", "-3", "", "Wed, 99 Nov", "1e999", None])
def test_odd_retry_after_is_no_trap(header: str | None) -> None:
    found = retry_after_s(header, NOW)
    assert found is None or found == 0.0 or found == float("inf")


def silent(_: Asked) -> Reply:
    return Reply(silent=True)


def test_the_deadline_ends_a_call_and_its_request() -> None:
    with serving(speaking("cohere")) as server, RemoteScorer(server.url, api="cohere") as scorer:
        assert scorer.score_pairs(PAIRS) == EXPECTED
        server.answer = silent
        started = time.monotonic()
        with pytest.raises(DeadlineError, match="the deadline passed before the server answered"):
            with calling(timeout_s=0.3):
                scorer.score_pairs(PAIRS)
        assert time.monotonic() - started < 30, "that of a request is 60 s"
        assert server.left.wait(HANG_S)


def test_the_deadline_holds_for_those_that_wait_their_turn() -> None:
    with serving(silent) as server:
        with RemoteScorer(server.url, api="cohere", concurrency=1) as scorer:

            async def two() -> None:
                first = asyncio.create_task(scorer.ascore_pairs(PAIRS))
                await asyncio.to_thread(server.arrived.wait, HANG_S)
                with calling(timeout_s=0.1), pytest.raises(DeadlineError):
                    await scorer.ascore_pairs(PAIRS)
                first.cancel()

            asyncio.run(two())
        assert len(server.asked) == 1


def test_a_request_has_its_own_limit(clock: FakeClock) -> None:
    with serving(silent) as server:
        with pytest.raises(RemoteError, match=r"did not answer within 0\.2 s"):
            ask(server, request_timeout_s=0.2, clock=clock)
        assert len(server.asked) == 1
        assert server.left.wait(HANG_S)


def test_a_failure_keeps_the_order_where_that_is_asked_for(clock: FakeClock) -> None:
    with serving(lambda _: Reply({"error": "no"}, 500)) as server:
        reranker = Reranker(base_url=server.url, on_error="keep_order")
        kept = reranker.rank(QUERY, PASSAGES)
        reranker.close()
    assert [passage.index for passage in kept] == [0, 1, 2, 3]
    assert kept[0].error is not None
    assert kept[0].error.startswith("RemoteError: http://127.0.0.1")


def rows(*scores: Any) -> dict[str, Any]:
    return {"results": [{"index": i, "relevance_score": s} for i, s in enumerate(scores)]}


GOOD = [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (rows(*GOOD[:3]), RemoteError, "answered 3 of 4 texts; text 3 is missing"),
        (rows(*GOOD, 0.5), RemoteError, "answered the index 4, with 4 texts sent"),
        ({"results": rows(*GOOD)["results"][:3] * 2}, RemoteError, "answered text 0 of 4 twice"),
        ({"results": [{"relevance_score": 0.5}] * 4}, RemoteError, "answered the index NoneType"),
        ({"results": [{"index": "a passage", "score": 0.5}]}, RemoteError, "the index str, with"),
        ({"results": [{"index": -1, "score": 0.5}] * 4}, RemoteError, "answered the index -1"),
        ({"results": [{"index": True, "score": 0.5}]}, RemoteError, "answered the index True"),
        ({"results": [0.5] * 4}, RemoteError, "answered the index NoneType"),
        (
            rows(float("nan"), 0, 0, 0),
            NotFiniteError,
            "NaN or infinity for text 0",
        ),
        (
            rows(0, float("inf"), 0, 0),
            NotFiniteError,
            "NaN or infinity for text 1",
        ),
        (rows(0, 0, None, 0), NotFiniteError, "answered no score for text 2"),
        (rows(0, 0, 0, "0.5"), RemoteError, "answered str, not a score, for text 3"),
        (rows(0, 0, 0, True), RemoteError, "answered bool, not a score, for text 3"),
        (rows(0, 7.25, 0, 0), RemoteError, r"answered 7\.25 for text 1.*logits=True"),
        (rows(0, -0.001, 0, 0), RemoteError, r"answered -0\.001 for text 1"),
        (rows(0, 10**400, 0, 0), NotFiniteError, "NaN or infinity for text 1"),
        ({"scores": GOOD}, RemoteError, "answered dict with scores and no list of results.*api="),
        ({"a passage": 0.5}, RemoteError, "answered dict and no list of results"),
        ("text", RemoteError, "answered str and no list"),
        (None, RemoteError, "answered NoneType and no list"),
        (b"", RemoteError, "answered 0 bytes, which is not JSON"),
        (b"\xff\xfe\x00", RemoteError, "which is not JSON"),
        (b"[" * 100_000, RemoteError, "which is not JSON"),
        (b"<html>sign in</html>", RemoteError, "a page of HTML, which is not JSON"),
    ],
)
def test_malformed_answers_are_named(
    body: Any, kind: type[Exception], said: str, clock: FakeClock
) -> None:
    with serving(rerank_always(Reply(body))) as server:
        with pytest.raises(kind, match=said):
            ask(server, api="auto", clock=clock)
    assert clock.delays == []


def test_rounding_beyond_the_range_is_mended() -> None:
    with serving(rerank_always(Reply(rows(1.0000001, -1e-9, 1, 0)))) as server:
        assert ask(server, api="auto") == [1.0, 0.0, 1.0, 0.0]


def test_an_answer_has_a_size_limit() -> None:
    # 64 spaces in a compressed stream would be small; plain ones are counted as they come.
    with serving(rerank_always(Reply(b" " * (MAX_RESPONSE_BYTES + 1)))) as server:
        with pytest.raises(RemoteError, match="more than 64 MiB; lower texts_per_request"):
            ask(server, api="auto")


def test_an_encoding_that_was_not_asked_for_is_refused() -> None:
    reply = Reply(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    with serving(rerank_always(reply)) as server:
        with pytest.raises(RemoteError, match="in the encoding 'gzip'"):
            ask(server, api="auto")
        assert server.posts()[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "busy", "type": "x", "code": 1}}', "busy"),
        (b'{"error": "batch size 9 > 4", "error_type": "Validation"}', "batch size 9 > 4"),
        (b'{"message": "invalid api token"}', "invalid api token"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (
            b'{"detail": [{"loc": ["body", "query"], "msg": "Field required", "input": "secret"}]}',
            "body.query: Field required",
        ),
        (b'{"object": "error", "message": "no such model", "code": 404}', "no such model"),
        (b'{"error": null, "message": "", "detail": "a"}', "a"),
        (b"upstream connect error\n or  disconnect", "upstream connect error or disconnect"),
        (b"<html><body>502</body></html>", "a page of HTML; is there a proxy"),
        (b'{"other": 1}', ""),
        (b"", ""),
        (b"[1, 2]", ""),
    ],
)
def test_error_bodies_of_every_shape_are_read(body: bytes, said: str) -> None:
    assert error_message(body).startswith(said)
    assert bool(error_message(body)) == bool(said)


PASSAGE = "The patient was admitted on 4 May with acute pain, and discharged after two days."


@pytest.mark.parametrize(
    "echo",
    [
        PASSAGE,
        f"too long: {PASSAGE!r}",
        f"input {PASSAGE[10:60]}… exceeds 512 tokens",
        f"query {QUERY!r} is odd, key {KEY}",
        PASSAGE[:40] + "\n" + PASSAGE[40:],
    ],
)
def test_no_text_and_no_key_shows_in_an_error(echo: str, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(lambda _: Reply({"error": {"message": echo}}, 400)) as server:
        with pytest.raises(RemoteError) as caught:
            with RemoteScorer(server.url, api="cohere", api_key=KEY) as scorer:
                scorer.score_pairs([(QUERY, PASSAGE)])
    told = str(caught.value) + caplog.text
    for secret in (KEY, QUERY, "patient was admitted", "acute pain", "discharged after"):
        assert secret not in told
    assert "answered 400" in str(caught.value)
    assert caplog.records


def test_what_is_not_quoted_is_kept() -> None:
    message = "inputs must have less than 512 tokens. Given: 700"
    assert redact(message, [PASSAGE, "tokens", "a"]) == message.replace("tokens", "…")
    assert redact("x" * 1000, []) == "x" * 299 + "…"


def test_the_key_shows_nowhere() -> None:
    scorer = RemoteScorer("https://gpu", api_key=KEY, model="m")
    reranker = Reranker(base_url="https://gpu", api_key=KEY)
    shown = repr(scorer) + repr(scorer._session.options) + repr(reranker.options) + repr(reranker)
    assert KEY not in shown
    assert repr(scorer) == "RemoteScorer('https://gpu', model='m', api='auto')"


def test_a_refused_key_is_named() -> None:
    with serving(lambda _: Reply({"error": {"message": "no such key"}}, 401)) as server:
        with pytest.raises(RemoteError, match="answered 401: no such key; check api_key"):
            ask(server, api="auto", api_key=KEY)
        assert server.gets() == ["/info"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with serving(speaking("cohere")) as other:
        location = {"Location": f"{other.url}/v2/rerank?token=1"}
        with serving(lambda _: Reply({}, status, location)) as server:
            with pytest.raises(RemoteError, match=f"redirects to {other.url}, and") as caught:
                ask(server, api_key=KEY)
        assert other.asked == []
    assert "token" not in str(caught.value)


def test_a_server_that_does_not_say_what_it_is_is_named() -> None:
    with serving(speaking("cohere")) as server:
        with pytest.raises(RemoteError, match="does not say which API it speaks"):
            ask(server, api="auto")


def test_errors_are_pickled_with_what_they_know() -> None:
    error = OverloadedError("busy", status=429, retry_after_s=2.0, transient=True)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin)) == (OverloadedError, "busy")
    assert (twin.status, twin.retry_after_s, twin.transient) == (429, 2.0, True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retry(attempts=0), "attempts is 0"),
        (lambda: Retry(longest_pause_s=float("nan")), "longest_pause_s is nan"),
    ],
)
def test_wrong_retry_options_are_named(make: Callable[[], Retry], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
