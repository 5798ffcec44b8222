"""The page in a real browser, on a real server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from gpurerank import BiEncoder, Cascade, RankedPassage, Reranker
from gpurerank.server.admission import Work
from gpurerank.server.options import Limits, ServerOptions
from tests.serving import Running, running
from tests.time_limits import HANG_S

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install it")

KEY = "a-key-of-some-length"
QUERY = "how much is a ticket"
# Before the answer stand characters that JavaScript counts twice.
LONG = (
    "🏛️ The museum opened in 1931. " * 12
    + "A ticket to the museum is nine euros. "
    + "Cats sleep most of the day. " * 12
).strip()
PASSAGES = ["The sea is cold in May.", LONG, "Tickets are 4 euros.", "Trains leave at noon."]
PLAIN = {"port": 0, "max_length": 64, "device": "cpu", "dtype": "float32"}


@dataclass(frozen=True, slots=True)
class Servers:
    """One with the demo corpus, one with a key, one that takes little."""

    open: Running
    locked: Running
    small: Running


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        options = (
            ServerOptions(**PLAIN, demo=True),
            ServerOptions(**PLAIN, api_key=KEY),
            ServerOptions(**PLAIN, limits=Limits(passages=3, queued_s=1e-6)),
        )
        yield Servers(*(stack.enter_context(running(each)) for each in options))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=HANG_S * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


Opening = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, servers: Servers) -> Iterator[Opening]:
    """Opens the page; an error in a script fails the test."""
    contexts, errors = [], []

    def opening(server: Running = servers.open, *, width: int = 1280) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800})
        context.set_default_timeout(HANG_S * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        expect(page.locator("#count")).to_contain_text("11 passages")
        page.locator("#split").select_option("lines")
        page.locator("#text").fill("\n".join(PASSAGES))
        page.locator("#query").fill(QUERY)
        return page

    yield opening
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="module")
def expected() -> Iterator[dict[str, list[RankedPassage]]]:
    """What the classes answer in process, by method."""
    reranker = Reranker(max_length=64, device="cpu", dtype="float32")
    embedder = BiEncoder(device="cpu", dtype="float32")
    yield {
        "cross-encoder": reranker.rank(QUERY, PASSAGES),
        "cascade": Cascade(embedder, reranker, 2).rank(QUERY, PASSAGES),
        "bi-encoder": embedder.rank(QUERY, PASSAGES),
    }
    reranker.close()
    embedder.close()


Expected = dict[str, list[RankedPassage]]


def columns(page: Page, count: int = 2) -> Locator:
    """The columns, once all of them are answered."""
    expect(page.locator("#summary")).not_to_be_empty()
    found = page.locator("#columns .column")
    expect(found).to_have_count(count)
    return found


def order(column: Locator) -> list[int]:
    indexes: list[int] = column.locator(".row").evaluate_all(
        "rows => rows.map(row => Number(row.dataset.index))"
    )
    return indexes


def indexes(ranked: list[RankedPassage]) -> list[int]:
    return [passage.index for passage in ranked]


def test_before_and_after_hold_the_orders_of_both_encoders(
    opened: Opening, expected: Expected
) -> None:
    page = opened()
    page.locator("#rank").click()
    before, after = columns(page).all()
    ranked = expected["cross-encoder"]
    assert order(before) == indexes(expected["bi-encoder"])
    assert order(after) == indexes(ranked)
    assert after.locator(".score").all_inner_texts() == [f"{p.score:.3f}" for p in ranked]


def test_a_line_says_of_each_passage_whether_it_rose_or_fell(
    opened: Opening, expected: Expected
) -> None:
    page = opened()
    page.locator("#rank").click()
    after = columns(page).last
    places = {index: place for place, index in enumerate(indexes(expected["bi-encoder"]))}
    moves = [places[index] - at for at, index in enumerate(indexes(expected["cross-encoder"]))]
    kinds = ["rose" if move > 0 else "fell" if move < 0 else "stayed" for move in moves]
    lines = page.locator("svg.links path")
    expect(lines).to_have_count(len(PASSAGES))
    assert lines.evaluate_all("lines => lines.map(line => line.classList[0])") == kinds
    badges = "badges => badges.map(badge => badge.classList[1])"
    assert after.locator(".move").evaluate_all(badges) == kinds
    assert {"rose", "fell"} <= set(kinds)


def test_the_input_order_is_compared_with_where_it_is_chosen(opened: Opening) -> None:
    page = opened()
    page.locator("#before").select_option("input")
    page.locator("#rank").click()
    assert order(columns(page).first) == [0, 1, 2, 3]


def test_three_methods_stand_side_by_side_with_their_times(
    opened: Opening, expected: Expected
) -> None:
    page = opened()
    page.locator("#candidates").fill("2")
    page.locator("#compare").click()
    found = columns(page, 3).all()
    for column, method in zip(found, ("bi-encoder", "cascade", "cross-encoder"), strict=True):
        assert order(column) == indexes(expected[method])
        expect(column.locator(".total")).to_have_text(re.compile(r"[\d.]+ m?s · [\d,]+ tokens"))


def test_the_best_window_is_marked_and_in_sight(opened: Opening, expected: Expected) -> None:
    page = opened()
    page.locator("#rank").click()
    row = columns(page).last.locator(".row[data-index='1']")
    row.locator("button").click()
    (span,) = [passage.span for passage in expected["cross-encoder"] if passage.index == 1]
    assert span is not None
    assert 0 < span[0] < span[1] < len(LONG)
    assert row.locator("mark").evaluate("mark => mark.textContent") == LONG[slice(*span)]
    assert row.locator(".text").evaluate("text => text.textContent") == LONG
    expect(row.locator("mark")).to_be_in_viewport()


def test_the_example_takes_one_click_and_raises_the_answer(opened: Opening) -> None:
    page = opened()
    page.get_by_role("button", name="Run the example").click()
    before, after = columns(page).all()
    # The long passage: its end alone answers.
    assert (order(before)[-1], order(after)[0]) == (5, 5)
    expect(page.locator("#empty")).to_be_hidden()


def test_everything_is_reached_by_keyboard(opened: Opening) -> None:
    page = opened()
    page.locator("#query").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("when do trains leave")
    page.keyboard.press("Control+Enter")
    columns(page)
    assert page.locator("#results-title").inner_text() == "when do trains leave"
    assert page.locator("#summary").get_attribute("aria-live") == "polite"
    focused = "document.activeElement.matches('.column:last-of-type .head')"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(focused):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator(":focus")).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".whole .text")).to_have_text(PASSAGES[3])


def test_every_control_has_a_name(opened: Opening) -> None:
    nameless = """() => [...document.querySelectorAll("input, select, textarea, button")]
        .filter((control) => !control.labels?.length && !control.textContent.trim())
        .filter((control) => !control.hidden)
        .map((control) => control.outerHTML)"""
    assert opened().evaluate(nameless) == []


def test_a_second_click_asks_nothing_twice(opened: Opening) -> None:
    page = opened()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#rank").dblclick()
    columns(page)
    assert len(asked) == 2, "one of the bi-encoder, one of the cross-encoder"


def test_what_runs_says_so_and_escape_cancels_it(opened: Opening) -> None:
    page = opened()
    page.route("**/v1/rank", lambda route: None)
    page.locator("#rank").click()
    expect(page.locator("#rank")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#status")).to_have_text("Ranking 4 passages.")
    expect(page.locator("#cancel")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.locator("#summary")).to_have_text("Cancelled.")
    expect(page.locator("#rank")).to_have_attribute("aria-disabled", "false")
    expect(page.locator("#progress")).to_be_hidden()


def test_a_phone_is_never_scrolled_sideways(opened: Opening) -> None:
    page = opened(width=375)
    page.locator("#text").fill("\n".join([*PASSAGES, "w" * 300]))
    page.locator("#rank").click()
    shown = columns(page)
    for row in shown.first.locator(".head").all():
        row.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    expect(shown.first.locator("h3")).to_contain_text("Cross-encoder")


def test_a_dark_screen_gets_a_dark_page(opened: Opening) -> None:
    page = opened()
    background = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    assert (light, page.evaluate(background)) == ("rgb(251, 250, 247)", "rgb(21, 24, 27)")


def test_no_request_leaves_the_server(browser: Browser, servers: Servers) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(servers.open.url)
    page.locator("input[value=demo]").check()
    expect(page.locator("#count")).to_contain_text("characters")
    page.locator("input[value=own]").check()
    page.locator("#text").fill("Trains leave at noon.")
    page.locator("#rank").click()
    columns(page)
    page.close()
    assert f"{servers.open.url}/v1/rank" in asked
    assert f"{servers.open.url}/playground/corpus" in asked
    assert [url for url in asked if not url.startswith((f"{servers.open.url}/", "data:"))] == []
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_html_in_a_passage_is_text(opened: Opening) -> None:
    page = opened()
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


def test_a_wrong_key_is_told_and_a_right_one_goes_on(opened: Opening, servers: Servers) -> None:
    page = opened(servers.locked)
    page.locator("#key").fill("another key")
    page.locator("#rank").click()
    expect(page.get_by_role("alert")).to_contain_text("The API key is missing or wrong.")
    expect(page.get_by_role("alert")).to_contain_text("Type the key")
    expect(page.locator("#key")).to_be_focused()
    page.locator("#key").fill(KEY)
    page.keyboard.press("Enter")
    columns(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    kept = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert page.evaluate(kept) == [0, 0, ""]


def test_models_are_named_to_who_has_the_key(servers: Servers) -> None:
    state = "/playground/state"
    models = {"rerankers": ["embedded"], "embedders": ["embedded"]}
    assert servers.open.client.get(state).json()["models"] == models
    locked = servers.locked.client
    assert locked.get(state).json() == {"models": None, "needs_key": True, "demo": False}
    assert locked.get(state, headers={"x-api-key": KEY}).json()["models"] == models


@pytest.mark.parametrize(
    ("field", "told"),
    [("#query", "There is no question yet."), ("#text", "There are no passages yet.")],
)
def test_what_is_missing_is_told_where_it_is_missing(
    opened: Opening, field: str, told: str
) -> None:
    page = opened()
    page.locator(field).fill(" ")
    page.locator("#rank").click()
    expect(page.get_by_role("alert")).to_contain_text(told)
    expect(page.locator(field)).to_be_focused()


def test_a_server_that_is_gone_is_told(opened: Opening) -> None:
    page = opened()
    page.context.set_offline(True)
    page.locator("#rank").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")


def test_a_limit_is_told_with_what_to_change(opened: Opening, servers: Servers) -> None:
    page = opened(servers.small)
    page.locator("#rank").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Passages: 4 are over the limit of 3; send them in parts.")
    expect(alert).to_contain_text("Send fewer passages")


def test_a_busy_server_is_told_with_when_to_come_again(opened: Opening, servers: Servers) -> None:
    page = opened(servers.small)
    page.locator("#text").fill(PASSAGES[0])
    with servers.small.service.admission.admitted(Work(tokens=10**6, seconds=500.0)):
        page.locator("#rank").click()
        expect(page.get_by_role("alert")).to_have_text(
            re.compile(r"1,000,000 tokens are waiting.*Ask again in [1-9]\d* s\.", re.DOTALL)
        )


@pytest.fixture(scope="module")
def splitting(browser: Browser, servers: Servers) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(servers.open.url)
    yield page
    page.close()


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
def test_passages_are_split(splitting: Page, text: str, how: str, passages: list[str]) -> None:
    script = "async ([t, h]) => (await import('/playground/page/passages.js')).split(t, h).passages"
    assert splitting.evaluate(script, [text, how]) == passages


def test_files_add_their_passages(opened: Opening, tmp_path: Path) -> None:
    page = opened()
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


def test_a_passage_stays_open_when_more_are_shown(opened: Opening) -> None:
    page = opened()
    page.locator("#text").fill("\n".join(f"Train {number} leaves." for number in range(14)))
    page.locator("#rank").click()
    first = columns(page).last.locator(".head").first
    first.click()
    page.get_by_role("button", name="Show 2 more of 2").press("Enter")
    expect(columns(page).last.locator(".row")).to_have_count(14)
    expect(first).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".column:last-of-type .row:nth-child(13) .head")).to_be_focused()


@pytest.mark.parametrize("name", ["index.html", "none.js", "..%2fplayground.py"])
def test_only_parts_of_the_page_are_served(servers: Servers, name: str) -> None:
    assert servers.open.client.get(f"/playground/page/{name}").status_code == 404
