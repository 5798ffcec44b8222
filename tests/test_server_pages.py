"""Pages and probes over plain HTTP: methods, caching, redirects, and what needs the key."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.serving import DOCUMENTS, QUERY, Running, options_of, running
from tests.time_limits import HANG_S

KEY = "a-key-of-some-length"
BEARER = {"Authorization": f"Bearer {KEY}"}
FILES = ["/", "/playground/page/page.css", "/playground/page/page.js", "/playground/page/api.css"]
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def locked(tiny: str) -> Iterator[Running]:
    with running(options_of(tiny, api_key=KEY)) as found:
        yield found


def test_no_model_is_named_without_the_key(locked: Running) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS}
    assert locked.post("/v1/rerank", body, **BEARER).status_code == 200
    for path in ("/", "/docs", "/openapi.json", "/livez", "/readyz", "/health", "/metrics"):
        answer = locked.client.get(path)
        assert answer.status_code == (401 if path == "/metrics" else 200), path
        assert not re.search(r"\b(tiny|mini)\b", answer.text), path
    metrics = locked.client.get("/metrics", headers=BEARER)
    assert 'model="tiny"' in metrics.text
    ages = locked.client.get("/livez", headers=BEARER).json()["heartbeat_age_s"]
    assert ages == {"tiny (cross-encoder)": 0.0, "mini (bi-encoder)": 0.0}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/docs", *FILES])
def test_head_is_get_without_a_body(locked: Running, path: str) -> None:
    head, get = locked.client.head(path), locked.client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    names = ("content-type", "content-length", "etag", "content-security-policy")
    assert [head.headers.get(name) for name in names] == [get.headers.get(name) for name in names]


@pytest.mark.parametrize("path", FILES)
def test_a_file_that_the_browser_has_is_not_sent_again(locked: Running, path: str) -> None:
    first = locked.client.get(path)
    assert first.headers["content-type"].startswith("text/")
    again = locked.client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = locked.client.get(path, headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.content) == (200, first.content)


@pytest.mark.parametrize("name", ["none.js", "..%2frun.py", "%2e%2e/run.py", ""])
def test_a_file_outside_the_page_is_404(locked: Running, name: str) -> None:
    answer = locked.client.get(f"/playground/page/{name}", follow_redirects=True)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "no_such_path"


@pytest.mark.parametrize("path", ["/v1/rerank/", "/rerank/", "/v1/rerank//"])
def test_a_trailing_slash_is_no_other_path(locked: Running, path: str) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS}
    answer = locked.post(path, body, **BEARER)
    assert answer.status_code == 200
    assert answer.json()["results"] == locked.post("/v1/rerank", body, **BEARER).json()["results"]
    assert locked.post(path, body).status_code == 401


@pytest.mark.parametrize(
    ("path", "end"),
    [("/docs/", "/docs"), ("/docs//?a=b", "/docs?a=b"), ("/livez/", "/livez")],
)
def test_a_redirect_takes_no_host_from_the_request(locked: Running, path: str, end: str) -> None:
    answer = locked.client.get(path, headers={"Host": "localhost:9"})
    assert answer.status_code == 307
    assert "//" not in answer.headers["location"]
    followed = httpx.get(f"{locked.url}{path}", follow_redirects=True, timeout=HANG_S)
    assert followed.status_code == 200
    assert str(followed.url) == f"{locked.url}{end}"


def test_the_api_page_describes_every_operation_and_object(locked: Running) -> None:
    page, schema = locked.client.get("/docs").text, locked.client.get("/openapi.json").json()
    anchors = set(re.findall(r'id="([^"]+)"', page))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= anchors
    for path in schema["paths"]:
        assert f"</b> {path}</code>" in page
    assert set(schema["components"]["schemas"]) <= anchors


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install it")
def test_the_api_page_needs_no_other_host_and_no_script(locked: Running) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(HANG_S * 1000)
        requested: list[str] = []
        problems: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: problems.append(message.text))
        answer = page.goto(f"{locked.url}/docs")
        assert answer is not None
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.title() == "gpurerank API"
        link = page.locator("section p a[href^='#']").first
        name = link.inner_text()
        link.click()
        assert page.url.endswith(f"#{name}")
        for path in ("page.css", "api.css"):
            assert f"{locked.url}/playground/page/{path}" in requested
        assert all(url.startswith((f"{locked.url}/", "data:")) for url in requested), requested
        assert page.locator("script").count() == 0
        assert problems == []
        browser.close()
