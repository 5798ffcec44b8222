"""The style of every chart, and matplotlib figures as inline SVG that follows the page's theme.

matplotlib is in the extras ``eval`` and ``bench``; import this module only where a chart is drawn.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

# A figure of (width, height) points has one SVG unit per point, so that font sizes are CSS pixels.
POINTS_PER_INCH = 72
FONT_SIZE = 12

# Each colour is the CSS variable of that name in an inline SVG, and the colour itself elsewhere.
# The series are the palette of Okabe and Ito, darkened where it needs contrast on white.
THEME = {
    "ink": "#1b1f24",
    "quiet": "#626a73",
    "grid": "#eceae5",
    "card": "#fffffe",
    "up": "#0b7a5c",
    "same": "#c9c6bf",
    "down": "#c2412d",
    "series-0": "#0072b2",
    "series-1": "#d55e00",
    "series-2": "#0b8f6b",
    "series-3": "#b0488a",
    "series-4": "#8a6d00",
    "series-5": "#5b5bd6",
    "series-6": "#4d4d4d",
    "series-7": "#a04000",
}
SERIES_COLOURS = tuple(colour for name, colour in THEME.items() if name.startswith("series-"))
# Shapes distinguish the series for readers who cannot tell the colours apart.
SERIES_MARKERS = ("o", "s", "^", "D", "v", "h")
# matplotlib gives triangles and diamonds another area for the same size.
_MARKER_SCALES = (1.0, 0.9, 1.25, 0.85, 1.25, 1.15)
STYLE: dict[Any, Any] = {
    "font.size": FONT_SIZE,
    # Text stays text: it can be searched, read aloud, and takes the font of the page.
    "svg.fonttype": "none",
    # Names come from data, where a dollar sign is no formula.
    "text.parse_math": False,
    "text.color": THEME["ink"],
    "axes.edgecolor": THEME["quiet"],
    "axes.labelcolor": THEME["quiet"],
    "axes.titlecolor": THEME["quiet"],
    "axes.titlelocation": "left",
    "axes.titlesize": FONT_SIZE,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": THEME["grid"],
    "xtick.color": THEME["quiet"],
    "ytick.color": THEME["quiet"],
    "ytick.left": False,
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.labelcolor": THEME["ink"],
}
_CSS_VARIABLES = {colour: f"var(--{name})" for name, colour in THEME.items()}
_DRAWN_ATTRIBUTES = ("d", "style", "transform", "x", "y", "width", "height")
_TOOLTIP = "tooltip: "
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@contextmanager
def chart_style() -> Iterator[None]:
    """Applies the style to the figures that are made and saved in its body.

    Not for concurrent threads: matplotlib's settings belong to the process.
    """
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The browser has fonts for the characters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A new figure with one pair of axes; call it inside ``chart_style``.

    Args:
        width: Points, which are CSS pixels in an inline SVG.
        height: Points.
    """
    size = (width / POINTS_PER_INCH, height / POINTS_PER_INCH)
    # Figure without pyplot: no window, no global list of figures to clear.
    figure = Figure(figsize=size, dpi=POINTS_PER_INCH, layout="constrained")
    return figure, figure.subplots()


def series_style(
    index: int, *, tooltip: str = "", size: float = 7.0, hollow: bool = False
) -> dict[str, Any]:
    """Keywords of ``Axes.plot`` for the marker of a series.

    Args:
        index: Position of the series; colours repeat after 8, shapes after 6.
        tooltip: Text that ``inline_svg`` shows on hover.
        size: Diameter in points.
        hollow: Draw the outline only.
    """
    colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
    shape = index % len(SERIES_MARKERS)
    return {
        "color": colour,
        "marker": SERIES_MARKERS[shape],
        "markersize": size * _MARKER_SCALES[shape],
        # The outline in the background's colour keeps markers apart that overlap.
        "markeredgecolor": colour if hollow else THEME["card"],
        "markerfacecolor": THEME["card"] if hollow else colour,
        # Above every line, so that a crossing line hides no marker.
        "zorder": 3,
        # An artist's gid becomes the id of its SVG element.
        "gid": _TOOLTIP + printable(tooltip, 200) if tooltip else None,
    }


def format_duration_axis(axis: Axis, factors: Sequence[int] = (1, 2, 5)) -> None:
    """Labels a logarithmic axis of milliseconds with "ms" and "s".

    Args:
        axis: One of a pair of axes.
        factors: The multiples of each power of ten that get a label.
    """
    axis.set_major_locator(LogLocator(subs=factors))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda ms, _: f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms")
    )


