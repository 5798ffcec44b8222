"""Charts as inline SVG: theme colours, tooltips, and labels that do not overlap."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from gpurerank.plotting import (
    SERIES_COLOURS,
    THEME,
    LabelPlacer,
    chart_style,
    inline_svg,
    new_figure,
    printable,
    series_style,
)


def test_an_inline_svg_uses_the_theme_and_has_no_identifiers() -> None:
    with chart_style():
        figure, axes = new_figure(200, 100)
        axes.plot([0, 1], [0, 1], **series_style(1, tooltip="the <line>"))
        axes.fill_between([0, 1], [0, 1], color=THEME["up"])
        svg = inline_svg(
            figure,
            title="A <title>",
            description="Rising & falling.",
            css_class="wide",
        )
    root = ElementTree.fromstring(svg)
    assert root.attrib == {
        "viewBox": "0 0 200 100",
        "class": "wide",
        "role": "img",
        "aria-label": "A <title>",
    }
    assert root.findtext("desc") == "Rising & falling."
    assert [title.text for title in root.iter("title")] == ["the <line>"]
    for element in root.iter():
        assert not {"id", "href", "clip-path"} & set(element.attrib)
    assert "var(--series-1)" in svg
    assert "var(--up)" in svg
    assert not any(colour in svg for colour in THEME.values())
    assert "font-family" not in svg


def test_a_decoration_is_hidden_from_screen_readers() -> None:
    with chart_style():
        figure, _ = new_figure(60, 60)
        root = ElementTree.fromstring(inline_svg(figure, title=""))
    assert root.get("aria-hidden") == "true"
    assert "role" not in root.attrib


def test_series_differ_in_colour_and_shape_and_repeat() -> None:
    styles = [series_style(index) for index in range(9)]
    assert len({style["color"] for style in styles}) == len(SERIES_COLOURS) == 8
    assert styles[8]["color"] == styles[0]["color"]
    assert styles[6]["marker"] == styles[0]["marker"]
    assert len({(style["color"], style["marker"]) for style in styles}) == 9
    assert series_style(0, hollow=True)["markerfacecolor"] == THEME["card"]


def test_the_theme_has_one_name_for_each_colour() -> None:
    assert len(set(THEME.values())) == len(THEME)


def test_labels_cover_neither_lines_nor_each_other() -> None:
    with chart_style():
        _, axes = new_figure(200, 300)
        axes.set_xlim(0, 10)
        axes.set_ylim(0, 10)
        axes.plot([0, 10], [6, 6])
        labels = LabelPlacer(axes)
        while labels.place(5, 5.5, "label", distance=10):
            assert len(axes.texts) < 5
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 3, "below, right and left; the line is above"
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert axes.transData.inverted().transform((0, box.y1))[1] < 6


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\n b", "a b"), ("x" * 9, "xxxxxx…"), ("\x00\ud800é", "\ufffd\ufffdé")],
)
def test_text_of_a_chart_is_one_short_printable_line(text: str, line: str) -> None:
    assert printable(text, 7) == line
