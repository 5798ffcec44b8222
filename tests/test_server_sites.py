"""Pages of other sites: what they may send through a browser, and what they may read."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from gpurerank.errors import InputError
from gpurerank.server.options import ServerOptions
from tests.serving import DOCUMENTS, QUERY, Running, options_of, running

CHROMIUM = shutil.which("chromium")
BODY = {"query": QUERY, "documents": DOCUMENTS}
ALLOWED = "https://search.example.com"
PATHS = ("/", "/livez", "/metrics", "/playground/state", "/v1/models", "/openapi.json", "/nowhere")


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"))) as started:
        yield started


@pytest.fixture(scope="module")
def allowing(model_folder: Callable[[str], str]) -> Iterator[Running]:
    options = options_of(
        model_folder("bert"),
        allowed_origins=(ALLOWED + "/",),
        allowed_hosts=("Rerank.example.com",),
    )
    with running(options) as started:
        yield started


def passages_scored(server: Running) -> float:
    return server.sample("gpurerank_passages_total")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
def test_a_page_of_another_site_runs_no_model(server: Running, headers: dict[str, str]) -> None:
    before = passages_scored(server)
    answer = server.post("/v1/rerank", BODY, **headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "cross_site"
    assert "--allow-origin" in answer.json()["message"]
    assert passages_scored(server) == before


def test_no_page_of_another_site_reads_anything(server: Running) -> None:
    for path in PATHS:
        answer = server.client.get(path, headers={"origin": "https://evil.example"})
        assert answer.status_code == 403, path
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin", "origin": "https://proxy.example.com"},
        {"sec-fetch-site": "none"},
    ],
)
def test_programs_and_the_own_page_are_answered(server: Running, headers: dict[str, str]) -> None:
    assert server.post("/v1/rerank", BODY, **headers).status_code == 200
    same_origin = {"origin": server.url}
    assert server.post("/v1/rerank", BODY, **same_origin).status_code == 200


def test_a_link_of_another_site_opens_the_playground(server: Running) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert server.client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_host_name_that_is_rebound_reads_nothing(server: Running, host: str) -> None:
    for path in PATHS:
        answer = server.client.get(path, headers={"host": host})
        assert answer.status_code == 403, path
        assert answer.json()["error"]["code"] == "wrong_host"
    answer = server.post("/v1/rerank", BODY, host=host, origin=f"http://{host}")
    assert answer.status_code == 403
    assert "--allow-host" in answer.json()["message"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8787", "127.0.0.1", "127.8.8.8:1", "[::1]:8787", "localhost."]
)
def test_names_of_this_machine_are_answered(server: Running, host: str) -> None:
    assert server.client.get("/metrics", headers={"host": host}).status_code == 200


def test_beyond_loopback_any_host_name_is_answered_unless_some_are_allowed(
    model_folder: Callable[[str], str],
) -> None:
    folder = model_folder("bert")
    for allowed, status in (((), 200), (("a.example",), 403), (("*",), 200)):
        options = options_of(
            folder, embedders=(), host="0.0.0.0", open_to_all=True, allowed_hosts=allowed
        )
        with running(options) as server:
            for host, expected in (("b.example", status), ("a.example:8", 200), ("localhost", 200)):
                answer = server.client.get("/livez", headers={"host": host})
                assert answer.status_code == expected, (allowed, host)


def test_an_allowed_site_is_answered_and_reads(allowing: Running) -> None:
    headers = {"origin": ALLOWED, "sec-fetch-site": "cross-site"}
    answer = allowing.post("/v1/rerank", BODY, **headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert "Origin" in answer.headers["vary"]
    refused = allowing.post("/v1/rerank", {**BODY, "documents": []}, **headers)
    assert refused.status_code == 400
    assert refused.headers["access-control-allow-origin"] == ALLOWED
    assert allowing.post("/v1/rerank", BODY, origin="https://evil.example").status_code == 403
    assert allowing.client.get("/livez", headers={"host": "rerank.example.com"}).is_success


def test_the_preflight_of_an_allowed_site_alone_is_answered(allowing: Running) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }
    answer = allowing.client.options("/v1/rerank", headers={"origin": ALLOWED, **asked})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert "POST" in answer.headers["access-control-allow-methods"]
    evil = allowing.client.options(
        "/v1/rerank", headers={"origin": "https://evil.example", **asked}
    )
    assert evil.status_code == 403
    assert "access-control-allow-origin" not in evil.headers


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"allowed_origins": ("search.example.com",)}, "SCHEME://HOST"),
        ({"allowed_origins": ("https://a.example/path",)}, "SCHEME://HOST"),
        ({"allowed_hosts": ("https://a.example",)}, "give a name"),
        ({"allowed_hosts": ("",)}, "give a name"),
    ],
)
def test_what_names_no_origin_or_host_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        ServerOptions(**options).check()


@contextmanager
def other_site() -> Iterator[str]:
    """Serves an empty page, as a site that somebody visits."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>another site</title>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    try:
        yield f"http://site.example:{site.server_port}"
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is missing: apt-get install it")
    # site.example and rebound.example are names that an attacker's DNS leads to this machine.
    rules = "--host-resolver-rules=MAP site.example 127.0.0.1, MAP rebound.example 127.0.0.1"
    with sync_playwright() as playwright:
        # Chromium's own check of requests to loopback would hide what the server does.
        arguments = ["--no-sandbox", rules, "--disable-features=LocalNetworkAccessChecks"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


def fetched(page: Page, url: str, options: dict[str, Any]) -> str:
    """The status that a page's script reads, the type of an answer that it cannot, or an error."""
    script = """async ([url, options, body]) => {
        if (body) options.body = new Blob([body]);
        try {
            const answer = await fetch(url, options);
            return String(answer.status || answer.type);
        } catch (error) { return error.name; }
    }"""
    body = json.dumps(BODY) if options.get("method") == "POST" else None
    answer: str = page.evaluate(script, [url, options, body])
    return answer


def test_in_a_browser_another_site_runs_and_reads_nothing(
    server: Running, browser: Browser
) -> None:
    before = passages_scored(server)
    refused = server.sample("gpurerank_rejected_total", reason="cross_site")
    with other_site() as site:
        page = browser.new_page()
        page.goto(site)
        url = f"{server.url}/v1/rerank"
        # A Blob has no media type, so the browser sends the body without asking first.
        assert fetched(page, url, {"method": "POST", "mode": "no-cors"}) == "opaque"
        assert fetched(page, url, {"method": "POST", "mode": "cors"}) == "TypeError"
        json_type = {"content-type": "application/json"}
        asked = {"method": "POST", "mode": "cors", "headers": json_type}
        assert fetched(page, url, asked) == "TypeError"
        assert fetched(page, f"{server.url}/metrics", {}) == "TypeError"
        page.close()
    assert passages_scored(server) == before
    assert server.sample("gpurerank_rejected_total", reason="cross_site") >= refused + 4


def test_in_a_browser_a_rebound_name_reads_nothing(server: Running, browser: Browser) -> None:
    page = browser.new_page()
    rebound = server.url.replace("127.0.0.1", "rebound.example")
    page.goto(f"{rebound}/playground/state")
    assert "wrong_host" in page.content()
    assert fetched(page, f"{rebound}/metrics", {}) == "403"
    asked = {"method": "POST", "headers": {"content-type": "application/json"}}
    assert fetched(page, f"{rebound}/v1/rerank", asked) == "403"
    page.close()


def test_in_a_browser_an_allowed_site_reads_its_ranking(
    model_folder: Callable[[str], str], browser: Browser
) -> None:
    with other_site() as site:
        options = options_of(model_folder("bert"), embedders=(), allowed_origins=(site,))
        with running(options) as server:
            page = browser.new_page()
            page.goto(site)
            headers = {"content-type": "application/json", "authorization": "Bearer any"}
            asked = {"method": "POST", "headers": headers}
            assert fetched(page, f"{server.url}/v1/rerank", asked) == "200"
            page.close()


def test_what_clients_send_by_default(server: Running) -> None:
    text = json.dumps(BODY)
    as_curl = {"content-type": "application/x-www-form-urlencoded"}
    for headers in (as_curl, {}):
        answer = httpx.post(f"{server.url}/v1/rerank", content=text, headers=headers, timeout=60)
        assert answer.status_code == 415
        assert "Content-Type: application/json" in answer.json()["message"]
    assert httpx.post(f"{server.url}/v1/rerank", json=BODY, timeout=60).status_code == 200
