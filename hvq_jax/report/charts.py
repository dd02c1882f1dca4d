"""Charts as inlined SVG, drawn by matplotlib, in the colours of the page, with the value of each point as a tooltip."""

import dataclasses
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hvq_jax.evaluation.palette import BLACK
from hvq_jax.report.markup import Element, element
from hvq_jax.runs.batching import evenly_spaced

_SIZE = (4.5, 3.1)  # inches of 72 pixels: the width of a phone, where texts have the sizes below
_TEXT = "#010203"  # stands for the text colour of the page; not black, which matplotlib does not write
_FONT_SIZE = 11.5
_MOST_POINTS = 400  # of a line
_MOST_MARKERS = 60
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


@dataclasses.dataclass(frozen=True)
class Series:
    """Values `y` over `x`, increasing, and how they are drawn."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    style: str = "-"
    faint: bool = False  # thin, with small markers, and not in the legend
    marker: int = 0  # the number of its form


@dataclasses.dataclass(frozen=True)
class Point:
    """A point with its name."""

    name: str
    x: float
    y: float
    color: str
    marker: int = 0
    hollow: bool = False


def line_chart(
    label: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
    border: tuple[float, str] | None = None,
    filled: bool = False,
) -> Element:
    """Return a chart of lines; the tooltip of a point says its values.

    Args:
        label: what the chart shows, for readers who cannot see it.
        series: the lines.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        log: whether that is logarithmic; all values must be positive then.
        border: where to draw a vertical line, and its text.
        filled: whether the area below a line is filled.
    """
    axes = _new_axes(x_label, y_label)
    titles, legend = {}, []
    for number, line in enumerate(series):
        color = _visible(line.color)
        x, y = _points(line, _MOST_POINTS)
        drawn = axes.plot(x, y, color=color, linestyle=line.style, linewidth=0.9 if line.faint else 1.7)
        if not line.faint:
            legend.append((drawn[0], line.name))
        if filled:
            axes.fill_between(x, y, color=color, alpha=0.25, linewidth=0)
        x, y = _points(line, _MOST_MARKERS)
        _mark(axes, x, y, color, f"points-{number}", marker=line.marker, size=2.5 if line.faint else 4)
        titles[f"points-{number}"] = [f"{line.name}: {b:.5g} at {a:,.6g}" for a, b in zip(x, y, strict=True)]
    if border is not None:
        legend.append((axes.axvline(border[0], color=_TEXT, linewidth=1.2, linestyle=":"), border[1]))
    if log:
        _make_logarithmic(axes, [value for line in series for value in line.y])
    elif filled:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if len(legend) > 1:
        _add_legend(axes, legend)
    return _to_svg(axes, label, titles)


def point_chart(
    label: str,
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    joined: Sequence[tuple[Sequence[float], Sequence[float]]] = (),
) -> Element:
    """Return a chart of points; the tooltip of each has its name and values. `joined` are lines through some of them.

    Args:
        label: what the chart shows, for readers who cannot see it.
        points: the points; each is named in the legend once, in the order given.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        joined: x and y of each line.
    """
    axes = _new_axes(x_label, y_label)
    for x, y in joined:
        axes.plot(x, y, color=_TEXT, linewidth=1, linestyle=":")
    titles, legend = {}, []
    for number, point in enumerate(points):
        gid = f"points-{number}"
        face = "none" if point.hollow else point.color
        drawn = _mark(axes, [point.x], [point.y], point.color, gid, marker=point.marker, size=7, face=face)
        legend.append((drawn, point.name))
        titles[gid] = [f"{point.name}: {point.y:.5g} at {point.x:,.6g}"]
    axes.margins(0.12)
    _add_legend(axes, legend)
    return _to_svg(axes, label, titles)


def _visible(color: str) -> str:
    """Return the colour of a line: black is that of the page's text, since the page may be dark."""
    return _TEXT if color == BLACK else color


