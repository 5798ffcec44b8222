from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from gpurerank.server.models import ServedModels
from gpurerank.server.options import ServerOptions
from gpurerank.server.run import bind, server_of
from gpurerank.server.service import Service

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install it")

KEY = "a key of some length"
QUERY = "how much is a ticket"
# Before the answer stand characters that JavaScript counts twice.
LONG = (
    "🏛️ The museum opened in 1931. " * 12
    + "A ticket to the museum is nine euros. "
    + "Cats sleep most of the day. " * 12
).strip()
PASSAGES = ["The sea is cold in May.", LONG, "Tickets are 4 euros.", "Trains leave at noon."]


@dataclass(frozen=True, slots=True)
class Served:
    """A server and a page that is opened on it."""

    page: Page
    address: str


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """Serves in a thread; gives the address."""
    bound = bind(service.options)
    server = server_of(service)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=30)


@pytest.fixture(scope="module")
def addresses() -> Iterator[tuple[str, str]]:
    """A server without a key and one with, of the same models."""
    options = ServerOptions(port=0, max_length=64, demo=True)
    models = ServedModels(options)
    keyed = replace(options, api_key=KEY, demo=False)
    with (
        listening(Service(options, models)) as opened,
        listening(Service(keyed, models)) as locked,
    ):
        yield opened, locked
    models.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, addresses: tuple[str, str]) -> Iterator[Callable[..., Served]]:
    """Opens the page; an error in a script fails the test."""
    contexts, errors = [], []

    def opening(*, width: int = 1280, locked: bool = False) -> Served:
        context = browser.new_context(viewport={"width": width, "height": 800})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(addresses[locked])
        expect(page.locator("#count")).to_contain_text("11 passages")
        page.locator("#split").select_option("lines")
        page.locator("#text").fill("\n".join(PASSAGES))
        page.locator("#query").fill(QUERY)
        return Served(page, addresses[locked])

    yield opening
    for context in contexts:
        context.close()
    assert errors == []


def columns(page: Page, count: int = 2) -> Locator:
    """The columns, once all of them are answered."""
    expect(page.locator("#summary")).not_to_be_empty(timeout=60_000)
    found = page.locator("#columns .column")
    expect(found).to_have_count(count)
    return found


def order(column: Locator) -> list[int]:
    return [int(row.get_attribute("data-index") or -1) for row in column.locator(".row").all()]


def ranked(served: Served, method: str) -> list[dict[str, object]]:
    """What the API itself answers."""
    asked = {"query": QUERY, "passages": PASSAGES, "method": method, "candidates": 2}
    answer = served.page.request.post(f"{served.address}/v1/rank", data=asked)
    results: list[dict[str, object]] = answer.json()["results"]
    return results


def test_both_columns_hold_the_orders_of_the_api(opened: Callable[..., Served]) -> None:
    served = opened()
    served.page.locator("#rank").click()
    before, after = columns(served.page).all()
    assert order(before) == [result["index"] for result in ranked(served, "bi-encoder")]
    expected = ranked(served, "cross-encoder")
    assert order(after) == [result["index"] for result in expected]
    assert after.locator(".score").all_inner_texts() == [f"{r['score']:.3f}" for r in expected]
    expect(served.page.locator("svg.links path")).to_have_count(len(PASSAGES))


def test_the_input_order_is_compared_with_where_it_is_chosen(opened: Callable[..., Served]) -> None:
    page = opened().page
    page.locator("#before").select_option("input")
    page.locator("#rank").click()
    assert order(columns(page).first) == [0, 1, 2, 3]


def test_three_methods_stand_side_by_side_with_their_times(opened: Callable[..., Served]) -> None:
    served = opened()
    served.page.locator("#candidates").fill("2")
    served.page.locator("#compare").click()
    found = columns(served.page, 3).all()
    for column, method in zip(found, ("bi-encoder", "cascade", "cross-encoder"), strict=True):
        assert order(column) == [result["index"] for result in ranked(served, method)]
        expect(column.locator(".total")).to_contain_text("s · ")


def test_the_window_of_the_api_is_marked_in_a_long_passage(opened: Callable[..., Served]) -> None:
    served = opened()
    served.page.locator("#rank").click()
    row = columns(served.page).last.locator(".row[data-index='1']")
    row.locator("button").click()
    expected = next(r for r in ranked(served, "cross-encoder") if r["index"] == 1)
    start, stop = expected["span"]  # type: ignore[misc]
    assert 0 < stop - start < len(LONG)
    assert row.locator("mark").evaluate("mark => mark.textContent") == LONG[start:stop]
    assert row.locator(".text").evaluate("text => text.textContent") == LONG


def test_everything_is_reached_by_keyboard(opened: Callable[..., Served]) -> None:
    page = opened().page
    page.locator("#query").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("when do trains leave")
    page.keyboard.press("Control+Enter")
    columns(page)
    assert page.locator("#results-title").inner_text() == "when do trains leave"
    focused = "document.activeElement.matches('.column:last-of-type .head')"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(focused):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator(":focus")).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".whole .text")).to_have_text(PASSAGES[3])


