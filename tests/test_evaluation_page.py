"""The report: readable, self-contained, and safe whatever the data holds."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from gpurerank import Reranker
from gpurerank.evaluation import EvalOptions, Evaluation, QuerySet, evaluate, write_page
from gpurerank.evaluation.figures import duration, probability, signed
from gpurerank.evaluation.labels import Labels
from gpurerank.evaluation.latency import Timing
from gpurerank.evaluation.page import render_page
from gpurerank.evaluation.queries import Candidate, JudgedQuery
from gpurerank.evaluation.svg import Scale, element
from gpurerank.evaluation.tables import fault_lines, render
from gpurerank.faults import Fault
from tests.conftest import WordOverlap
from tests.made_up import Listwise, Opposite, query_set

HOSTILE = "<script>alert('x')</script> & \"quotes\" </style> {{ 7 * 7 }} <img src=x onerror=y>"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Checker(HTMLParser):
    """Checks that every element is closed, and collects elements and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
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
    """Three contenders at three depths: one good, one harmful, one that neither helps nor harms."""
    contenders = {
        "good": Reranker.from_scorer(WordOverlap(), name="good"),
        "harmful": Reranker.from_scorer(Opposite(), name="harmful"),
        "other": Listwise(),
    }
    found = evaluate(query_set(60), contenders, EvalOptions(depth=8, depths=(2, 4)))
    found.points = [
        replace(p, latency=Timing([p.depth * 1.5] * 20), latency_anew=Timing([p.depth * 9.0] * 3))
        for p in found.points
    ]
    return found


def test_the_page_is_well_formed_and_needs_nothing_beside_it(evaluation: Evaluation) -> None:
    page = render_page(evaluation)
    checked = Checker(page)
    tags = [tag for tag, _ in checked.seen]
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(tags)
    for tag, attributes in checked.seen:
        assert not {"src", "href", "srcset", "xlink:href"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
    assert not re.search(r"(https?:)?//|url\(|@import", page)
    assert "default-src 'none'" in page
    assert tags.count("h1") == 1
    assert ("html", {"lang": "en"}) in checked.seen


def test_the_page_is_for_phones_dark_rooms_paper_and_keyboards(evaluation: Evaluation) -> None:
    page = render_page(evaluation)
    for wanted in (
        "width=device-width",
        "prefers-color-scheme: dark",
        "max-width: 640px",
        "@media print",
        ":focus-visible",
    ):
        assert wanted in page
    seen = Checker(page).seen
    regions = [attributes for _, attributes in seen if attributes.get("class") == "scroll"]
    assert regions
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in regions)
    pictures = [attributes for tag, attributes in seen if tag == "svg"]
    assert all(attributes["role"] == "img" for attributes in pictures)
    drawn = [attributes["class"] for attributes in pictures]
    assert drawn.count("wide") == drawn.count("narrow") == 4


def test_the_page_says_what_was_found(evaluation: Evaluation) -> None:
    said = " ".join(" ".join(Checker(render_page(evaluation)).text).split())
    assert evaluation.advice.headline in said
    for each in (*evaluation.advice.reasons, *evaluation.advice.doubts):
        assert each in said
    for point in evaluation.points:
        assert f"{point.quality.mean:.3f}" in said
        assert signed(point.against_first.difference) in said
    for example in evaluation.examples:
        assert example.query in said
    assert "Rose most" in said
    assert evaluation.hardware[0] in said
    assert "nothing relevant" not in said


def test_whatever_comes_from_data_is_escaped() -> None:
    contenders = {f"<b>{HOSTILE}": Reranker.from_scorer(WordOverlap(), name="x")}
    found = evaluate(hostile(), contenders, EvalOptions(depth=8, depths=(4,)))
    found.notes.append(HOSTILE)
    page = render_page(found)
    checked = Checker(page)
    assert not {"script", "img", "b2"} & {tag for tag, _ in checked.seen}
    assert not any(name.startswith("on") for _, attributes in checked.seen for name in attributes)
    assert "<script" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}", page)
    assert "{{ 7 * 7 }}" in page
    assert any("<script>alert('x')</script>" in text for text in checked.text)


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path: Path) -> None:
    queries = query_set(4)
    first = replace(queries.queries[0], text="about cats \ud800")
    found = evaluate(
        replace(queries, queries=(first, *queries.queries[1:])),
        {"mine": Reranker.from_scorer(WordOverlap(), name="x")},
        EvalOptions(depth=8),
    )
    write_page(found, tmp_path / "page.html")
    page = Checker((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert any("about cats" in text for text in page.text)
    assert json.loads(found.to_json())


@pytest.mark.parametrize("what", ["interrupted", "untimed", "single", "nothing"])
def test_an_incomplete_evaluation_is_shown_too(evaluation: Evaluation, what: str) -> None:
    found = replace(evaluation, notes=["interrupted: what was finished is shown"])
    if what == "untimed":
        found.points = [replace(p, latency=None, latency_anew=None) for p in found.points]
    elif what == "single":
        found.points = [p for p in found.points if p.depth == 8]
        found.depths = [8]
    elif what == "nothing":
        found.points, found.examples = [], []
        found.advice = replace(found.advice, contender="", verdict=0)
    page = render_page(found)
    Checker(page)
    assert "interrupted: what was finished is shown" in page
    assert list(render(found))


def test_tables_fit_a_terminal_and_hold_the_figures(evaluation: Evaluation) -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    for part in render(evaluation):
        console.print(part)
    console.print(fault_lines([Fault("a [red]fault", "left out", 1200, ("x:1: 'a'",))]))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in told.splitlines()) <= 100
    for point in evaluation.shown():
        assert f"{point.quality.mean:.3f}" in told
        assert signed(point.against_first.difference) in told
    assert evaluation.advice.headline in " ".join(told.split())
    assert "- a [red]fault, left out: 1,200 (x:1: 'a'; …)" in told


def test_json_holds_every_query(evaluation: Evaluation) -> None:
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
    assert written["schema_version"] == 1


def test_figures_are_written_as_people_write_them() -> None:
    assert [duration(ms) for ms in (0.41, 9.96, 31.4, 999.0, 1_250.0, 61_000.0)] == [
        "0.4 ms",
        "10.0 ms",
        "31 ms",
        "999 ms",
        "1.2 s",
        "61 s",
    ]
    assert (signed(0.0812), signed(-0.05)) == ("+0.081", "−0.050")
    assert [probability(p) for p in (0.0001, 0.0312, 0.5)] == ["p < 0.001", "p = 0.031", "p = 0.50"]


def test_scales_place_and_tick() -> None:
    plain = Scale(0.0, 1.0, 10.0, 110.0)
    assert plain(0.25) == 35.0
    assert plain.ticks(5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    log = Scale(1.0, 1000.0, 0.0, 300.0, log=True)
    assert log(10.0) == pytest.approx(100.0)
    assert log.ticks(4) == [1.0, 10.0, 100.0, 1000.0]
    assert Scale(5.0, 5.0, 0.0, 10.0)(5.0) == 5.0
    assert element("text", {"x": 1.234}, "<&>") == '<text x="1.23">&lt;&amp;&gt;</text>'


def test_words_are_put_where_nothing_lies() -> None:
    labels = Labels(0, 0, 200, 100)
    labels.keep_free_along([(0, 40), (200, 40)])
    first = labels.beside(100, 52, "first", "small")
    assert 'y="69"' in first, "above it lies the line"
    assert 'text-anchor="start"' in labels.beside(100, 52, "second", "small")
    for _ in range(30):
        last = labels.beside(100, 52, "more", "small")
    assert last == ""