def _new_axes(x_label: str, y_label: str) -> Axes:
    figure = Figure(_SIZE, dpi=72, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.set_xlabel(x_label, color=_TEXT, fontsize=_FONT_SIZE)
    axes.set_title(y_label, color=_TEXT, fontsize=_FONT_SIZE, loc="left")  # where it takes no width
    axes.tick_params(which="both", color=_TEXT, labelcolor=_TEXT, labelsize=_FONT_SIZE - 0.5)
    axes.grid(color=_TEXT, alpha=0.15, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_TEXT)
    return axes


def _make_logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Make the vertical axis logarithmic, with numbers as people write them, and enough of them for `values`."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if max(values) > 10 * min(values) else range(1, 10)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _add_legend(axes: Axes, entries: Sequence[tuple[Line2D, str]]) -> None:
    """Put the legend above the chart, where it hides nothing; names are shown as they are, whatever they begin with."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    handles, names = zip(*entries, strict=True)
    columns = 1 if max(map(len, names)) > 20 else 2
    figure.set_figheight(_SIZE[1] + 0.22 * -(-len(names) // columns))
    legend = figure.legend(
        handles, names, loc="outside upper left", ncols=columns, fontsize=_FONT_SIZE, frameon=False, labelcolor=_TEXT
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _mark(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    color: str,
    gid: str,
    *,
    marker: int,
    size: float,
    face: str | None = None,
) -> Line2D:
    form = _MARKERS[marker % len(_MARKERS)]
    edge: dict[str, Any] = {
        "markeredgecolor": color,
        "markerfacecolor": face or color,
        "markeredgewidth": 1.6 if face else 0,
    }
    return axes.plot(x, y, linestyle="none", marker=form, markersize=size, gid=gid, **edge)[0]


def _points(line: Series, most: int) -> tuple[list[float], list[float]]:
    """Return x and y of at most `most` points of a line, evenly spaced, the first and the last among them."""
    places = evenly_spaced(len(line.x), most)
    return [line.x[place] for place in places], [line.y[place] for place in places]


def _to_svg(axes: Axes, label: str, titles: dict[str, list[str]]) -> Element:
    """Return the figure as an `svg` for a page, with `titles` for the markers of each group by its id."""
    stream, figure = io.BytesIO(), axes.get_figure(root=True)
    assert figure is not None
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hvq_jax"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    root = ET.fromstring(stream.getvalue())
    parents = {child: parent for parent in root.iter() for child in parent}
    for node in list(root.iter()):
        if node.tag in (f"{_SVG}metadata", f"{_SVG}style"):  # the latter would be of the whole page
            parents[node].remove(node)
    groups = {node.get("id"): node for node in root.iter()}
    for gid, texts in titles.items():
        _add_titles(groups[gid], texts)
    _clean(root)
    width, height = root.attrib.pop("width"), root.attrib.pop("height")
    root.attrib.update({"role": "img", "aria-label": label, "class": "chart"})
    root.set("style", f"aspect-ratio:{float(width[:-2]):g}/{float(height[:-2]):g}")
    return root


def _add_titles(group: Element, texts: list[str]) -> None:
    markers = [node for node in group.iter() if node.tag == f"{_SVG}use"]
    for node, text in zip(markers, texts, strict=True):
        node.append(element("title", text))


def _clean(root: Element) -> None:
    """Drop namespaces, unused ids and fonts; let the page's text colour take the place of ours."""
    text = ET.tostring(root, encoding="unicode")
    used = set(re.findall(r"#([\w-]+)\)?[\"']?", text))
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        if node.get("id") not in used:
            node.attrib.pop("id", None)
        for key, value in list(node.attrib.items()):
            if key.startswith(_XLINK):
                del node.attrib[key]
                key = key.removeprefix(_XLINK)
            if key == "style":
                value = re.sub(r"font: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", value)
            node.attrib[key] = value.replace(_TEXT, "currentColor")