def printable(text: str, limit: int = 60) -> str:
    """The text on one line, at most ``limit`` characters, without what XML does not allow."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


class LabelPlacer:
    """Puts labels where they cover neither lines and markers nor each other.

    Args:
        axes: With every line and marker drawn.
    """

    def __init__(self, axes: Axes) -> None:
        # Layout and limits are final only after a draw; later labels must not change them.
        axes.figure.draw_without_rendering()  # type: ignore[union-attr]
        self._axes = axes
        self._taken: list[Bbox] = []
        for line in axes.lines:
            path = line.get_transform().transform_path(line.get_path()).interpolated(40)
            radius = line.get_markersize() / 2 if line.get_marker() != "None" else 1.0
            for x, y in np.asarray(path.vertices):  # pixels
                self._taken.append(
                    Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)
                )

    def place(self, x: float, y: float, text: str, *, distance: float = 6.0, **style: Any) -> bool:
        """Writes a label above, below, right or left of a data point; not at all without room.

        Returns:
            Whether there was room.
        """
        places = (
            (0, distance, "center", "bottom"),
            (0, -distance, "center", "top"),
            (distance, 0, "left", "center"),
            (-distance, 0, "right", "center"),
        )
        inside = self._axes.bbox.padded(2)
        for dx, dy, horizontal, vertical in places:
            label = self._axes.annotate(
                text,
                (x, y),
                (dx, dy),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                in_layout=False,
                **style,
            )
            box = label.get_window_extent()
            is_inside = inside.contains(*box.min) and inside.contains(*box.max)
            if is_inside and not any(box.overlaps(taken) for taken in self._taken):
                self._taken.append(box)
                return True
            label.remove()
        return False


def inline_svg(figure: Figure, *, title: str, description: str = "", css_class: str = "") -> Markup:
    """The figure as an ``<svg>`` element for an HTML page; call it inside ``chart_style``.

    It has no identifiers, references, scripts or style sheets, so that a page may hold many. The
    theme's colours become CSS variables, such as ``var(--ink)``.

    Args:
        figure: Made by ``new_figure``.
        title: Accessible name; empty for a decoration that screen readers skip.
        description: Accessible description: what the chart shows, in words.
        css_class: Classes of the element.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    source = ElementTree.fromstring(file.getvalue())
    shapes = {node.get("id", ""): node.get("d", "") for node in source.iter() if node.get("id")}
    root = ElementTree.Element("svg", {"viewBox": source.get("viewBox", ""), "class": css_class})
    root.attrib |= {"role": "img", "aria-label": title} if title else {"aria-hidden": "true"}
    if description:
        ElementTree.SubElement(root, "desc").text = description
    _copy_children(source, root, shapes)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _copy_children(
    source: ElementTree.Element, target: ElementTree.Element, shapes: Mapping[str, str]
) -> None:
    """Copies what is drawn; a reference becomes a copy of the shape that it refers to."""
    for child in source:
        tag = _local_name(child.tag)
        # Shapes are copied where they are used; nothing is drawn outside the axes, so that clip
        # paths are not needed; the style sheet would apply to the whole page.
        if tag in ("defs", "metadata"):
            continue
        values = {_local_name(name): value for name, value in child.attrib.items()}
        attributes = {name: values[name] for name in _DRAWN_ATTRIBUTES if name in values}
        if tag == "use":
            tag, attributes["d"] = "path", shapes[values["href"].removeprefix("#")]
            attributes["transform"] = f"translate({attributes.pop('x')} {attributes.pop('y')})"
        if "style" in attributes:
            # Text takes the font of the page; matplotlib's own is wider, so that all of it fits.
            style = re.sub(r"font-family: [^;]*;? ?", "", attributes["style"])
            attributes["style"] = re.sub("#[0-9a-f]{6}", _css_variable, style)
        if "d" in attributes:
            attributes["d"] = " ".join(attributes["d"].split())
        copy = ElementTree.SubElement(target, tag, attributes)
        copy.text = child.text if tag == "text" else None
        if values.get("id", "").startswith(_TOOLTIP):
            ElementTree.SubElement(copy, "title").text = values["id"].removeprefix(_TOOLTIP)
        _copy_children(child, copy, shapes)


def _local_name(name: str) -> str:
    return name.rpartition("}")[2]


def _css_variable(colour: re.Match[str]) -> str:
    return _CSS_VARIABLES.get(colour[0], colour[0])
