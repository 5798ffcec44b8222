"""The HTML report, the tables and the JSON: complete, self-contained, and safe for any data."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import playwright.sync_api
import pytest
from rich.console import Console

from gpurerank import Reranker
from gpurerank.evaluation import EvalOptions, Evaluation, QuerySet, evaluate, write_page
from gpurerank.evaluation.html_report import render_page
from gpurerank.evaluation.number_format import format_change, format_duration, format_p_value
from gpurerank.evaluation.query_latency import Timing
from gpurerank.evaluation.query_set import Candidate, JudgedQuery
from gpurerank.evaluation.terminal_report import data_issue_lines, render_tables
from gpurerank.faults import Fault
from tests.conftest import WordOverlap
from tests.query_sets import Listwise, ReversedOverlap, query_set

HOSTILE = "<script>alert('x')</script> & \"quotes\" </style> {{ 7 * 7 }} <img src=x onerror=y>"
VOID = {"meta", "link", "br", "hr", "img", "input"}


CHROMIUM = shutil.which("chromium")


class Checker(HTMLParser):
    """Checks that every element is closed; collects elements, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def hostile(count: int = 40) -> QuerySet:
    queries = tuple(
        JudgedQuery(
            f"{HOSTILE}{query.id}",
            f"{query.text} {HOSTILE}",
            {f"{HOSTILE}{i}": grade for i, grade in query.grades.items()},
            tuple(Candidate(f"{HOSTILE}{c.id}", f"{c.text} {HOSTILE}") for c in query.candidates),
        )
        for query in query_set(count).queries
    )
    faults = (Fault(HOSTILE, HOSTILE, 1, (HOSTILE,)),)
    return QuerySet(HOSTILE, HOSTILE, queries, faults, count)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Three contenders at three depths: one helps, one hurts, one does neither."""
    contenders = {
        "good": Reranker.from_scorer(WordOverlap(), name="good"),
        "harmful": Reranker.from_scorer(ReversedOverlap(), name="harmful"),
        "other": Listwise(),
    }
    result = evaluate(query_set(60), contenders, EvalOptions(depth=8, depths=(2, 4)))
    result.points = [
        replace(
            point,
            latency=Timing([point.depth * 1.5] * 20),
            latency_with_embedding=Timing([point.depth * 9.0] * 3),
        )
        for point in result.points
    ]
    return result


def test_the_page_is_well_formed_and_has_no_external_asset(evaluation: Evaluation) -> None:
    page = render_page(evaluation)
    checked = Checker(page)
    tags = [tag for tag, _ in checked.elements]
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(tags)
    for tag, attributes in checked.elements:
        assert not {"src", "href", "srcset", "xlink:href"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
    assert not re.search(r"(https?:)?//|url\(|@import", page)
    assert "default-src 'none'" in page
    assert tags.count("h1") == 1
    assert ("html", {"lang": "en"}) in checked.elements
    ids = [attributes["id"] for _, attributes in checked.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_page_is_made_for_phones_dark_mode_print_and_keyboards(evaluation: Evaluation) -> None:
    page = render_page(evaluation)
    for rule in (
        "width=device-width",
        "prefers-color-scheme: dark",
        "max-width: 640px",
        "@media print",
        ":focus-visible",
    ):
        assert rule in page
    elements = Checker(page).elements
    regions = [attributes for _, attributes in elements if attributes.get("class") == "scroll"]
    assert regions
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in regions)
    svgs = [attributes for tag, attributes in elements if tag == "svg"]
    charts = [svg for svg in svgs if "aria-hidden" not in svg]
    assert len(charts) == 8
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)
    assert all(svg["class"] == "swatch" for svg in svgs if svg not in charts)
    classes = [svg["class"] for svg in charts]
    assert classes.count("wide") == classes.count("narrow") == 2


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install it")
def test_a_browser_shows_the_charts_in_light_and_dark_at_phone_width(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    write_page(evaluation, tmp_path / "report.html")
    with playwright.sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        colours = {}
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": 390, "height": 800},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            messages: list[str] = []
            page.on("console", lambda message, log=messages: log.append(message.text))
            page.goto((tmp_path / "report.html").as_uri())
            assert messages == [], "such as a violation of the content security policy"
            assert page.evaluate("document.documentElement.scrollWidth") == 390
            texts = page.locator("svg.narrow text")
            assert texts.count() > 20
            right_edges = texts.evaluate_all("all => all.map(t => t.getBoundingClientRect().right)")
            assert max(right_edges) < 390
            colours[scheme] = texts.first.evaluate("text => getComputedStyle(text).fill")
            assert page.locator("svg.wide").first.is_hidden()
        browser.close()
    assert colours == {"light": "rgb(98, 106, 115)", "dark": "rgb(154, 163, 173)"}


def test_the_page_has_the_advice_and_every_result(evaluation: Evaluation) -> None:
    text = " ".join(" ".join(Checker(render_page(evaluation)).text).split())
    assert evaluation.advice.headline in text
    for sentence in (*evaluation.advice.reasons, *evaluation.advice.doubts):
        assert sentence in text
    for point in evaluation.points:
        assert f"{point.quality.mean:.3f}" in text
        assert format_change(point.against_first.difference) in text
    for example in evaluation.examples:
        assert example.query in text
    assert "Largest gains" in text
    assert evaluation.hardware[0] in text
    assert "no relevant passage" not in text


def test_text_from_the_data_is_escaped() -> None:
    contenders = {f"<b>{HOSTILE}": Reranker.from_scorer(WordOverlap(), name="x")}
    result = evaluate(hostile(), contenders, EvalOptions(depth=8, depths=(4,)))
    result.notes.append(HOSTILE)
    page = render_page(result)
    checked = Checker(page)
    assert not {"script", "img", "b2"} & {tag for tag, _ in checked.elements}
    names = [name for _, attributes in checked.elements for name in attributes]
    assert not any(name.startswith("on") for name in names)
    assert "<script" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}", page)
    assert "{{ 7 * 7 }}" in page
    assert any("<script>alert('x')</script>" in text for text in checked.text)


def test_a_name_that_no_font_or_xml_has_is_reported_too(evaluation: Evaluation) -> None:
    """A formula, a control character, a lone surrogate, and letters that matplotlib lacks."""
    name = "$\\frac{1}$ \x00 \ud800 排序"
    renamed = replace(evaluation, first_stage=name)
    renamed.points = [replace(p, contender=name) for p in evaluation.points_of("good")]
    renamed.contenders = [replace(evaluation.contenders[0], name=name)]
    renamed.advice = replace(evaluation.advice, contender=name)
    page = render_page(renamed)
    assert "$\\frac{1}$ \ufffd \ufffd 排序</text>" in page


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path: Path) -> None:
    queries = query_set(4)
    first = replace(queries.queries[0], text="about cats \ud800")
    result = evaluate(
        replace(queries, queries=(first, *queries.queries[1:])),
        {"mine": Reranker.from_scorer(WordOverlap(), name="x")},
        EvalOptions(depth=8),
    )
    write_page(result, tmp_path / "page.html")
    page = Checker((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert any("about cats" in text for text in page.text)
    assert json.loads(result.to_json())


@pytest.mark.parametrize("missing", ["queries", "latencies", "depths", "points"])
def test_an_incomplete_evaluation_is_reported(evaluation: Evaluation, missing: str) -> None:
    result = replace(evaluation, notes=["interrupted: the results cover some queries"])
    if missing == "latencies":
        result.points = [
            replace(p, latency=None, latency_with_embedding=None) for p in result.points
        ]
    elif missing == "depths":
        result.points = [p for p in result.points if p.depth == 8]
        result.depths = [8]
    elif missing == "points":
        result.points, result.examples = [], []
        result.advice = replace(result.advice, contender="", verdict=0)
    page = render_page(result)
    Checker(page)
    assert "interrupted: the results cover some queries" in page
    assert list(render_tables(result))


def test_tables_fit_a_terminal_and_have_every_result(evaluation: Evaluation) -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    for part in render_tables(evaluation):
        console.print(part)
    console.print(data_issue_lines([Fault("a [red]problem", "left out", 1200, ("x:1: 'a'",))]))
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in output.splitlines()) <= 100
    for point in evaluation.main_points():
        assert f"{point.quality.mean:.3f}" in output
        assert format_change(point.against_first.difference) in output
    assert evaluation.advice.headline in " ".join(output.split())
    assert "- a [red]problem, left out: 1,200 (x:1: 'a'; …)" in output


def test_json_has_every_value_of_every_query(evaluation: Evaluation) -> None:
    written = json.loads(evaluation.to_json())
    assert [query["id"] for query in written["queries"]] == [q.id for q in evaluation.queries]
    for point in written["points"]:
        assert set(point["values"]) == {
            "nDCG@10",
            "RR@10",
            "Success@1",
            "Success@5",
            f"R@{point['depth']}",
        }
        assert {len(values) for values in point["values"].values()} == {60}
    assert written["versions"]["gpurerank"]
    assert written["settings"]["depth"] == "8"
    assert written["schema_version"] == 2


def test_numbers_have_signs_units_and_few_digits() -> None:
    assert [format_duration(ms) for ms in (0.41, 9.96, 31.4, 999.0, 1_250.0, 61_000.0)] == [
        "0.4 ms",
        "10.0 ms",
        "31 ms",
        "999 ms",
        "1.2 s",
        "61 s",
    ]
    assert (format_change(0.0812), format_change(-0.05)) == ("+0.081", "−0.050")
    assert [format_p_value(p) for p in (0.0001, 0.0312, 0.5)] == [
        "p < 0.001",
        "p = 0.031",
        "p = 0.50",
    ]