def test_a_narrow_screen_is_never_scrolled_sideways(opened: Callable[..., Served]) -> None:
    page = opened(width=360).page
    page.locator("#text").fill("\n".join([*PASSAGES, "w" * 300]))
    page.locator("#rank").click()
    shown = columns(page)
    for row in shown.first.locator(".head").all():
        row.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    expect(shown.first.locator("h3")).to_have_text("Cross-encoder")


def test_a_dark_screen_gets_a_dark_page(opened: Callable[..., Served]) -> None:
    page = opened().page
    background = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    assert (light, page.evaluate(background)) == ("rgb(251, 250, 247)", "rgb(21, 24, 27)")


def test_no_request_leaves_the_server(browser: Browser, addresses: tuple[str, str]) -> None:
    address = addresses[0]
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(address)
    page.locator("input[value=demo]").check()
    expect(page.locator("#count")).to_contain_text("characters")
    page.locator("input[value=own]").check()
    page.locator("#text").fill("Trains leave at noon.")
    page.locator("#rank").click()
    columns(page)
    page.close()
    assert f"{address}/v1/rank" in asked
    assert f"{address}/playground/corpus" in asked
    assert [url for url in asked if not url.startswith((f"{address}/", "data:"))] == []
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_html_in_a_passage_is_text(opened: Callable[..., Served]) -> None:
    page = opened().page
    html = "<img src=x onerror=\"document.title='ran'\"><b>Trains</b> leave at noon."
    page.locator("#text").fill(f"{html}\n{PASSAGES[0]}")
    page.locator("#query").fill("<i>when</i> do trains leave")
    page.locator("#rank").click()
    row = columns(page).last.locator(".row[data-index='0']")
    row.locator("button").click()
    assert row.locator(".text").inner_text() == html
    assert page.locator("#results-title").inner_text() == "<i>when</i> do trains leave"
    assert page.locator("#results :is(img, i:not(.stage-names i))").count() == 0
    assert page.title() == "gpurerank playground"


def test_a_wrong_key_is_told_and_a_right_one_goes_on(opened: Callable[..., Served]) -> None:
    page = opened(locked=True).page
    page.locator("#key").fill("another key")
    page.locator("#rank").click()
    expect(page.get_by_role("alert")).to_contain_text("The API key is missing or wrong.")
    expect(page.get_by_role("alert")).to_contain_text("Type the key")
    expect(page.locator("#key")).to_be_focused()
    page.locator("#key").fill(KEY)
    page.keyboard.press("Enter")
    columns(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize(
    ("field", "told"),
    [("#query", "There is no question yet."), ("#text", "There are no passages yet.")],
)
def test_what_is_missing_is_told_where_it_is_missing(
    opened: Callable[..., Served], field: str, told: str
) -> None:
    page = opened().page
    page.locator(field).fill(" ")
    page.locator("#rank").click()
    expect(page.get_by_role("alert")).to_contain_text(told)
    expect(page.locator(field)).to_be_focused()


def test_a_server_that_is_gone_is_told(opened: Callable[..., Served]) -> None:
    page = opened().page
    page.context.set_offline(True)
    page.locator("#rank").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")


@pytest.mark.parametrize(
    ("text", "how", "passages"),
    [
        ("one\r\n\r\ntwo\n", "lines", ["one", "two"]),
        ("one\ntwo\n", "auto", ["one", "two"]),
        ("one\nline\n \ntwo", "auto", ["one\nline", "two"]),
        ("# Head\n\nbody\n\n# Last", "auto", ["# Head\nbody", "# Last"]),
        ('\ufeff{"text": "a\\nb"}\n{"text": "c", "id": 1}\n', "auto", ["a\nb", "c"]),
        ("", "auto", []),
    ],
)
def test_passages_are_split(
    opened: Callable[..., Served], text: str, how: str, passages: list[str]
) -> None:
    script = "async ([t, h]) => (await import('/playground/page/passages.js')).split(t, h).passages"
    assert opened().page.evaluate(script, [text, how]) == passages


def test_files_add_their_passages(opened: Callable[..., Served], tmp_path: Path) -> None:
    page = opened().page
    page.locator("#split").select_option("auto")
    file, wrong = tmp_path / "some.jsonl", tmp_path / "wrong.jsonl"
    file.write_text("".join(json.dumps({"text": each}) + "\n" for each in ("a", "b")))
    wrong.write_text('{"text": "a"}\n{"body": "b"}\n')
    page.locator("#files").set_input_files([file, wrong])
    expect(page.locator("#loaded")).to_contain_text("some.jsonl: 2 passages")
    expect(page.locator("#count")).to_contain_text("6 passages")
    expect(page.get_by_role("alert")).to_contain_text(
        'wrong.jsonl: Line 2 is no JSON object with a "'
    )
    page.get_by_role("button", name="Remove some.jsonl").press("Enter")
    expect(page.locator("#count")).to_contain_text("4 passages")


@pytest.mark.parametrize("name", ["index.html", "none.js", "..%2fplayground.py"])
def test_only_parts_of_the_page_are_served(opened: Callable[..., Served], name: str) -> None:
    served = opened()
    assert served.page.request.get(f"{served.address}/playground/page/{name}").status == 404
